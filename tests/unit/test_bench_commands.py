"""The smaller parts of the bench: their command lines, and what they leave out."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from bench import commands, packing
from bench.measure import Comparison, Omission
from tasks.artifacts.compress import compress
from tasks.core.process import Runner
from tasks.qemu import disk


class Noting:
    """Runs nothing, and notes the command lines.

    Args:
        said: what each of them prints.
    """

    def __init__(self, said: str = "") -> None:
        self.said = said
        self.argvs: list[list[str]] = []

    def run(self, argv: Sequence[str | Path], **how: Any) -> None:
        self.argvs.append([str(word) for word in argv])

    def output(self, argv: Sequence[str | Path], **how: Any) -> str:
        self.run(argv, **how)
        return self.said


def manifest(folder: Path) -> Path:
    path = folder / "vexfs.manifest.json"
    made = {"variant": "minimal", "version": "1.0.0", "base": {"name": "debian-13"}}
    path.write_text(json.dumps(made))
    return path


def test_an_image_that_would_be_baked_is_not_timed(tmp_path: Path) -> None:
    states = [{"stage": "vexfs.seal", "state": "stale"}, {"stage": "vexfs.boot", "state": "fresh"}]
    runner = Noting(json.dumps(states))
    found = commands.up_to_date(manifest(tmp_path), cast("Runner", runner), 2)
    assert isinstance(found, Omission)
    assert found.why == "stale: vexfs.seal. Bake the image first"
    assert len(runner.argvs) == 1


def test_an_image_that_is_there_is_asked_for_with_its_own_options(tmp_path: Path) -> None:
    runner = Noting("[]")
    found = commands.up_to_date(manifest(tmp_path), cast("Runner", runner), 2)
    assert isinstance(found, Comparison)
    assert (found.goal_s, len(found.our_seconds)) == (1, 2)
    words = ["--variant", "minimal", "--version", "1.0.0", "--base", "debian-13"]
    explained, asked, nothing, *_ = runner.argvs
    assert explained == commands.inv("explain", "--json", "vexfs.image", *words)
    assert asked == commands.inv("vexfs.image", *words)
    assert nothing[1:] == ["-c", "pass"]


def test_listing_is_compared_with_python_and_with_invoke(tmp_path: Path) -> None:
    runner = Noting()
    python, invoke = commands.starting(tmp_path, cast("Runner", runner), 1)
    assert [found.theirs for found in (python, invoke)] == ["python -c pass", "invoke, no tasks"]
    assert runner.argvs[0] == commands.inv("--list")
    assert runner.argvs[-1][-4:] == commands.inv("--list")
    assert (tmp_path / "empty" / "tasks.py").read_text() == ""


def test_a_copy_of_the_checkout_has_what_git_lists_and_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (root / "tasks").mkdir(parents=True)
    (root / "tasks" / "a.py").write_text("a")
    (root / "store").write_text("big")
    monkeypatch.setattr(commands, "ROOT", root)
    runner = Noting("tasks/a.py\0removed.py\0")
    commands.copy_checkout(tmp_path / "copy", cast("Runner", runner))
    copied = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert copied == [tmp_path / "copy" / "tasks" / "a.py"]
    assert "--exclude-standard" in runner.argvs[0]


FILES = {name: Path(f"/seed/{name}") for name in ("user-data", "meta-data", "network-config")}


@pytest.mark.parametrize(
    ("installed", "first"),
    [
        ({"cloud-localds", "genisoimage", "xorriso"}, ["cloud-localds", "-N"]),
        ({"genisoimage", "xorriso"}, ["genisoimage", "-quiet"]),
        ({"xorriso"}, ["xorriso", "-as", "genisoimage", "-quiet"]),
        (set(), None),
    ],
)
def test_a_seed_is_written_with_the_most_usual_tool(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], first: list[str] | None
) -> None:
    monkeypatch.setattr(packing, "find_tool", lambda name: name if name in installed else None)
    command = packing.seed_command(Path("/other.iso"), FILES)
    if first is None or command is None:
        assert first is command is None
        return
    assert command[: len(first)] == first
    assert {"/other.iso", *map(str, FILES.values())} <= set(command)


def test_a_large_file_is_compressed_by_both_without_a_run_that_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usr").mkdir()
    for number in range(4):
        (tmp_path / "usr" / f"{number}").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "usr" / "link").symlink_to("0")
    monkeypatch.setattr(packing, "TREE", tmp_path / "usr")
    monkeypatch.setattr(packing, "BULK_BYTES", 20_000)
    packed: list[int] = []

    def noted(source: Path, target: Path, **how: Any) -> object:
        with tarfile.open(source) as archive:
            packed.append(len(archive.getnames()))
        return compress(source, target, **how)

    class Gzip(Noting):
        def run(self, argv: Sequence[str | Path], **how: Any) -> None:
            super().run(argv, **how)
            Path(argv[-1]).write_bytes(b"x" * 100_000)

    monkeypatch.setattr(packing, "compress", noted)
    runner = Gzip()
    found = packing.packing_much(tmp_path, cast("Runner", runner), 2)
    # No more of it than it takes, and each way as often as it counts.
    assert packed == [2, 2]
    assert [argv[:2] for argv in runner.argvs] == [["sh", "-c"]] * 2
    assert runner.argvs[0][2] == packing.CLASSIC
    assert found.note.endswith("GB of this machine's /usr")
    assert (found.goal, found.larger) == (1 / 10, False)
    assert not (tmp_path / "system.tar").exists()


def test_an_image_is_unpacked_before_it_is_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Path, str, int, bool]] = []

    def both(what: str, plain: Path, work: Path, runner: Runner, rounds: int) -> None:
        calls.append((plain, what, rounds, plain.exists()))

    def convert(runner: Runner, source: Path, kind: str, target: Path, to: str) -> None:
        assert (source, kind, to) == (Path("/image.qcow2"), "qcow2", "qcow2")
        target.touch()

    monkeypatch.setattr(packing, "both_ways", both)
    monkeypatch.setattr(disk, "convert", convert)
    packing.packing(Path("/image.qcow2"), tmp_path, cast("Runner", Noting()), 3)
    assert calls == [(tmp_path / "plain.qcow2", "compress + checksum image.qcow2", 3, True)]
