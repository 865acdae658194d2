"""in-toto Statements: provenance of an image, results of a validation."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts import checks
from tasks.attest import images, statements
from tasks.attest.build import DESK, Build
from tasks.core.errors import BadInput, VerificationFailed
from tests.unit import attested
from tests.unit.attested import BUILD, KERNEL, sha256

SUBJECTS = {"vexfs-minimal-1.0.0.qcow2": sha256(b"i"), "a.manifest.json": sha256(b"m")}
MATERIALS = {"a.cdx.json": sha256(b"c")}


def provenance(build: Build = BUILD, **changes: Any) -> dict[str, Any]:
    files = {"vexfs-minimal-1.0.0.qcow2": b"i", "vexfs-minimal-1.0.0.qcow2.zst": b"z"}
    manifest = {**attested.manifest_of("minimal", files), **changes}
    return statements.provenance(manifest, build, subjects=SUBJECTS, materials=MATERIALS)


def test_provenance_says_who_made_what_from_what() -> None:
    made = provenance()
    assert made["_type"] == "https://in-toto.io/Statement/v1"
    assert made["predicateType"] == "https://slsa.dev/provenance/v1"
    assert made["subject"] == [
        {"name": "a.manifest.json", "digest": {"sha256": sha256(b"m")}},
        {"name": "vexfs-minimal-1.0.0.qcow2", "digest": {"sha256": sha256(b"i")}},
    ]
    definition, details = made["predicate"]["buildDefinition"], made["predicate"]["runDetails"]
    assert definition["externalParameters"] == {
        "variant": "minimal",
        "version": "1.0.0",
        "base": "debian-13",
        "layout": "vm-build",
        "compression": "zst",
        "disk_size_bytes": 10 << 30,
    }
    assert {item["name"]: item["digest"] for item in definition["resolvedDependencies"][:2]} == {
        "base": {"sha256": sha256(b"base")},
        "source": {"vmbakeTree1": sha256(b"source")},
    }
    assert definition["resolvedDependencies"][2:] == [
        {"name": "kernel", "uri": f"pkg:deb/debian/linux-image-{KERNEL}@6.12.1-1"},
        {
            "name": "repository",
            "uri": f"git+https://ci.example/vmbake.git@{BUILD.commit}",
            "digest": {"gitCommit": BUILD.commit},
        },
    ]
    assert details["builder"]["id"] == BUILD.builder
    assert details["builder"]["version"] == {
        "vmbake": "0.1.0",
        "qemu-img": "qemu-img version 7.2.22",
    }
    assert details["metadata"] == {
        "invocationId": BUILD.invocation,
        "startedOn": "2026-01-01T00:01:02Z",
        "finishedOn": "2026-01-01T00:02:03Z",
    }
    assert {item["name"] for item in details["byproducts"]} == {"a.cdx.json", "vexfs.ko", "vexctl"}


def test_provenance_of_a_desk_claims_no_more_than_it_knows() -> None:
    made = provenance(Build(started="", finished=""))
    assert made["predicate"]["runDetails"]["builder"]["id"] == DESK
    assert "invocationId" not in made["predicate"]["runDetails"]["metadata"]
    names = [item["name"] for item in made["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert names == ["base", "source", "kernel"]


def test_provenance_of_an_ubuntu_names_its_kernel_as_ubuntu_s() -> None:
    packages = {"base-files": "13ubuntu10", f"linux-image-{KERNEL}": "6.8.0-1+x"}
    found = provenance(packages=packages)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert found[2]["uri"] == f"pkg:deb/ubuntu/linux-image-{KERNEL}@6.8.0-1%2Bx"


def result_of(validation: checks.Validation) -> dict[str, Any]:
    found = statements.test_result(validation, record="validation/a.json", sha256=sha256(b"r"))
    return dict(found["predicate"])


@pytest.mark.parametrize(
    ("outcomes", "result"),
    [
        (("passed", "passed"), "PASSED"),
        (("passed", "skipped"), "WARNED"),
        (("passed", "failed"), "FAILED"),
        (("passed", "error", "skipped"), "FAILED"),
        ((), "FAILED"),
    ],
)
def test_results(tmp_path: Path, outcomes: tuple[checks.Outcome, ...], result: str) -> None:
    attested.write_image(tmp_path, "minimal")
    validation = attested.validation(tmp_path, "minimal", *outcomes)
    found = result_of(validation)
    assert found["result"] == result
    assert len(found["passedTests"]) == validation.count("passed")
    assert len(found["warnedTests"]) == validation.count("skipped")
    assert bool(found["failedTests"]) == (result == "FAILED")


def test_an_image_that_could_not_be_validated_has_failed(tmp_path: Path) -> None:
    attested.write_image(tmp_path, "minimal")
    validation = replace(
        attested.validation(tmp_path, "minimal", "passed"), error="It never booted"
    )
    found = result_of(validation)
    assert (found["result"], found["failedTests"]) == ("FAILED", ["validation"])
    assert found["passedTests"] == ["boot/passed-0"]
    assert json.loads(base64.b64decode(found["configuration"][0]["content"])) == {
        "accel": "tcg",
        "firmware": "bios",
    }


def test_a_result_is_about_the_image_and_the_record(tmp_path: Path) -> None:
    attested.write_image(tmp_path, "minimal")
    validation = attested.validation(tmp_path, "minimal", "passed")
    made = statements.test_result(validation, record="validation/a.json", sha256=sha256(b"r"))
    assert made["subject"] == [
        {"name": "validation/a.json", "digest": {"sha256": sha256(b"r")}},
        {"name": validation.image, "digest": {"sha256": validation.sha256}},
    ]
    assert made["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"


def test_of_an_image_that_could_not_be_read_only_the_record_is_vouched_for(tmp_path: Path) -> None:
    attested.write_image(tmp_path, "minimal")
    validation = replace(attested.validation(tmp_path, "minimal"), sha256="", error="It is empty")
    made = statements.test_result(validation, record="validation/a.json", sha256=sha256(b"r"))
    assert [subject["name"] for subject in made["subject"]] == ["validation/a.json"]
    assert made["predicate"]["result"] == "FAILED"


def test_differences_are_told_by_their_place() -> None:
    found = {"a": [1, {"b": 2}], "x": 1, "n": True, "list": [1]}
    expected = {"a": [1, {"b": 3}], "y": None, "n": 1, "list": [1, 2]}
    assert list(statements.differences(found, expected)) == [
        "a[1].b is 2, not 3",
        "y is missing",
        "n is true, not 1",
        "list is [1], not [1, 2]",
        "x was added",
    ]
    assert not list(statements.differences(found, json.loads(json.dumps(found))))
    assert statements.brief("x" * 300).endswith("…")


def test_an_image_that_is_not_what_its_manifest_says_is_not_vouched_for(tmp_path: Path) -> None:
    inputs = attested.write_inputs(tmp_path / "inputs")
    manifest = attested.write_image(tmp_path, "minimal")
    (tmp_path / "vexfs-minimal-1.0.0.qcow2.zst").write_text("other")
    with pytest.raises(VerificationFailed, match=r"qcow2\.zst is not the file that"):
        images.attest_image(manifest, BUILD, **inputs)
    (tmp_path / "vexfs-minimal-1.0.0.qcow2.zst").unlink()
    with pytest.raises(BadInput, match="which is not beside it"):
        images.attest_image(manifest, BUILD, **inputs)
    assert not [*tmp_path.glob("*.cdx.json"), *tmp_path.glob("*.provenance.*")]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"artifacts": {}}', '{"artifacts": 5}'])
def test_what_is_no_manifest(tmp_path: Path, content: str) -> None:
    inputs = attested.write_inputs(tmp_path / "inputs")
    manifest = tmp_path / "a.manifest.json"
    manifest.write_text(content)
    with pytest.raises(BadInput, match="is no manifest of an image"):
        images.attest_image(manifest, BUILD, **inputs)
    with pytest.raises(BadInput, match="is not called NAME"):
        images.attest_image(manifest.rename(tmp_path / "a.json"), BUILD, **inputs)


def test_a_manifest_that_speaks_of_files_elsewhere(tmp_path: Path) -> None:
    inputs = attested.write_inputs(tmp_path / "inputs")
    (tmp_path / "secret").write_text("x")
    (tmp_path / "dir").mkdir()
    manifest = attested.write_image(tmp_path / "dir", "minimal")
    document = json.loads(manifest.read_text())
    document["artifacts"]["../secret"] = {"sha256": sha256(b"x")}
    manifest.write_text(json.dumps(document))
    with pytest.raises(BadInput, match=r"\.\./secret, which is not beside it"):
        images.attest_image(manifest, BUILD, **inputs)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"checks": [{}], "boot": [], "console": []}'])
def test_what_is_no_record_of_a_validation(tmp_path: Path, content: str) -> None:
    (tmp_path / "validation").mkdir()
    record = tmp_path / "validation" / "a.json"
    record.write_text(content)
    with pytest.raises(BadInput, match="is no record of a validation"):
        images.attest_validation(record)
