"""What an image's own data promise: packages, files, settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import BadInput
from tasks.validate import subject as subjects
from tasks.validate.catalogue import Spec
from tasks.validate.facts import before_boot
from tasks.validate.promises import promised
from tasks.validate.subject import Subject, find_all, manifest_of, name_of, require_distinct

MANIFEST: dict[str, Any] = {
    "name": "vexfs",
    "variant": "production",
    "version": "1.2.3",
    "kernel": "6.12",
    "module": {"file": "vexfs.ko", "sha256": "m" * 64, "vermagic": "6.12 SMP"},
    "tool": {"file": "vexctl", "sha256": "t" * 64, "version": "vexctl 1.2.3"},
    "packages": {"zstd": "1.5", "libc6:amd64": "2.41"},
    "artifacts": {"image.qcow2": {"sha256": "a" * 64, "size_bytes": 7}},
}


def subject(manifest: dict[str, Any] | None) -> Subject:
    return Subject(
        path=Path("image.qcow2"),
        sha256="a" * 64,
        size_bytes=7,
        disk=Path("image.qcow2"),
        format="qcow2",
        virtual_bytes=1 << 30,
        manifest=manifest,
    )


def by_name(manifest: dict[str, Any] | None) -> dict[str, Spec]:
    return {spec.name: spec for spec in promised(subject(manifest))}


def test_an_image_without_manifest_promises_nothing() -> None:
    assert promised(subject(None)) == []


def test_all_packages_in_their_versions() -> None:
    spec = by_name(MANIFEST)["packages equal the manifest"]
    assert spec.equals == "libc6:amd64 2.41\nzstd 1.5"


def test_the_files_of_the_variant_as_rendered_and_none_of_the_builds() -> None:
    specs = by_name(MANIFEST)
    config = specs["/etc/vexfs/vexfs.conf"]
    assert str(config.equals).startswith("644\n# VexFS 1.2.3 (production).")
    assert str(specs["/usr/local/bin/vexfs-mount-helper"].equals).startswith("755\n#!/bin/sh")
    assert "/etc/logrotate.d/vexfs" in specs
    assert "/etc/logrotate.d/vexfs" not in by_name({**MANIFEST, "variant": "minimal"})
    assert not [name for name in specs if name.startswith("/run/")]


def test_another_name_of_the_module_is_where_the_build_puts_it() -> None:
    specs = by_name({**MANIFEST, "module": {"file": "myfs.ko"}})
    assert specs["/etc/modules-load.d/vexfs.conf"].equals == "644\nmyfs\n"
    assert "\nMODULE=myfs\n" in str(specs["/etc/vexfs/vexfs.conf"].equals)


def test_settings_of_sshd_and_kernel_come_from_the_same_files() -> None:
    specs = by_name(MANIFEST)
    sshd, kernel = specs["sshd's effective settings"], specs["kernel settings"]
    assert {"PermitRootLogin no", "PasswordAuthentication no"} <= set(sshd.lines)
    assert "kernel.kptr_restrict = 2" in kernel.lines
    assert kernel.command.startswith("sysctl kernel.kptr_restrict kernel.dmesg_restrict ")
    assert (sshd.group, kernel.group) == ("hardening", "hardening")
    assert by_name({**MANIFEST, "variant": "minimal"}).get("kernel settings") is None


def test_a_variant_that_is_gone_leaves_the_manifest() -> None:
    assert set(by_name({**MANIFEST, "variant": "bygone"})) == {"packages equal the manifest"}


# Why a check does not apply


@pytest.mark.parametrize(
    ("manifest", "fields", "words"),
    [
        (None, {"manifest": True}, "has no manifest"),
        (None, {"variants": ("production",)}, "production only; this image is of none"),
        (MANIFEST, {"variants": ("minimal", "testing")}, "minimal and testing only; this image"),
        (MANIFEST, {"mounts": True}, "needs a block device"),
        (MANIFEST, {"needs": ("ss", "ip")}, "has no ss and no ip"),
        (MANIFEST, {"manifest": True, "variants": ("production",)}, ""),
    ],
)
def test_every_skip_has_its_reason(
    manifest: dict[str, Any] | None, fields: dict[str, Any], words: str
) -> None:
    spec = Spec(group="boot", name="n", expected="e", command="true", **fields)
    reason = before_boot(subject(manifest)).reason_to_skip(spec)
    assert words in reason
    assert bool(reason) == bool(words)


def test_the_values_are_the_manifests() -> None:
    values = before_boot(subject(MANIFEST)).values
    assert values["MODULE"] == "vexfs"
    assert values["TOOL_VERSION"] == "vexctl 1.2.3"
    assert "KERNEL" not in before_boot(subject({**MANIFEST, "kernel": ""})).values


# Which images


def test_all_images_of_the_output_each_in_one_form(tmp_path: Path) -> None:
    for name in ("a.qcow2", "a.qcow2.zst", "a.qcow2.sha256", "a.manifest.json", "b.qcow2.gz",
                 "c.raw", "notes.txt", "x.tar.gz"):  # fmt: skip
        (tmp_path / name).touch()
    (tmp_path / "validation").mkdir()
    names = [Path(found).name for found in find_all(tmp_path)]
    assert names == ["a.qcow2", "c.raw", "b.qcow2.gz"]


def test_no_image_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no image in"):
        find_all(tmp_path)


def test_names_come_from_paths_and_urls_and_must_differ() -> None:
    assert name_of("http://server/path/my%20disk.qcow2?token=x") == "my disk.qcow2"
    assert name_of("a/b.raw") == "b.raw"
    require_distinct(["a/b.raw", "a/c.raw"])
    with pytest.raises(BadInput, match=r"are called b\.raw"):
        require_distinct(["a/b.raw", "http://server/b.raw"])


@pytest.mark.parametrize("name", ["image.qcow2", "image.qcow2.zst", "image.raw.xz"])
def test_the_manifest_lies_beside_every_form(name: str, tmp_path: Path) -> None:
    assert manifest_of(tmp_path / name) is None
    (tmp_path / f"image{subjects.MANIFEST_ENDING}").write_text(json.dumps(MANIFEST))
    assert manifest_of(tmp_path / name) == MANIFEST
