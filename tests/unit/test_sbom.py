"""Bills of materials: complete, valid by the formats' own schemas, the same for the same image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.attest import sbom
from tasks.attest.parts import crates_of, license_of
from tasks.core.errors import BadInput
from tests.unit import attested
from tests.unit.attested import KERNEL, sha256

ROOT = Path(__file__).parents[2]
MADE = datetime(2026, 1, 1, 12, 0, 0, 987, tzinfo=UTC)


def write(folder: Path, manifest: dict[str, Any] | None = None) -> tuple[Path, Path]:
    """Both documents of the small image."""
    inputs = attested.write_inputs(folder / "inputs")
    cyclonedx, spdx = folder / "a.cdx.json", folder / "a.spdx.json"
    sbom.write(
        manifest or attested.manifest_of("minimal", {"a.qcow2": b"image"}),
        name="vexfs-minimal",
        sha256=sha256(b"image"),
        made=MADE,
        cyclonedx=cyclonedx,
        spdx=spdx,
        **inputs,
    )
    return cyclonedx, spdx


def valid(cyclonedx: Path, spdx: Path) -> None:
    """Both documents are valid: by the schema, and by the library."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(cyclonedx.read_text()) is None
    assert validate_full_spdx_document(parse_file(str(spdx))) == []


def test_both_are_valid(tmp_path: Path) -> None:
    valid(*write(tmp_path))


PURLS = {
    "pkg:deb/debian/base-files@13.8%2Bdeb13u8?arch=amd64&distro=debian-13",
    "pkg:deb/debian/base-files@13.8%2Bdeb13u8?arch=source&distro=debian-13",
    "pkg:deb/debian/dpkg@1.22.22?arch=amd64&distro=debian-13",
    "pkg:deb/debian/dpkg@1.22.22?arch=source&distro=debian-13",
    "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13",
    "pkg:deb/debian/glibc@2.41-12?arch=source&distro=debian-13",
    f"pkg:deb/debian/linux-image-{KERNEL}@6.12.1-1?arch=amd64&distro=debian-13",
    "pkg:deb/debian/linux-signed-amd64@6.12.1%2B1?arch=source&distro=debian-13",
    f"pkg:generic/vexfs.ko@1.0.0?checksum=sha256:{sha256(b'module')}",
    f"pkg:generic/vexctl@1.0.0?checksum=sha256:{sha256(b'tool')}",
    "pkg:generic/vexctl@1.0.0",
    "pkg:cargo/libc@0.2.170",
}


def test_cyclonedx_has_packages_sources_module_tool_and_crates(tmp_path: Path) -> None:
    document = json.loads(write(tmp_path)[0].read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert {component["purl"] for component in document["components"]} == PURLS
    image = document["metadata"]["component"]
    assert (image["name"], image["version"]) == ("vexfs-minimal", "1.0.0")
    assert image["hashes"] == [{"alg": "SHA-256", "content": sha256(b"image")}]
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert {"module-vexfs.ko@1.0.0", "tool-vexctl@1.0.0"} < set(needs[image["bom-ref"]])
    assert [ref.partition("@")[0] for ref in needs["module-vexfs.ko@1.0.0"]] == [
        f"pkg:deb/debian/linux-image-{KERNEL}"
    ]
    assert needs["tool-vexctl@1.0.0"] == ["crate-vexctl@1.0.0"]
    assert needs["crate-vexctl@1.0.0"] == ["crate-libc@0.2.170"]
    # dpkg needs a virtual package, which base-files provides.
    (dpkg,) = (ref for ref in needs if ref.startswith("pkg:deb/debian/dpkg@") and "amd64" in ref)
    assert any(ref.startswith("pkg:deb/debian/base-files@") for ref in needs[dpkg])


def test_spdx_has_the_same(tmp_path: Path) -> None:
    document = json.loads(write(tmp_path)[1].read_text())
    assert document["spdxVersion"] == "SPDX-2.3"
    image, *packages = document["packages"]
    assert image["checksums"] == [{"algorithm": "SHA256", "checksumValue": sha256(b"image")}]
    assert {package["externalRefs"][0]["referenceLocator"] for package in packages} == PURLS
    relations = {
        (item["spdxElementId"], item["relationshipType"], item["relatedSpdxElement"])
        for item in document["relationships"]
    }
    module, tool = "SPDXRef-vmbake-module-vexfs.ko-1.0.0", "SPDXRef-vmbake-tool-vexctl-1.0.0"
    assert {
        ("SPDXRef-DOCUMENT", "DESCRIBES", image["SPDXID"]),
        (image["SPDXID"], "CONTAINS", module),
        (image["SPDXID"], "CONTAINS", tool),
        (module, "DEPENDS_ON", f"SPDXRef-linux-image-{KERNEL}-amd64"),
        (tool, "DEPENDS_ON", "SPDXRef-vmbake-crate-vexctl-1.0.0"),
        ("SPDXRef-vmbake-crate-vexctl-1.0.0", "DEPENDS_ON", "SPDXRef-vmbake-crate-libc-0.2.170"),
        ("SPDXRef-glibc-2.41-12-srcpkg", "GENERATES", "SPDXRef-libc6-amd64"),
    } <= relations


@pytest.mark.parametrize(
    "named", ["GPL-2.0-only", "MIT OR Apache-2.0", "MIT/Apache-2.0", "a (", ""]
)
def test_both_have_the_licenses_that_the_parts_declare(tmp_path: Path, named: str) -> None:
    manifest = attested.manifest_of("minimal", {"a.qcow2": b"image"})
    manifest["tool"]["licenses"] = {"vexctl": named}
    cyclonedx, spdx = write(tmp_path, manifest)
    valid(cyclonedx, spdx)
    is_expression = named in ("GPL-2.0-only", "MIT OR Apache-2.0")
    said = {"expression": named} if is_expression else {"license": {"name": named}}
    found = {
        component["bom-ref"]: [without(one, "acknowledgement") for one in component["licenses"]]
        for component in json.loads(cyclonedx.read_text())["components"]
        if "licenses" in component
    }
    own = ("tool-vexctl@1.0.0", "crate-vexctl@1.0.0")
    # `GPL` of a module is version 2: neither format's `GPL`, and so it is a name.
    assert found == {"module-vexfs.ko@1.0.0": [{"license": {"name": "GPL"}}]} | (
        {key: [said] for key in own} if named else {}
    )
    document = json.loads(spdx.read_text())
    texts = {
        info["licenseId"]: info["extractedText"] for info in document["hasExtractedLicensingInfos"]
    }
    declared = {
        package["name"]: texts.get(package["licenseDeclared"], package["licenseDeclared"])
        for package in document["packages"]
        if "vmbake-" in package["SPDXID"]
    }
    other = f'license = "{named}"' if named else "NOASSERTION"
    assert declared == {
        "vexfs.ko": 'MODULE_LICENSE("GPL")',
        "vexctl": named if is_expression else other,
        "libc": "NOASSERTION",
    }


def test_an_image_whose_manifest_is_older_has_no_licenses(tmp_path: Path) -> None:
    manifest = attested.manifest_of("minimal", {"a.qcow2": b"image"})
    del manifest["module"]["license"], manifest["tool"]["licenses"]
    cyclonedx, spdx = write(tmp_path, manifest)
    valid(cyclonedx, spdx)
    assert "GPL" not in cyclonedx.read_text() + spdx.read_text()


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        ({"vexctl": "MIT", "other": "GPL-2.0-only"}, "MIT"),
        ({"one": "MIT", "two": "MIT"}, "MIT"),
        ({"one": "MIT", "two": "GPL-2.0-only"}, ""),
        ({}, ""),
    ],
)
def test_the_tool_s_license_is_its_crate_s(licenses: dict[str, str], expected: str) -> None:
    assert license_of("vexctl", licenses) == expected


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    """An entry without a key, however deep it is."""
    return {
        name: without(value, key) if isinstance(value, dict) else value
        for name, value in entry.items()
        if name != key
    }


def test_the_same_image_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    here = [path.read_bytes() for path in write(tmp_path)]
    script = (
        "import sys; from pathlib import Path; from tests.unit import test_sbom\n"
        "test_sbom.write(Path(sys.argv[1]))"
    )
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"},
            check=True,
        )
        assert [(folder / name).read_bytes() for name in ("a.cdx.json", "a.spdx.json")] == here


def test_an_ubuntu_is_not_taken_for_a_debian(tmp_path: Path) -> None:
    manifest = attested.manifest_of("minimal", {"a.qcow2": b"image"})
    manifest["packages"]["base-files"] = "13ubuntu10.1"
    manifest["base"]["name"] = "ubuntu-24.04"
    inputs = attested.write_inputs(tmp_path)
    status = inputs["dpkg_status"]
    status.write_text(status.read_text().replace("13.8+deb13u8", "13ubuntu10.1"))
    content = tmp_path / "b.cdx.json"
    sbom.write(
        manifest,
        name="vexfs-minimal",
        sha256=sha256(b"image"),
        made=MADE,
        cyclonedx=content,
        spdx=tmp_path / "b.spdx.json",
        **inputs,
    )
    purls = {item["purl"] for item in json.loads(content.read_text())["components"]}
    assert "pkg:deb/ubuntu/dpkg@1.22.22?arch=amd64&distro=ubuntu-24.04" in purls
    assert not [purl for purl in purls if purl.startswith("pkg:deb/debian/")]


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ({"dpkg": "1.22.23"}, "has dpkg 1.22.2"),
        ({"more": "1"}, "only the manifest has more 1"),
    ],
)
def test_a_status_file_of_another_image_is_refused(
    tmp_path: Path, listed: dict[str, str], words: str
) -> None:
    manifest = attested.manifest_of("minimal", {"a.qcow2": b"image"})
    manifest["packages"] |= listed
    with pytest.raises(BadInput, match="is not of this image") as caught:
        write(tmp_path, manifest)
    assert words in str(caught.value)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"nonsense\n"])
def test_what_is_no_status_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dpkg-status"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="no status file of dpkg"):
        sbom.installed(path, "debian-13")


CRATES = """\
[[package]]
name = "syn"
version = "1.0.0"
source = "registry+x"

[[package]]
name = "syn"
version = "2.0.0"
source = "registry+x"

[[package]]
name = "tool"
version = "0.1.0"
dependencies = ["syn 1.0.0", "syn 2.0.0 (registry+x)"]
"""


def test_crates_of_one_name_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "Cargo.lock"
    path.write_text(CRATES)
    crates = crates_of(path, first=2)
    assert [(crate.name, crate.version, crate.registry, crate.needs) for crate in crates] == [
        ("syn", "1.0.0", True, ()),
        ("syn", "2.0.0", True, ()),
        ("tool", "0.1.0", False, (2, 3)),
    ]


@pytest.mark.parametrize(
    "content", ["nonsense", "package = 3", "[[package]]\n", 'package = ["x"]', "\x00"]
)
def test_what_is_no_cargo_lock(tmp_path: Path, content: str) -> None:
    path = tmp_path / "Cargo.lock"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"is no Cargo\.lock"):
        crates_of(path, first=2)
