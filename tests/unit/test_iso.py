"""A tree on an ISO: every file with its content, mode and name, links as links."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest
from pycdlib import pycdlib

from tasks.core.errors import BadInput
from tasks.guest.iso import write_tree
from tasks.vexfs.source import files_of

Entries = dict[str, tuple[int, bytes | str]]
ODD_NAMES = (
    "with space.c",
    " leading",
    "trailing. ",
    "naïve-日本語.rs",
    "semi;1",
    "quote'\"`$(x)",
    "back\\slash",
    "new\nline",
    ".hidden",
    "-dash",
    "UPPER",
    "upper",
    "l" * 255,
    "日" * 85,
)


def read(path: Path) -> Entries:
    """Path to mode and content, or target for links, as Rock Ridge has them."""
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    found: Entries = {}
    folders = [("", "/")]
    while folders:
        prefix, iso_path = folders.pop()
        for child in iso.list_children(iso_path=iso_path):
            if child.is_dot() or child.is_dotdot():
                continue
            name = prefix + child.rock_ridge.name().decode()
            inner = f"{iso_path.rstrip('/')}/{child.file_identifier().decode()}"
            mode = child.rock_ridge.get_file_mode()
            if child.is_dir():
                assert mode == 0o040755
                folders.append((f"{name}/", inner))
            elif child.rock_ridge.is_symlink():
                found[name] = (0, child.rock_ridge.symlink_path().decode())
            else:
                content = BytesIO()
                iso.get_file_from_iso_fp(content, iso_path=inner)
                found[name] = (mode, content.getvalue())
    iso.close()
    return found


def written(root: Path, target: Path) -> Entries:
    write_tree(target, root, files_of(root), "VEXFS_SOURCE")
    return read(target)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def test_modes_and_contents(root: Path, tmp_path: Path) -> None:
    (root / "empty").touch()
    (root / "also-empty").touch()
    (root / "script.sh").write_text("#!/bin/sh\n")
    (root / "script.sh").chmod(0o700)
    (root / "big").write_bytes(os.urandom(100_001))
    (root / "big").chmod(0o600)
    assert written(root, tmp_path / "iso") == {
        "empty": (0o100644, b""),
        "also-empty": (0o100644, b""),
        "script.sh": (0o100755, b"#!/bin/sh\n"),
        "big": (0o100644, (root / "big").read_bytes()),
    }
    assert (tmp_path / "iso").stat().st_mode & 0o777 == 0o600


def test_links_are_kept(root: Path, tmp_path: Path) -> None:
    (root / "folder").mkdir()
    (root / "folder" / "file").write_text("x")
    targets = {
        "to-file": "folder/file",
        "folder/up": "../to-file",
        "to-folder": "folder",
        "absolute": "/usr/include",
        "dangling": "no/where",
        "long": "/".join(["component" * 5] * 20),
    }
    for name, target in targets.items():
        (root / name).symlink_to(target)
    links = {name: (0, target) for name, target in targets.items()}
    assert written(root, tmp_path / "iso") == {"folder/file": (0o100644, b"x"), **links}


def test_deep_folders(root: Path, tmp_path: Path) -> None:
    deep = root.joinpath(*(f"level-{number}" for number in range(30)))
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    for number in range(40):
        (root / f"folder-{number}").mkdir()
        (root / f"folder-{number}" / "same-name").write_text(str(number))
    found = written(root, tmp_path / "iso")
    assert found[str((deep / "file").relative_to(root))] == (0o100644, b"deep")
    assert [found[f"folder-{n}/same-name"][1] for n in range(40)] == [b"%d" % n for n in range(40)]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name)[:20])
def test_odd_names(root: Path, tmp_path: Path, name: str) -> None:
    (root / name).write_text("x")
    (root / "link").symlink_to(name)
    assert written(root, tmp_path / "iso") == {name: (0o100644, b"x"), "link": (0, name)}


def test_a_name_that_is_no_text_is_bad_input(root: Path, tmp_path: Path) -> None:
    (root / os.fsdecode(b"\xe9t\xe9")).touch()
    with pytest.raises(BadInput, match=r"\\udce9t"):
        written(root, tmp_path / "iso")


def test_only_content_decides(root: Path, tmp_path: Path) -> None:
    (root / "a").write_text("a")
    (root / "folder").mkdir()
    (root / "folder" / "b").write_text("b")
    written(root, tmp_path / "first")
    moved = root.rename(tmp_path / "moved")
    for path in (moved / "a", moved / "folder", moved):
        os.utime(path, (1, 1))
    write_tree(tmp_path / "second", moved, list(reversed(files_of(moved))), "VEXFS_SOURCE")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_an_older_file_does_not_keep_its_mode_or_length(root: Path, tmp_path: Path) -> None:
    (root / "a").write_text("a")
    written(root, tmp_path / "first")
    (tmp_path / "second").write_bytes(os.urandom(10_000_000))
    (tmp_path / "second").chmod(0o644)
    written(root, tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert (tmp_path / "second").stat().st_mode & 0o777 == 0o600


def test_a_file_from_elsewhere_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with pytest.raises(ValueError, match="subpath"):
        write_tree(tmp_path / "iso", root, [tmp_path / "other"], "X")
