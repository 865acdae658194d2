"""The main job, whole: bake the minimal image, and validate it; tamper with it, and be told."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts import checks
from tasks.artifacts.checks import Validation
from tasks.core.process import Runner
from tasks.qemu import disk
from tests.standins import allocation

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "vexfs"
# With some room for the distribution's updates: it has 153 and 143 million today.
MOST_IMAGE_BYTES = 180_000_000
MOST_COMPRESSED_BYTES = 170_000_000


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "invoke", *words],
        cwd=ROOT,
        env={**os.environ, "VEXFS_VARIANT": "minimal"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def inv(*words: str, status: int = 0) -> tuple[str, str]:
    process = start(*words)
    out, err = process.communicate()
    assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
    return out, err


@dataclass(frozen=True)
class Baked:
    """What `inv vexfs.image` left, and what it said."""

    image: Path
    compressed: Path
    manifest: dict[str, Any]
    said: str


@pytest.fixture(scope="session")
def baked() -> Baked:
    out, err = inv("vexfs.image")
    paths = {name.rpartition("1.0.0")[2]: ROOT / name for name in out.split()}
    return Baked(
        image=paths[".qcow2"],
        compressed=paths[".qcow2.zst"],
        manifest=json.loads(paths[".manifest.json"].read_text()),
        said=err,
    )


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_the_files_are_what_the_manifest_says(baked: Baked) -> None:
    for path in (baked.image, baked.compressed):
        said = baked.manifest["artifacts"][path.name]
        assert (sha256(path), path.stat().st_size) == (said["sha256"], said["size_bytes"])
        checked = subprocess.run(
            ["sha256sum", "-c", f"{path.name}.sha256"], cwd=path.parent, check=False
        )
        assert checked.returncode == 0


def test_the_image_is_small(baked: Baked) -> None:
    assert baked.image.stat().st_size <= MOST_IMAGE_BYTES
    assert baked.compressed.stat().st_size <= MOST_COMPRESSED_BYTES


def test_its_clusters_are_compressed_and_neither_zero_nor_deleted(
    baked: Baked, tmp_path: Path
) -> None:
    runner = Runner(tmp_path / "log")
    told = json.loads(runner.output(["qemu-img", "info", "--output=json", baked.image]))
    assert told["format-specific"]["data"]["compression-type"] == "zstd"
    count = json.loads(runner.output(["qemu-img", "check", "--output=json", baked.image]))
    # What was compressed before, such as the initrd and the modules, stays as it is.
    assert count["compressed-clusters"] > 0.8 * count["allocated-clusters"]
    kept = allocation.look(baked.image, tmp_path)
    assert len(kept.stored) == count["allocated-clusters"]
    assert kept.zero == frozenset()
    assert len(kept.deleted) < len(kept.stored) / 100


def test_the_same_disk_gives_the_same_bytes(baked: Baked, tmp_path: Path) -> None:
    out, _ = inv("vexfs.seal")
    sealed = next(ROOT / line for line in out.split() if line.endswith(".qcow2"))
    again = tmp_path / baked.image.name
    disk.compact(Runner(tmp_path / "log"), sealed, "qcow2", again, threads=1)
    assert sha256(again) == sha256(baked.image)


def test_the_compressed_form_is_the_image(baked: Baked, tmp_path: Path) -> None:
    unpacked = tmp_path / "image.qcow2"
    subprocess.run(["zstd", "-q", "-d", baked.compressed, "-o", unpacked], check=True)
    assert sha256(unpacked) == sha256(baked.image)


def test_the_image_stands_alone_and_is_sound(baked: Baked, tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log")
    disk.check(runner, baked.image)
    found = disk.require_standalone(runner, baked.image, "qcow2")
    assert found.snapshots == ()
    assert found.virtual_bytes == baked.manifest["virtual_size_bytes"]


def validate(image: Path, *words: str, status: int = 0) -> Validation:
    """What `inv validate.image` finds out about an image."""
    out, err = inv("validate.image", str(image), *words, status=status)
    (record,) = out.splitlines()
    assert image.name in err
    return checks.read(ROOT / record)


def names_of(validation: Validation, outcome: str) -> set[str]:
    return {f"{c.group}: {c.name}" for c in validation.checks if c.outcome == outcome}


@pytest.fixture(scope="session")
def by_bios(baked: Baked) -> Validation:
    """Every check, with two clones and a reboot."""
    return validate(baked.image, "--firmware", "bios")


def test_it_passes_every_check_by_bios(baked: Baked, by_bios: Validation) -> None:
    assert by_bios.error == ""
    assert by_bios.passed
    assert {check.group for check in by_bios.checks if check.outcome == "passed"} == {
        *("boot", "module", "filesystem", "vexctl", "configuration", "system", "seal"),
    }
    skipped = [check for check in by_bios.checks if check.outcome == "skipped"]
    assert {check.group for check in skipped} == {"hardening"}
    assert all("production only" in check.reason for check in skipped)
    assert by_bios.sha256 == sha256(baked.image)
    assert [mark.name for mark in by_bios.boot] == [
        "kernel", "userspace", "SSH", "cloud-init done",
    ]  # fmt: skip
    assert (ROOT / "output" / "validation" / f"{baked.image.name}.{by_bios.accel}.bios.console.log"
            ).stat().st_size > 0  # fmt: skip


def test_it_passes_by_uefi(baked: Baked) -> None:
    by_uefi = validate(baked.image, "--firmware", "uefi", "--quick")
    assert by_uefi.passed
    assert by_uefi.firmware == "uefi"
    skipped = {check.reason for check in by_uefi.checks if check.outcome == "skipped"}
    assert {reason for reason in skipped if "production only" not in reason} == {
        "Left out by --quick."
    }


def test_a_tampered_image_fails_by_exactly_what_was_done_to_it(
    baked: Baked, tmp_path: Path
) -> None:
    image = tampered(baked, tmp_path)
    found = validate(image, "--quick", status=14)
    assert found.error == ""
    assert names_of(found, "error") == set()
    assert names_of(found, "failed") == {
        "seal: bytes equal the manifest",
        "seal: no key of root",
        "seal: no trace of the build",
        "configuration: service is enabled",
        "configuration: service is active",
        "filesystem: is mounted where configured",
        "configuration: /etc/vexfs/vexfs.conf",
        "configuration: log file is written",  # as the tampered settings say
        "vexctl: file equals the manifest",
        "vexctl: version equals the manifest",
    }


def tampered(baked: Baked, folder: Path) -> Path:
    """A copy that was changed offline; its manifest still says what the image was."""
    runner = Runner(folder / "log")
    raw, image = folder / "disk.raw", folder / baked.image.name
    disk.convert(runner, baked.image, "qcow2", raw, "raw")
    table = json.loads(runner.output(["sfdisk", "--json", raw]))["partitiontable"]
    root = max(table["partitions"], key=lambda part: int(part["size"]))
    where = f"{raw}?offset={root['start'] * 512}"
    (folder / "key").write_text("ssh-ed25519 AAAA vmbake user key\n")
    (folder / "vexctl").write_text("#!/bin/sh\necho vexctl 0.0.1\n")
    config = runner.output(["debugfs", "-R", "cat /etc/vexfs/vexfs.conf", where])
    (folder / "conf").write_text(config.replace("LOG_LEVEL=info", "LOG_LEVEL=error"))
    requests = (
        "rm /etc/systemd/system/multi-user.target.wants/vexfs.service",
        "mkdir /root/.ssh",
        f"write {folder}/key /root/.ssh/authorized_keys",
        "rm /usr/local/bin/vexctl",
        f"write {folder}/vexctl /usr/local/bin/vexctl",
        "set_inode_field /usr/local/bin/vexctl mode 0100755",
        "rm /etc/vexfs/vexfs.conf",
        f"write {folder}/conf /etc/vexfs/vexfs.conf",
    )
    (folder / "requests").write_text("\n".join(requests) + "\n")
    runner.run(["debugfs", "-w", "-f", folder / "requests", where])
    disk.convert(runner, raw, "raw", image, "qcow2")
    raw.unlink()
    name = image.name.replace(".qcow2", ".manifest.json")
    (folder / name).write_text(json.dumps(baked.manifest))
    return image


def test_a_second_run_has_nothing_to_do(baked: Baked) -> None:
    before = baked.image.stat()
    _, err = inv("vexfs.image")
    assert "up to date" in err
    assert baked.image.stat() == before
    out, _ = inv("explain", "vexfs.image")
    assert "stale" not in out


def edited_sample(tmp_path: Path, old: str, new: str) -> Path:
    tree = tmp_path / "source"
    subprocess.run(["cp", "-r", SAMPLE, tree], check=True)
    source = tree / "vexfs.c"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new, 1))
    return tree


def test_a_compiler_error_is_shown(baked: Baked, tmp_path: Path) -> None:
    tree = edited_sample(tmp_path, "MODULE_LICENSE", "int broken = no_such_name;\nMODULE_LICENSE")
    before = sha256(baked.image)
    _, err = inv("vexfs.image", "--source", str(tree), status=11)
    assert "no_such_name" in err
    assert "error: The source did not compile." in err
    assert sha256(baked.image) == before
