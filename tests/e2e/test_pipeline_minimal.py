"""`inv ci.pipeline` over the minimal image, with a real validation: what it hands over holds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tasks.artifacts import checks
from tests.e2e.test_minimal_image import Baked, baked, inv

pytestmark = pytest.mark.e2e

__all__ = ["baked"]  # pytest finds a fixture by its name in the module
IMAGE = "vexfs-minimal-1.0.0.qcow2"


@pytest.fixture(scope="session")
def handed_over(baked: Baked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the pipeline left; only the validation takes time."""
    into = tmp_path_factory.mktemp("ci")
    out, err = inv(
        *("ci.pipeline", "--variants", "minimal", "--into", str(into)),
        *("--build-number", "42", "--timeout", "3000"),
    )
    assert out.strip() == str(into / "42")
    assert "minimal: vexfs." not in err, "nothing had to be built"
    return into / "42"


@pytest.fixture
def page(handed_over: Path) -> Iterator[Page]:
    """The report in a browser; the test fails if the browser complained."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = own if Path(own).exists() else shutil.which("chromium")
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=path, args=flags) as browser:
            opened = browser.new_page()
            opened.on("console", lambda message: complaints.append(message.text))
            opened.on("pageerror", lambda error: complaints.append(str(error)))
            opened.goto((handed_over / "report.html").as_uri())
            yield opened
    assert complaints == []


def test_all_of_it_is_there(handed_over: Path, baked: Baked) -> None:
    stem = IMAGE.removesuffix(".qcow2")
    for name in (
        *(IMAGE, f"{IMAGE}.zst", f"{IMAGE}.sha256", f"{IMAGE}.zst.sha256"),
        *(f"{stem}.manifest.json", f"{stem}.cdx.json", f"{stem}.spdx.json"),
        *(f"{stem}.provenance.json", "build-manifest.json", "checksums.sha256"),
        *("report.html", "junit.xml", "summary.md", f"logs/{stem}/vexfs.seal.log"),
    ):
        assert (handed_over / name).stat().st_size, name
    assert (handed_over / IMAGE).stat().st_size == baked.image.stat().st_size


def test_the_record_is_of_just_this_image(handed_over: Path, baked: Baked) -> None:
    (path,) = (handed_over / "validation").glob(f"{IMAGE}.*.bios.json")
    record = checks.read(path)
    assert record.passed
    assert record.sha256 == baked.manifest["artifacts"][IMAGE]["sha256"]
    assert path.with_name(f"{path.stem}.console.log").stat().st_size
    assert path.with_name(f"{path.stem}.test-result.json").stat().st_size


def test_junit_has_every_check(handed_over: Path) -> None:
    document = ET.parse(handed_over / "junit.xml").getroot()
    suites = {suite.get("name"): suite for suite in document.findall("testsuite")}
    assert set(suites) == {"pipeline", IMAGE}
    assert int(suites[IMAGE].get("tests", 0)) > 20
    assert (document.get("failures"), document.get("errors")) == ("0", "0")


def test_it_can_be_verified_until_a_byte_is_changed(handed_over: Path, tmp_path: Path) -> None:
    out, _ = inv("ci.verify", str(handed_over))
    assert "as they were sealed" in out
    checked = subprocess.run(
        ["sha256sum", "--quiet", "-c", "checksums.sha256"], cwd=handed_over, check=False
    )
    assert checked.returncode == 0
    # A copy: the image is the very file in output/.
    copy = tmp_path / "copy"
    shutil.copytree(handed_over, copy)
    with (copy / f"{IMAGE}.zst").open("r+b") as stream:
        stream.seek(1000)
        byte = stream.read(1)
        stream.seek(1000)
        stream.write(bytes([byte[0] ^ 1]))
    _, err = inv("ci.verify", str(copy), status=6)
    assert f"{IMAGE}.zst" in err


def test_the_report_opens_and_tells(page: Page) -> None:
    expect(page.locator("h1")).to_contain_text("The image passed")
    expect(page.locator("#images")).to_contain_text(IMAGE)
    expect(page.locator("#around")).to_contain_text("source and settings of minimal")
    page.locator("#grid tbody a").first.click()
    expect(page.locator(".body:target")).to_be_visible()
    assert page.locator("#files a").count() >= 10


def test_a_report_can_be_made_from_what_is_left(handed_over: Path, tmp_path: Path) -> None:
    out, _ = inv("ci.report", "--into", str(tmp_path))
    assert {Path(line).name for line in out.split()} == {"report.html", "junit.xml", "summary.md"}
    assert IMAGE in (tmp_path / "summary.md").read_text().replace("&#45;", "-")
