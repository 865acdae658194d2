"""Compressed images, whole and damaged."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tasks.artifacts.unpack import content_sha256, packing_of, pieces, unpack
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


@pytest.mark.parametrize("name", PACKERS)
def test_the_digest_of_what_is_inside(name: str, tmp_path: Path) -> None:
    source = tmp_path / "packed"
    source.write_bytes(PACKERS[name](CONTENT))
    packing = packing_of(source)
    assert packing == name
    found = content_sha256(source, packing, len(CONTENT), Silent())
    assert found == hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(BadInput, match=f"holds more than {len(CONTENT) - 1} bytes"):
        content_sha256(source, packing, len(CONTENT) - 1, Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_a_bomb_is_unpacked_in_small_pieces(tmp_path: Path) -> None:
    # Blocks of 128 KiB, each of one byte that is repeated (RFC 8878): 1 MiB of them is 32 GiB.
    head, block = bytes.fromhex("28b52ffd 00 38"), bytes.fromhex("020010 00")
    source = tmp_path / "bomb"
    source.write_bytes(head + block * (1 << 18))
    first = next(pieces(source, "zstd", Silent()))
    assert 0 < len(first) <= 128 << 20
    with pytest.raises(BadInput, match="holds more than 1000 bytes"):
        content_sha256(source, "zstd", 1000, Silent())


def test_anything_else_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"QFI\xfb")
    (tmp_path / "empty").touch()
    assert packing_of(tmp_path / "disk") is None
    assert packing_of(tmp_path / "empty") is None
