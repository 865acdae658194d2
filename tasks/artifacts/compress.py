"""Compresses a file and computes the digests of both sides while its bytes go by once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, assert_never

from tasks.artifacts import seekable
from tasks.core.events import Reporter

Method = Literal["zstd", "gzip"]
CHUNK_BYTES = 4 << 20
ENDINGS: dict[Method, str] = {"zstd": ".zst", "gzip": ".gz"}
GZIP_LEVEL = 6


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """Both files' digests (SHA256) and sizes in bytes."""

    source_sha256: str
    source_bytes: int
    target_sha256: str
    target_bytes: int


class Sink(Protocol):
    """Something to write bytes to."""

    def write(self, data: bytes, /) -> Any: ...


class Tee:
    """Writes to a stream and keeps the digest and the size of what was written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def memory_bytes(method: Method, threads: int) -> int:
    """What `compress` takes at most, whatever the file's size (measured, Python included)."""
    return (200 + 64 * max(threads - 2, 0) if method == "zstd" else 50) << 20


def compress(
    source: Path, target: Path, *, method: Method, reporter: Reporter, threads: int
) -> Compressed:
    """Compress `source` into `target`, identically for identical input.

    To unpack, zstd takes its window, 32 MiB.

    Args:
        threads: how many compress beside the one that reads; gzip has none.

    Raises:
        OSError: the disk is full, or a file can't be read or written.
    """
    total = source.stat().st_size
    digest = hashlib.sha256()
    done = 0
    with source.open("rb") as stream, target.open("wb") as raw:
        tee = Tee(raw)
        with packer(method, tee, threads) as sink:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                sink.write(chunk)
                done += len(chunk)
                reporter.progress(done, total)
    return Compressed(
        source_sha256=digest.hexdigest(),
        source_bytes=done,
        target_sha256=tee.sha256,
        target_bytes=tee.size_bytes,
    )


@contextmanager
def packer(method: Method, target: Any, threads: int) -> Iterator[Sink]:
    """What compresses into `target`; complete when the block is left."""
    match method:
        case "zstd":
            with seekable.frames(target, threads) as writer:
                yield writer
        case "gzip":
            import gzip

            # No name and no time in the header: only the content decides.
            with gzip.GzipFile("", "wb", GZIP_LEVEL, target, mtime=0) as zipped:
                yield zipped
        case _:
            assert_never(method)
