"""Digests of files: big ones are read once, links count by where they lead."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tasks.core import digest
from tasks.core.digest import (
    WORTH_REMEMBERING_BYTES,
    Digests,
    digest_of,
    files_under,
    sha256_of,
)


def test_big_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, big = tmp_path / "cache" / "digests.json", tmp_path / "big"
    with big.open("wb") as stream:
        stream.truncate(WORTH_REMEMBERING_BYTES)
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    monkeypatch.setattr(digest, "sha256_of", counted)
    first = Digests(memory).of(big)
    assert Digests(memory).of(big) == first
    assert read == [big]
    with big.open("r+b") as changing:
        changing.write(b"changed")
    os.utime(big, ns=(0, 0))
    assert Digests(memory).of(big) != first
    assert read == [big, big]


def test_a_broken_memory_only_costs_time(tmp_path: Path) -> None:
    memory, big = tmp_path / "digests.json", tmp_path / "big"
    with big.open("wb") as stream:
        stream.truncate(WORTH_REMEMBERING_BYTES)
    memory.write_text('{"half')
    assert Digests(memory).of(big) == sha256_of(big)
    assert list(json.loads(memory.read_text())) == [str(big)]


def test_links_count_by_where_they_lead(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").write_text("x")
    (tree / "link").symlink_to("folder")
    assert files_under([tree]) == [tree / "folder" / "file", tree / "link"]
    before = sha256_of(tree / "link")
    (tree / "link").unlink()
    (tree / "link").symlink_to(os.fsdecode(b"\xe9t\xe9"))
    assert sha256_of(tree / "link") != before


def test_the_digest_of_data_does_not_depend_on_its_order() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"b": [1, 2]}) != digest_of({"b": [2, 1]})
