"""Unpacks a compressed file, whole or not at all: a truncated one is told from a complete one.

Few bytes of a file are unpacked at a time, so that one that stands for very many takes no more
memory than others: that of its format's window.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from tasks.core.errors import BadInput, NoRoom
from tasks.core.events import Reporter

Packing = Literal["zstd", "gzip", "xz"]
CHUNK_BYTES = 1 << 20
# Four bytes of zstd can stand for 128 KiB (RFC 8878, RLE blocks): so much becomes 128 MiB at most.
BITE_BYTES = 4 << 10
# First bytes, by the formats' specifications (RFC 8878, RFC 1952, "The .xz File Format").
MAGIC: dict[bytes, Packing] = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
}
# The window that our own compression uses is 2^27; some archives go up to what zstd allows.
MOST_WINDOW_BYTES = 1 << 31


def packing_of(path: Path) -> Packing | None:
    """How a file is compressed, by its first bytes; None if it isn't.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as stream:
        head = stream.read(max(map(len, MAGIC)))
    return next((packing for magic, packing in MAGIC.items() if head.startswith(magic)), None)


def unpack(source: Path, target: Path, packing: Packing, reporter: Reporter) -> None:
    """Write the content of `source` as `target`. When it fails, no `target` is left.

    Raises:
        BadInput: the file is damaged or not complete.
        NoRoom: the disk filled up.
    """
    try:
        with told(source, packing), target.open("wb") as out:
            for piece in pieces(source, packing, reporter):
                out.write(piece)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise NoRoom(f"The disk filled up while {source.name} was unpacked.") from error
        raise


def content_sha256(source: Path, packing: Packing, most_bytes: int, reporter: Reporter) -> str:
    """The SHA256 of the content of `source`, of which nothing is kept.

    Args:
        most_bytes: how big the content may be; from there on nothing is unpacked.

    Raises:
        BadInput: the file is damaged or not complete, or its content is bigger.
        OSError: it can't be read.
    """
    digest, size_bytes = hashlib.sha256(), 0
    with told(source, packing):
        for piece in pieces(source, packing, reporter):
            digest.update(piece)
            size_bytes += len(piece)
            if size_bytes > most_bytes:
                raise BadInput(f"{source} holds more than {most_bytes} bytes.")
    return digest.hexdigest()


@contextlib.contextmanager
def told(source: Path, packing: Packing) -> Iterator[None]:
    """What the libraries say of a damaged file, as an error of ours."""
    try:
        yield
    except damage() as error:
        raise BadInput(f"{source} can't be unpacked ({packing}): {error}.") from error


def damage() -> tuple[type[Exception], ...]:
    """What the libraries raise for damaged input."""
    import zstandard

    return (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError)


def pieces(source: Path, packing: Packing, reporter: Reporter) -> Iterator[bytes]:
    """The content of one or more streams that follow each other, as all three formats allow.

    Raises:
        EOFError: the last of them is not complete.
    """
    fresh = maker(packing)
    unpacker, begun = fresh(), False
    total = source.stat().st_size
    with source.open("rb") as packed:
        for bite in bites(packed, total, reporter):
            rest = bite
            while rest:
                begun = True
                yield unpacker.decompress(rest)
                rest = b""
                if unpacker.eof:
                    rest = unpacker.unused_data
                    unpacker, begun = fresh(), False
    if begun:
        raise EOFError("it ends before its end")


def bites(packed: IO[bytes], total: int, reporter: Reporter) -> Iterator[bytes]:
    """A stream of `total` bytes in small pieces, read in bigger ones."""
    done = 0
    while chunk := packed.read(CHUNK_BYTES):
        done += len(chunk)
        reporter.progress(done, total)
        for start in range(0, len(chunk), BITE_BYTES):
            yield chunk[start : start + BITE_BYTES]


def maker(packing: Packing) -> Callable[[], Any]:
    """What makes an unpacker of one stream."""
    import zstandard

    match packing:
        case "zstd":
            dctx = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES)
            return dctx.decompressobj
        case "gzip":
            return lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        case "xz":
            return lzma.LZMADecompressor
