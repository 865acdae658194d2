"""The comparison of two images: what may differ is no more than what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.standins.trees import Allowed, allowed, compare

FILE = {"mode": "-rw-r--r--", "owner": [0, 0], "xattrs": {}, "sha256": "a" * 64}
FOLDER = {"mode": "drwxr-xr-x", "owner": [0, 0], "xattrs": {}}
BOTH = {"/etc": FOLDER, "/etc/file": FILE}
LOG = Allowed(path="/log", may=frozenset({"mode", "owner"}), variants=frozenset())
EMPTY = Allowed(path="/empty", may=frozenset({"presence"}), variants=frozenset())


def entry(path: str, text: str, folder: Path) -> Path:
    file = folder / "differences.toml"
    file.write_text(f'[[difference]]\npath = "{path}"\n{text}\nwhy = "so"\n')
    return file


@pytest.mark.parametrize(
    "change",
    [{"mode": "-rwxr-xr-x"}, {"owner": [0, 4]}, {"xattrs": {"a": "00"}}, {"sha256": "b" * 64}],
)
def test_whatever_differs_is_found(change: dict[str, Any]) -> None:
    other = {**BOTH, "/etc/file": {**FILE, **change}}
    found = compare(BOTH, other, [])
    assert found.different == {"/etc/file": (FILE, other["/etc/file"])}
    assert compare(BOTH, BOTH, []).different == {}
    assert compare(BOTH, {"/etc": FOLDER}, []).different == {"/etc/file": (FILE, None)}


def test_only_what_is_named_may_differ() -> None:
    one = {**BOTH, "/log": FOLDER}
    other = {**FOLDER, "mode": "drwxr-x---", "owner": [0, 4]}
    assert compare(one, {**BOTH, "/log": other}, [LOG]).different == {}
    more = {**other, "xattrs": {"a": "00"}}
    assert compare(one, {**BOTH, "/log": more}, [LOG]).different == {"/log": (FOLDER, more)}
    assert compare(one, BOTH, [LOG]).different == {"/log": (FOLDER, None)}


def test_what_may_be_missing_is_an_empty_folder() -> None:
    one = {**BOTH, "/empty": FOLDER}
    assert compare(one, BOTH, [EMPTY]).different == {}
    assert compare(BOTH, one, [EMPTY]).different == {}
    full = {**one, "/empty/file": FILE}
    assert compare(full, BOTH, [EMPTY]).different == {"/empty/file": (FILE, None)}
    file = {**BOTH, "/empty": FILE}
    assert compare(file, BOTH, [EMPTY]).different == {"/empty": (FILE, None)}
    other = {**FOLDER, "owner": [1, 1]}
    assert compare(one, {**BOTH, "/empty": other}, [EMPTY]).different == {"/empty": (FOLDER, other)}


def test_an_entry_that_nothing_needs_is_found() -> None:
    one, two = {**BOTH, "/empty": FOLDER, "/log": FOLDER}, {**BOTH, "/log": FOLDER}
    assert compare(one, two, [EMPTY, LOG]).unused == {"/log"}


def test_entries_are_for_variants(tmp_path: Path) -> None:
    file = entry("/log", 'may = ["mode"]\nvariants = ["production"]', tmp_path)
    assert allowed("minimal", file) == []
    assert [each.path for each in allowed("production", file)] == ["/log"]
    assert {each.path for each in allowed("minimal")} < {
        each.path for each in allowed("production")
    }


@pytest.mark.parametrize(
    "text", ['may = ["everything"]', "may = []", 'may = ["mode"]\nvariant = "x"']
)
def test_a_mistaken_entry_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(AssertionError):
        allowed("minimal", entry("/log", text, tmp_path))
