"""The folder of a build's artifacts: there whole, or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest

from tasks.ci.folder import COMPLETE, being_made, builds, last_build, put, remove_old, sizes_in
from tasks.core.digest import Digests

# Digests of smaller files aren't remembered.
WORTH_REMEMBERING = b"x" * (5 << 20)


def complete(into: Path, name: str, age: int) -> Path:
    folder = into / name
    folder.mkdir(parents=True)
    (folder / COMPLETE).write_text("{}")
    os.utime(folder / COMPLETE, (1000 - age, 1000 - age))
    return folder


def test_it_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "into" / "7"
    with being_made(target) as folder:
        (folder / "a").write_text("new")
        assert not target.exists()
    assert (target / "a").read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_an_older_one_stays_if_the_block_fails(tmp_path: Path) -> None:
    target = complete(tmp_path, "7", 0)
    with contextlib.suppress(RuntimeError), being_made(target) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert sorted(path.name for path in target.iterdir()) == [COMPLETE]
    assert list(tmp_path.iterdir()) == [target]


def test_an_older_one_comes_back_if_the_new_one_can_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = complete(tmp_path, "7", 0)
    rename = Path.rename

    def refuse(self: Path, other: Path) -> Path:
        if other == target and (self / "a").exists():
            raise OSError(errno.EIO, "broken disk")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="broken disk"), being_made(target) as folder:
        (folder / "a").write_text("new")
    assert (target / COMPLETE).exists()


def test_what_a_killed_run_left_goes_and_what_a_live_one_makes_stays(tmp_path: Path) -> None:
    left = tmp_path / ".7.0badcafe"
    left.mkdir()
    (left / "a").write_text("half")
    target = tmp_path / "7"
    with being_made(target) as other:
        assert not left.exists()
        with being_made(target):
            assert other.exists()


def test_a_file_is_in_both_places(tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.write_bytes(WORTH_REMEMBERING)
    digests = Digests(tmp_path / "digests.json")
    put(source, tmp_path / "into" / "image", digests)
    assert source.samefile(tmp_path / "into" / "image")
    known = json.loads((tmp_path / "digests.json").read_text())
    assert len(known) == 2


def test_it_is_copied_where_it_can_not_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    source = tmp_path / "image"
    source.write_bytes(b"image")
    put(source, tmp_path / "into" / "image", Digests(tmp_path / "digests.json"))
    assert (tmp_path / "into" / "image").read_bytes() == b"image"
    assert not source.samefile(tmp_path / "into" / "image")


def test_the_newest_is_the_last(tmp_path: Path) -> None:
    assert last_build(tmp_path) is None
    old, new = complete(tmp_path, "9", 5), complete(tmp_path, "10", 1)
    complete(tmp_path, ".11.0badcafe", 0)
    (tmp_path / "half").mkdir()
    assert builds(tmp_path) == [new, old]
    assert last_build(tmp_path) == new


def test_only_old_builds_are_removed(tmp_path: Path) -> None:
    folders = [complete(tmp_path, str(number), 10 - number) for number in range(4)]
    (tmp_path / "something-else").mkdir()
    assert remove_old(tmp_path, 0) == []
    assert remove_old(tmp_path, 2) == [folders[1], folders[0]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "something-else"]


def test_sizes_are_known_without_their_version(tmp_path: Path) -> None:
    manifest = {
        "version": "1.0.0",
        "artifacts": {"vexfs-minimal-1.0.0.qcow2": {"size_bytes": 5, "sha256": ""}},
    }
    (tmp_path / "vexfs-minimal-1.0.0.manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "broken.manifest.json").write_text("{")
    (tmp_path / "strange.manifest.json").write_text('{"artifacts": []}')
    (found,) = sizes_in(tmp_path).items()
    assert found[0] == "vexfs-minimal.qcow2"
    assert (found[1].name, found[1].size_bytes) == ("vexfs-minimal-1.0.0.qcow2", 5)
