"""`inv ci.report`: from what lies in output/, whatever made it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.artifacts.checks import read, write
from tasks.ci import reporting, validating
from tasks.ci.data import ReportData
from tasks.ci.origin import Origin
from tasks.core.stage import Site
from tests.standins import fake_inv
from tests.standins.validations import check, validation


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A checkout with one image that was validated."""
    monkeypatch.chdir(tmp_path)
    fake_inv.publish("minimal", "1.0.0")
    fake_inv.validate(["validate.image", "output/vexfs-minimal-1.0.0.qcow2"], "")
    return Site(root=tmp_path, state=tmp_path / ".vmbake", output=tmp_path / "output")


def survey(site: Site) -> ReportData:
    records = validating.records_in(site.output / "validation")
    images = reporting.images_in(site.output)
    return reporting.survey(site, images, records, Origin(build="7"), site.output / "ci")


def test_what_was_made_and_validated_is_told(site: Site) -> None:
    data = survey(site)
    assert data.passed
    (timeline,) = data.timelines
    assert [stage.name for stage in timeline.stages] == [
        f"vexfs.{name}" for name in fake_inv.STAGES
    ]
    assert all(stage.log.endswith(".log") for stage in timeline.stages)
    assert {link.title for link in data.links} >= {"vexfs-minimal-1.0.0.qcow2"}


def test_an_image_that_was_made_anew_has_not_been_validated(site: Site) -> None:
    manifest = site.output / "vexfs-minimal-1.0.0.manifest.json"
    document = json.loads(manifest.read_text())
    document["artifacts"]["vexfs-minimal-1.0.0.qcow2"]["sha256"] = "00" * 32
    manifest.write_text(json.dumps(document))
    (item,) = survey(site).validations
    assert item.error == reporting.NOT_VALIDATED


def test_foreign_images_count_as_their_records_say(site: Site) -> None:
    foreign = validation(check(outcome="failed"), image="debian.qcow2", variant="", version="")
    write(foreign, site.output / "validation" / "debian.qcow2.tcg.bios.json")
    (site.output / "validation" / "broken.json").write_text("{")
    data = survey(site)
    assert {item.image: item.passed for item in data.validations} == {
        "debian.qcow2": False,
        "vexfs-minimal-1.0.0.qcow2": True,
    }


def test_a_stage_that_the_store_has_no_longer_is_left_out(site: Site) -> None:
    for path in (site.state / "results" / "vexfs.seal").glob("*/record.json"):
        path.unlink()
    (site.state / "logs" / "run" / "vexfs.compress.log").unlink()
    (timeline,) = survey(site).timelines
    assert {stage.name: bool(stage.log) for stage in timeline.stages} == {
        "vexfs.build-cloudimg": True,
        "vexfs.compile-vexfs": True,
        "vexfs.compress": False,
    }


def test_the_wizard_s_videos_are_in_it(site: Site) -> None:
    (site.root / "videos").mkdir()
    (site.root / "videos" / "post-wizard.webm").write_bytes(b"webm")
    assert [video.title for video in survey(site).videos] == ["post wizard"]


def test_three_files_are_written(site: Site, tmp_path: Path) -> None:
    paths = reporting.write(survey(site), tmp_path / "report")
    assert [path.name for path in paths] == ["report.html", "junit.xml", "summary.md"]
    assert "<!doctype html>" in paths[0].read_text()
    assert 'name="vexfs-minimal-1.0.0.qcow2"' in paths[1].read_text()
    assert "The image passed" in paths[2].read_text()


def test_a_manifest_without_its_files_is_no_image(site: Site) -> None:
    (site.output / "vexfs-minimal-1.0.0.qcow2.zst").unlink()
    assert reporting.images_in(site.output) == []


def test_a_time_that_is_none_is_passed_over(site: Site) -> None:
    (path,) = (site.output / "validation").glob("*.json")
    write(replace(read(path), started="yesterday"), path)
    assert survey(site).passed


def test_outputs_are_for_github_alone(tmp_path: Path) -> None:
    assert not reporting.set_outputs({"matrix": "{}"}, env={})
    path = tmp_path / "outputs"
    path.write_text("other=1\n")
    assert reporting.set_outputs({"matrix": "{}"}, env={"GITHUB_OUTPUT": os.fspath(path)})
    assert path.read_text() == "other=1\nmatrix={}\n"
