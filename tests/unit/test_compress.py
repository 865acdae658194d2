"""Compression: what comes out goes in again, digests are right, bytes depend on content only."""

from __future__ import annotations

import gzip
import hashlib
import random
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, get_args

import pytest
import zstandard

from tasks.artifacts import compress as compressing
from tasks.artifacts import seekable
from tasks.artifacts.compress import CHUNK_BYTES, ENDINGS, Method, compress, memory_bytes
from tasks.core.events import Silent
from tasks.vexfs.options import OPTIONS

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("method", get_args(Method))
MIB = 1 << 20


class Heard(Silent):
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.progresses: list[tuple[int, int | None]] = []

    def progress(self, done: int, total: int | None) -> None:
        self.progresses.append((done, total))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bit of everything: noise, emptiness, text, and the same noise again."""
    noise = random.Random(1).randbytes(MIB)
    text = b"".join(b"line %d of a log\n" % number for number in range(60_000))
    path = tmp_path_factory.mktemp("source") / "disk"
    path.write_bytes(noise + bytes(5 * MIB) + text + noise + b"odd end")
    return path


def unpack(path: Path, method: Literal["zstd", "gzip"]) -> bytes:
    if method == "gzip":
        return gzip.decompress(path.read_bytes())
    unpacker = zstandard.ZstdDecompressor(max_window_size=32 * MIB)
    with (
        path.open("rb") as stream,
        unpacker.stream_reader(stream, read_across_frames=True) as reader,
    ):
        return reader.read()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@BOTH
def test_round_trip_with_both_digests(source: Path, tmp_path: Path, method: Method) -> None:
    target, heard = tmp_path / "out", Heard()
    made = compress(source, target, method=method, reporter=heard, threads=2)
    assert unpack(target, method) == source.read_bytes()
    assert (made.source_sha256, made.source_bytes) == (sha256(source), source.stat().st_size)
    assert (made.target_sha256, made.target_bytes) == (sha256(target), target.stat().st_size)
    assert made.target_bytes < made.source_bytes / 2
    total = made.source_bytes
    assert heard.progresses == [
        (done, total) for done in (*range(CHUNK_BYTES, total, CHUNK_BYTES), total)
    ]


def test_zstd_finds_what_gzip_cannot(source: Path, tmp_path: Path) -> None:
    sizes = [
        compress(
            source, tmp_path / method, method=method, reporter=Silent(), threads=2
        ).target_bytes
        for method in ("zstd", "gzip")
    ]
    assert sizes[0] < sizes[1] - MIB / 2, "the second copy of the noise costs nothing"


@BOTH
def test_same_content_same_bytes(
    source: Path, tmp_path: Path, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the names, the time of day, the number of threads and the size of the reads."""
    first = compress(source, tmp_path / "first", method=method, reporter=Silent(), threads=2)
    other = tmp_path / "other name"
    shutil.copyfile(source, other)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(compressing, "CHUNK_BYTES", 123_457)
    again = compress(other, tmp_path / "second", method=method, reporter=Silent(), threads=7)
    assert again == first


@BOTH
def test_an_empty_file(tmp_path: Path, method: Method) -> None:
    (tmp_path / "empty").touch()
    made = compress(
        tmp_path / "empty", tmp_path / "out", method=method, reporter=Silent(), threads=2
    )
    assert unpack(tmp_path / "out", method) == b""
    assert made.source_sha256 == hashlib.sha256().hexdigest()


def test_any_part_of_a_zstd_file_can_be_read_by_itself(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seekable, "FRAME_BYTES", MIB)
    compress(source, tmp_path / "out", method="zstd", reporter=Silent(), threads=2)
    packed, plain = (tmp_path / "out").read_bytes(), source.read_bytes()
    # As zstd's contrib/seekable_format describes it, from the end.
    count, descriptor, magic = struct.unpack("<IBI", packed[-9:])
    assert (count, descriptor, magic) == (-(-len(plain) // MIB), 0, 0x8F92EAB1)
    entries = list(struct.iter_unpack("<II", packed[-9 - 8 * count : -9]))
    header = struct.unpack("<II", packed[-17 - 8 * count : -9 - 8 * count])
    assert header == (0x184D2A5E, 8 * count + 9)
    packed_at = plain_at = 0
    for packed_bytes, plain_bytes in entries:
        frame = packed[packed_at : packed_at + packed_bytes]
        part = zstandard.ZstdDecompressor().decompress(frame)
        assert part == plain[plain_at : plain_at + plain_bytes]
        packed_at, plain_at = packed_at + packed_bytes, plain_at + plain_bytes
    assert (packed_at, plain_at) == (len(packed) - 17 - 8 * count, len(plain))


def test_zstd_carries_size_and_checksum(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    compress(source, target, method="zstd", reporter=Silent(), threads=2)
    found = zstandard.get_frame_parameters(target.read_bytes()[:32])
    assert found.content_size == source.stat().st_size
    assert found.has_checksum
    damaged = bytearray(target.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    target.write_bytes(damaged)
    with pytest.raises(zstandard.ZstdError):
        unpack(target, "zstd")


@BOTH
def test_a_full_disk_is_an_error(source: Path, method: Method) -> None:
    with pytest.raises(OSError, match="No space left"):
        compress(source, Path("/dev/full"), method=method, reporter=Silent(), threads=2)


@pytest.mark.parametrize(
    ("method", "threads", "size_mib"), [("zstd", 2, 192), ("zstd", 5, 320), ("gzip", 1, 48)]
)
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, method: Method, threads: int, size_mib: int
) -> None:
    """A sparse file."""
    source = tmp_path / "sparse"
    with source.open("wb") as stream:
        stream.truncate(size_mib * MIB)
    script = (
        "import sys; from pathlib import Path\n"
        "from tasks.artifacts.compress import compress; from tasks.core.events import Silent\n"
        "source, target, method, threads = sys.argv[1:]\n"
        "words = {'method': method, 'reporter': Silent(), 'threads': int(threads)}\n"
        "compress(Path(source), Path(target), **words)\n"
        # getrusage's figure would be that of the process that started this one, if it is higher.
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, source, tmp_path / "out", method, str(threads)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) << 10 < memory_bytes(method, threads)


def test_every_choice_has_its_ending() -> None:
    assert set(ENDINGS) == set(OPTIONS["compression"].choices) == set(get_args(Method))
