"""Unpacks a compressed file, whole or not at all: a truncated one is told from a complete one."""

from __future__ import annotations

import contextlib
import errno
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tasks.core.errors import BadInput, NoRoom
from tasks.core.events import Reporter

Packing = Literal["zstd", "gzip", "xz"]
CHUNK_BYTES = 1 << 20
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
        with source.open("rb") as packed, target.open("wb") as out:
            _copy(packed, out, packing, source.stat().st_size, reporter)
    except BaseException as error:
        target.unlink(missing_ok=True)
        with contextlib.suppress(AttributeError):
            if error.errno == errno.ENOSPC:  # type: ignore[attr-defined]
                raise NoRoom(f"The disk filled up while {source.name} was unpacked.") from error
        if isinstance(error, damage()):
            raise BadInput(f"{source} can't be unpacked ({packing}): {error}.") from error
        raise


def damage() -> tuple[type[Exception], ...]:
    """What the libraries raise for damaged input."""
    import zstandard

    return (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError)


def _copy(packed: Any, out: Any, packing: Packing, total: int, reporter: Reporter) -> None:
    """Unpack one or more streams that follow each other, as all three formats allow."""
    fresh = maker(packing)
    unpacker, begun = fresh(), False
    done = 0
    while chunk := packed.read(CHUNK_BYTES):
        done += len(chunk)
        reporter.progress(done, total)
        while chunk:
            begun = True
            out.write(unpacker.decompress(chunk))
            chunk = b""
            if unpacker.eof:
                chunk = unpacker.unused_data
                unpacker, begun = fresh(), False
    if begun:
        raise EOFError("it ends before its end")


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
