"""Compressed images, whole and damaged."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tasks.artifacts.unpack import packing_of, unpack
from tasks.core.errors import BadInput
from tasks.core.events import Silent

CONTENT = os.urandom(300_000) + bytes(3_000_000)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip": gzip.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_one_stream_and_two_are_unpacked(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "packed", tmp_path / "plain"
    source.write_bytes(PACKERS[name](CONTENT) + PACKERS[name](b"more"))
    packing = packing_of(source)
    assert packing == name
    unpack(source, target, packing, Silent())
    assert target.read_bytes() == CONTENT + b"more"


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "only a beginning"])
def test_a_damaged_one_is_told_and_leaves_nothing(name: str, damage: str, tmp_path: Path) -> None:
    source, target = tmp_path / "packed", tmp_path / "plain"
    packed = bytearray(PACKERS[name](CONTENT))
    if damage == "flipped":
        packed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(CONTENT)
                           if name == "zstd" else packed)  # fmt: skip
        packed[len(packed) // 2] ^= 0xFF
    source.write_bytes(packed[: {"truncated": -10, "flipped": None, "only a beginning": 6}[damage]])
    packing = packing_of(source)
    assert packing == name
    with pytest.raises(BadInput, match=f"packed can't be unpacked \\({name}\\)"):
        unpack(source, target, packing, Silent())
    assert not target.exists()


def test_anything_else_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"QFI\xfb")
    (tmp_path / "empty").touch()
    assert packing_of(tmp_path / "disk") is None
    assert packing_of(tmp_path / "empty") is None
