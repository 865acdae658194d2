"""What is published with an image: names, checksums, the manifest, and in which order."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.core.deadline import Deadline
from tasks.core.digest import Digests
from tasks.core.events import Silent
from tasks.core.process import Runner
from tasks.core.stage import Site, Step
from tasks.core.store import Result
from tasks.vexfs import artifact, manifest

IMAGE, PACKED = b"the image", b"packed"
NAMES = artifact.names("minimal", "1.0.0", "zstd")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def result(
    folder: Path, files: dict[str, bytes], tools: dict[str, str] | None = None, **facts: Any
) -> Result:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Result(
        directory=folder,
        record={
            "key": folder.name * 8,
            "facts": facts,
            "inputs": {"parameter x": "1", "engine": "native"}
            | {f"tool {k}": v for k, v in (tools or {}).items()},
            "outputs": {
                name: {"sha256": sha256(content), "size_bytes": len(content)}
                for name, content in files.items()
            },
            "seconds": 1.5,
            "finished": "2026-01-01T00:00:00+00:00",
        },
    )


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Result]:
    return {
        "build-cloudimg": result(
            tmp_path / "base",
            {"disk.qcow2": b"base"},
            {"mmdebstrap": "mmdebstrap 1.3"},
            origin={"release": "trixie", "made_by": "mmdebstrap"},
        ),
        "compile-vexfs": result(
            tmp_path / "compile",
            {},
            module={"file": "vexfs.ko", "sha256": "m" * 64},
            tool={"file": "vexctl", "sha256": "t" * 64},
            source={"sha256": "s" * 64, "files": 12, "layout": "vm-build"},
        ),
        "seal": result(
            tmp_path / "seal",
            {"machine.qcow2": b"x"},
            kernel="6.12.1-amd64",
            vermagic="6.12.1-amd64 SMP",
            tool_version="vexctl 1.0.0",
            packages={"bash": "5.2"},
        ),
        "compress": result(
            tmp_path / "compress",
            {"image.qcow2": IMAGE, "image.qcow2.zst": PACKED},
            {"qemu-img": "qemu-img version 7.2"},
            virtual_size_bytes=10 << 30,
        ),
        "checksum": result(tmp_path / "checksum", {}),
    }


@pytest.fixture
def step(tmp_path: Path) -> Step:
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    return Step(
        name="vexfs.image",
        site=Site(root=tmp_path, state=tmp_path / "state", output=tmp_path / "output"),
        out=tmp_path / "out",
        work=tmp_path / "work",
        runner=Runner(tmp_path / "log"),
        reporter=Silent(),
        deadline=Deadline(60),
        digests=Digests(tmp_path / "digests.json"),
        params={},
        stands_on={},
        fingerprint="",
        is_goal=True,
    )


def compose(made: dict[str, Result]) -> str:
    return manifest.compose(
        variant="minimal",
        version="1.0.0",
        base="debian-13",
        made=made,
        artifacts={"image.qcow2": NAMES.image, "image.qcow2.zst": NAMES.compressed},
    )


def test_names() -> None:
    assert (
        manifest.Names(
            image="vexfs-minimal-1.0.0.qcow2",
            compressed="vexfs-minimal-1.0.0.qcow2.zst",
            manifest="vexfs-minimal-1.0.0.manifest.json",
        )
        == NAMES
    )
    assert artifact.names("production", "2", "gzip").compressed == "vexfs-production-2.qcow2.gz"


def test_the_manifest_says_what_went_in_and_what_came_out(made: dict[str, Result]) -> None:
    text = compose(made)
    assert text.endswith("}\n")
    found = json.loads(text)
    assert (found["format"], found["version"], found["variant"]) == (1, "1.0.0", "minimal")
    assert found["base"] == {
        "name": "debian-13",
        "release": "trixie",
        "made_by": "mmdebstrap",
        "sha256": sha256(b"base"),
    }
    assert found["engine"] == "native"
    assert found["kernel"] == "6.12.1-amd64"
    assert found["module"] == {
        "file": "vexfs.ko",
        "sha256": "m" * 64,
        "vermagic": "6.12.1-amd64 SMP",
    }
    assert found["tool"]["version"] == "vexctl 1.0.0"
    assert found["source"]["sha256"] == "s" * 64
    assert found["packages"] == {"bash": "5.2"}
    assert found["artifacts"] == {
        NAMES.image: {"sha256": sha256(IMAGE), "size_bytes": len(IMAGE)},
        NAMES.compressed: {"sha256": sha256(PACKED), "size_bytes": len(PACKED)},
    }
    assert found["virtual_size_bytes"] == 10 << 30
    assert found["tools"] == {"mmdebstrap": "mmdebstrap 1.3", "qemu-img": "qemu-img version 7.2"}
    assert set(found["stages"]) == set(made)
    assert found["stages"]["seal"]["seconds"] == 1.5


def test_the_manifest_names_no_place_of_this_machine(
    made: dict[str, Result], tmp_path: Path
) -> None:
    assert str(tmp_path) not in compose(made)


def checksums(step: Step, made: dict[str, Result]) -> Result:
    artifact.write_checksums(step, made["compress"], "zstd", NAMES)
    files = {path.name: path.read_bytes() for path in step.out.iterdir()}
    return result(step.work / "checksums", files)


def publish(step: Step, made: dict[str, Result]) -> None:
    artifact.publish_all(
        step, made["compress"], checksums(step, made), "zstd", NAMES, compose(made)
    )


def test_checksums_are_what_sha256sum_reads(step: Step, made: dict[str, Result]) -> None:
    publish(step, made)
    output = step.site.output
    names = [f"{NAMES.image}.sha256", f"{NAMES.compressed}.sha256"]
    assert {path.name for path in output.iterdir()} == {
        *names,
        NAMES.image,
        NAMES.compressed,
        NAMES.manifest,
    }
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", *names],
        cwd=output,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{NAMES.image}: OK\n{NAMES.compressed}: OK\n"


def test_all_that_was_published_is_on_record(step: Step, made: dict[str, Result]) -> None:
    publish(step, made)
    found = {entry.path: entry.sha256 for entry in step.published}
    assert found == {path: sha256(path.read_bytes()) for path in step.site.output.iterdir()}
    assert step.published[-1].path.name == NAMES.manifest


def test_no_manifest_ever_speaks_of_other_bytes(
    step: Step, made: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    step.site.output.mkdir()
    (step.site.output / NAMES.manifest).write_text("old")
    seen: list[set[str]] = []

    def broken(source: Path, target: Path) -> None:
        seen.append({path.name for path in step.site.output.iterdir()})
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.artifacts.publish.publish", broken)
    with pytest.raises(OSError, match="No space"):
        publish(step, made)
    assert seen == [set()]
