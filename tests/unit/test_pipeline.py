"""The pipeline, with a fake `inv` for the other rooms: whatever fails, the artifacts tell."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.attest import verification
from tasks.ci import pipelines
from tasks.ci.data import ReportData
from tasks.ci.origin import Origin
from tasks.core.errors import CannotRun, PipelineFailed, ValidationFailed
from tests.standins.checkout import Checkout, Listener

SECRET = "https://hooks.example/s3cr3t"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(root=tmp_path, env={})
    made.script()
    return made


def error_of(data: ReportData) -> Any:
    return pipelines.failure(data, Path("report.html"))


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_everything_is_in_one_folder(checkout: Checkout) -> None:
    data = checkout.run()
    assert data.passed
    assert error_of(data) is None
    names = names_in(checkout.into / "7")
    for variant in ("minimal", "production"):
        stem = f"vexfs-{variant}-1.0.0"
        assert {
            f"{stem}.qcow2",
            f"{stem}.qcow2.sha256",
            f"{stem}.qcow2.zst",
            f"{stem}.qcow2.zst.sha256",
            f"{stem}.manifest.json",
            f"{stem}.cdx.json",
            f"{stem}.spdx.json",
            f"{stem}.provenance.json",
            f"validation/{stem}.qcow2.tcg.bios.json",
            f"validation/{stem}.qcow2.tcg.bios.console.log",
            f"validation/{stem}.qcow2.tcg.bios.test-result.json",
            f"logs/build-{variant}.log",
            f"logs/{stem}/vexfs.seal.log",
        } <= names
    assert {
        *("report.html", "junit.xml", "summary.md", "logs/validate.log"),
        *("build-manifest.json", "checksums.sha256"),
    } <= names
    assert not [path for path in checkout.into.iterdir() if path.name.startswith(".")]


def test_what_is_handed_over_can_be_verified(checkout: Checkout) -> None:
    checkout.run()
    folder = checkout.into / "7"
    assert verification.verify(folder, None).findings == ()
    checked = subprocess.run(
        ["sha256sum", "--quiet", "-c", "checksums.sha256"], cwd=folder, check=False
    )
    assert checked.returncode == 0
    with (folder / "vexfs-minimal-1.0.0.qcow2.zst").open("r+b") as stream:
        stream.write(b"!")
    found = [str(finding) for finding in verification.verify(folder, None).findings]
    assert any("vexfs-minimal-1.0.0.qcow2.zst" in line for line in found)


def test_no_bytes_are_copied(checkout: Checkout) -> None:
    checkout.run()
    name = "vexfs-minimal-1.0.0.qcow2"
    assert (checkout.into / "7" / name).samefile(checkout.site.output / name)


def test_a_failed_variant_does_not_stop_the_others(checkout: Checkout) -> None:
    checkout.script(build={"minimal": "fail"})
    data = checkout.run(checkout.order("minimal", "development", "production"))
    error = error_of(data)
    assert isinstance(error, PipelineFailed)
    assert error.what == "1 of 3 images were not built."
    assert "The source did not compile." in error.tail[0]
    assert [item.variant for item in data.validations] == ["development", "production"]
    (failed,) = [line for line in data.timelines if line.image == "vexfs-minimal"]
    (stage,) = failed.stages
    assert (stage.name, stage.state, stage.seconds) == ("vexfs.seal", "failed", 2.5)
    folder = checkout.into / "7"
    assert "no_such_name" in (folder / "logs" / "build-minimal.log").read_text()
    assert "The source did not compile." in (folder / "report.html").read_text()
    assert "The source did not compile." in (folder / "junit.xml").read_text()
    manifest = json.loads((folder / "build-manifest.json").read_text())
    outcomes = {each["name"]: each["outcome"] for each in manifest["build"]["variants"]}
    assert outcomes["vexfs-minimal"] == "failed"
    assert outcomes["vexfs-production-1.0.0"] == "passed"
    assert verification.verify(folder, None).findings == ()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("crash", "It ended with status 1 and gave no reason. Its last line: KeyError: 'x'"),
        ("killed", "It ended by signal 9 and gave no reason. Its last line: vexfs.seal: restoring"),
        ("silent", "It ended well, but named no manifest that is there."),
    ],
)
def test_a_build_that_ends_oddly_has_failed(checkout: Checkout, how: str, reason: str) -> None:
    checkout.script(build={"minimal": how})
    data = checkout.run(checkout.order("minimal"))
    assert isinstance(error_of(data), PipelineFailed)
    assert data.timelines[0].stages[0].reason == reason
    assert not [call for call in checkout.calls() if call["words"][0] == "validate.image"]


def test_a_failed_check_fails_the_run_as_the_validator_does(checkout: Checkout) -> None:
    checkout.script(validate="fail")
    data = checkout.run()
    error = error_of(data)
    assert isinstance(error, ValidationFailed)
    assert error.what == "2 of 2 images did not pass their checks."
    assert error.tail == ("module: modprobe loads it: Exec format error",)
    assert (checkout.into / "7" / "vexfs-minimal-1.0.0.qcow2").exists()


def test_a_validator_that_crashes_passes_nothing(checkout: Checkout) -> None:
    checkout.script(validate="crash")
    data = checkout.run()
    assert isinstance(error_of(data), PipelineFailed)
    assert all("QEMU can't be started." in item.error for item in data.validations)
    assert "validator" in {check.group for check in data.around}
    assert verification.verify(checkout.into / "7", None).findings == ()


def test_an_image_that_was_validated_before_the_crash_keeps_its_result(checkout: Checkout) -> None:
    checkout.script(validate="crash after one")
    first, second = checkout.run().validations
    assert first.passed
    assert "left no record" in second.error


def test_a_record_of_other_bytes_does_not_count(checkout: Checkout) -> None:
    checkout.script(validate="wrong digest")
    data = checkout.run()
    assert not any(item.passed for item in data.validations)


def test_a_record_of_an_earlier_run_does_not_count(checkout: Checkout) -> None:
    checkout.run()
    checkout.script(validate="crash")
    assert not any(item.passed for item in checkout.run().validations)


def test_a_machine_that_can_not_do_it_is_not_tried(checkout: Checkout) -> None:
    checkout.script(doctor="broken")
    data = checkout.run()
    assert isinstance(error_of(data), CannotRun)
    assert {call["words"][0] for call in checkout.calls()} == {"doctor", "check"}
    assert "Free some." in (checkout.into / "7" / "report.html").read_text()


def test_a_doctor_that_crashes_is_told_and_the_builds_are_tried(checkout: Checkout) -> None:
    checkout.script(doctor="crash")
    data = checkout.run()
    assert isinstance(error_of(data), PipelineFailed)
    assert all(item.passed for item in data.validations)


def test_what_a_library_says_does_not_spoil_the_doctor_s_answer(checkout: Checkout) -> None:
    checkout.script(doctor="noisy")
    assert checkout.run(checkout.order("minimal")).passed


def test_a_source_that_is_not_recognised_is_not_built(checkout: Checkout) -> None:
    checkout.script(unrecognised=["minimal"])
    data = checkout.run()
    assert isinstance(error_of(data), PipelineFailed)
    built = [call["words"][2] for call in checkout.calls() if call["words"][0] == "vexfs.image"]
    assert built == ["production"]
    assert "no layout that is known" in data.timelines[0].stages[0].reason


def test_a_bad_shell_script_is_found(checkout: Checkout) -> None:
    folder = checkout.root / "scripts"
    folder.mkdir()
    (folder / "good").write_text("#!/bin/sh\n. /etc/only-in-the-guest.conf\necho fine\n")
    (folder / "notes").write_text("no script\n")
    assert checkout.run().passed
    (folder / "bad").write_text("#!/usr/bin/env bash\necho $1\n")
    (folder / "part.sh").write_text("# shellcheck shell=sh\necho $2\n")
    data = checkout.run()
    (check,) = [check for check in data.around if check.group == "scripts"]
    assert check.outcome == "failed"
    assert check.reason.startswith("The first of 2: scripts/bad:2:")
    assert "scripts/part.sh:2:" in check.output
    assert isinstance(error_of(data), PipelineFailed)
    assert all(item.passed for item in data.judged)


def test_without_shellcheck_nothing_is_said_to_have_passed(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.ci.preliminary.find_shellcheck", lambda: None)
    data = checkout.run()
    (check,) = [check for check in data.around if check.group == "scripts"]
    assert check.outcome == "skipped"
    assert "not checked" in check.reason
    assert data.passed


def test_a_tag_gives_the_images_their_version(checkout: Checkout) -> None:
    order = checkout.order(origin=Origin(build="8", tag="v2.0.1", version="2.0.1"), accel="tcg")
    data = checkout.run(order)
    assert {item.image for item in data.validations} == {
        "vexfs-minimal-2.0.1.qcow2",
        "vexfs-production-2.0.1.qcow2",
    }
    for call in checkout.calls():
        if call["words"][0] == "vexfs.image":
            assert call["words"][3:7] == ["--accel", "tcg", "--version", "2.0.1"]
        if call["words"][0] == "validate.image":
            assert call["words"][3:5] == ["--accel", "tcg"]


def test_sizes_are_compared_across_versions(checkout: Checkout) -> None:
    assert {size.last_bytes for size in checkout.run().sizes} == {None}
    tagged = checkout.order("minimal", origin=Origin(build="8", version="2.0"))
    sizes = {size.name: size for size in checkout.run(tagged).sizes}
    now = sizes["vexfs-minimal-2.0.qcow2"]
    assert (now.now_bytes, now.last_bytes) == (4096, 4096)
    gone = sizes["vexfs-production-1.0.0.qcow2"]
    assert (gone.now_bytes, gone.last_bytes) == (None, 4096)


def test_the_newest_builds_stay(checkout: Checkout) -> None:
    for number in ("1", "2", "3"):
        checkout.run(checkout.order("minimal", origin=Origin(build=number), keep=2))
    assert sorted(path.name for path in checkout.into.iterdir()) == ["2", "3"]
    assert checkout.listener.told == ["removed the old build 1"]


def test_the_same_number_again_replaces_its_folder(checkout: Checkout) -> None:
    checkout.run()
    (checkout.into / "7" / "stray").write_text("of the first run")
    checkout.run()
    assert [path.name for path in checkout.into.iterdir()] == ["7"]
    assert not (checkout.into / "7" / "stray").exists()


def test_only_settings_reach_the_tasks(checkout: Checkout) -> None:
    checkout.env |= {
        "CI_WEBHOOK_URL": SECRET,
        "GITHUB_TOKEN": "t0ken",
        "VEXFS_SOURCE": "../tree",
    }
    checkout.run()
    for call in checkout.calls():
        assert call["env"]["VEXFS_SOURCE"] == "../tree"
        assert not {"CI_WEBHOOK_URL", "GITHUB_TOKEN"} & set(call["env"])


def test_the_tasks_leave_time_for_the_report(checkout: Checkout) -> None:
    checkout.run(left_s=500.7)
    for call in checkout.calls():
        if call["words"][0] in ("vexfs.image", "validate.image"):
            assert call["words"][-2:] == ["--timeout", "440"]


def test_a_signed_build_verifies_with_its_key(checkout: Checkout) -> None:
    from tasks.attest import signing

    private, public = checkout.root / "key.pem", checkout.root / "key.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    checkout.run(checkout.order("minimal", sign_key=str(private)))
    verdict = verification.verify(checkout.into / "7", signing.load_public(public))
    assert verdict.findings == ()
    assert len(verdict.signed) == 3


def test_github_is_told(checkout: Checkout) -> None:
    summary, outputs = checkout.root / "summary", checkout.root / "outputs"
    checkout.env |= {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_OUTPUT": str(outputs),
    }
    checkout.script(validate="fail")
    checkout.run()
    assert "modprobe loads it" in summary.read_text()
    assert outputs.read_text() == f"directory={checkout.into / '7'}\npassed=false\n"


def test_a_github_that_can_not_be_told_changes_nothing(checkout: Checkout) -> None:
    checkout.env |= {"GITHUB_STEP_SUMMARY": "/nowhere/summary"}
    assert checkout.run().passed
    assert "GitHub was not told" in checkout.listener.told[0]


def test_a_webhook_that_is_not_there_changes_nothing(checkout: Checkout) -> None:
    checkout.listener = Listener()
    data = checkout.run(checkout.order("minimal", webhooks="gopher://s3cr3t"))
    assert data.passed
    assert checkout.listener.told == ["webhook 1 was not told: its URL is not one of http or https"]
    for path in (checkout.into / "7").rglob("*"):
        assert not path.is_file() or b"s3cr3t" not in path.read_bytes()


KILLED = """
import sys
from pathlib import Path
from tests.standins.checkout import Checkout
root = Path(sys.argv[1])
checkout = Checkout(root=root, env={})
import tasks.ci.handover as handover
def wait(*_):
    (root / "filling").touch()
    sys.stdin.read()
handover.Handover._put_records = wait
checkout.run()
"""


def test_a_run_that_was_killed_leaves_nothing_and_can_be_repeated(checkout: Checkout) -> None:
    repository = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(checkout.root)], cwd=repository, stdin=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (checkout.root / "filling").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = checkout.into.iterdir()
    assert left.name.startswith(".7.")
    assert checkout.run().passed
    assert [path.name for path in checkout.into.iterdir()] == ["7"]


def test_a_full_disk_leaves_the_last_build_alone(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.run()
    before = names_in(checkout.into / "7")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.ci.handover.put", full)
    with pytest.raises(OSError, match="No space left"):
        checkout.run()
    assert [path.name for path in checkout.into.iterdir()] == ["7"]
    assert names_in(checkout.into / "7") == before


def test_another_origin_gets_another_folder(checkout: Checkout) -> None:
    order = checkout.order("minimal")
    assert replace(order, origin=Origin()).target == checkout.into / "local"


def test_flags_of_every_run_reach_the_tasks(checkout: Checkout) -> None:
    params: dict[str, bool | int] = {"no_cache": True, "no_cleanup": False, "jobs": 2}
    flags = pipelines.passed_on(params)
    assert flags == ("--no-cache", "--jobs", "2")
    assert pipelines.passed_on({**params, "no_cache": False, "jobs": 0}) == ()
    checkout.run(checkout.order("minimal", passed_on=flags))
    for call in checkout.calls():
        assert ("--no-cache" in call["words"]) is (call["words"][0] != "doctor")
