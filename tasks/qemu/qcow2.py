"""A disk image with compressed clusters, written on all cores and for the same content the same.

`qemu-img convert -c` compresses one cluster after the other, or else puts them in the order in
which they happen to be ready (-W). The format is QEMU's docs/interop/qcow2.rst; what is written is
version 3 with compression type zstd, which QEMU reads from 5.1 on.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
L2_ENTRIES = CLUSTER // 8
REFCOUNTS = CLUSTER // 2  # in a block, of 16 bits each
SECTOR = 512
# What a thread is given at a time.
BATCH = 32 * CLUSTER
# QEMU's own, too. Of a Debian image level 1 leaves 3 % more bytes, and is hardly faster.
LEVEL = 3

MAGIC = b"QFI\xfb"
VERSION, REFCOUNT_ORDER, ZSTD = 3, 4, 1
HAS_COMPRESSION_TYPE = 1 << 3
# Without backing file, encryption, snapshots and extensions.
HEADER = struct.Struct(">4sI QII QII QQ IIQ QQQ II B7x")
COPIED, COMPRESSED = 1 << 63, 1 << 62
# Of a compressed cluster's entry: where the number of its further sectors begins.
SECTORS_SHIFT = 62 - (CLUSTER_BITS - 8)
ZEROS = bytes(CLUSTER)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Bytes of a disk that lie together in a file.

    Args:
        start, length: on the disk, in bytes.
        offset: where they begin in the file, in bytes.
    """

    start: int
    length: int
    file: Path
    offset: int


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What is stored of a cluster: its bytes, or fewer that stand for them."""

    index: int
    data: bytes

    @property
    def is_packed(self) -> bool:
        return len(self.data) < CLUSTER


def write(extents: Sequence[Extent], size_bytes: int, target: Path, *, threads: int) -> None:
    """Write a disk of `size_bytes` with this content, and zeros elsewhere, to `target`.

    Memory: 4 MiB for each thread and as much again, 64 KiB for each 512 MiB of the disk that has
    content, and the extents.

    Args:
        extents: by their starts, none over another.
        threads: how many compress beside the one that writes.

    Raises:
        OSError: the disk is full, or a file can't be read or written.
    """
    with target.open("wb") as out, ExitStack() as stack:
        files = {
            path: stack.enter_context(path.open("rb")).fileno()
            for path in {extent.file for extent in extents}
        }
        pool = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="qcow2"))
        image = Image(out, size_bytes)
        pending: deque[Future[list[Cluster]]] = deque()
        for start, parts in batches(extents):
            if len(pending) > threads:
                image.put(pending.popleft().result())
            pending.append(pool.submit(pack, start, parts, files))
        for future in pending:
            image.put(future.result())
        image.finish()


def batches(extents: Sequence[Extent]) -> Iterator[tuple[int, list[Extent]]]:
    """The parts of the disk, by where they start, that are compressed in one go; empty ones not."""
    start, parts = 0, list[Extent]()
    for extent in extents:
        position, end = extent.start, extent.start + extent.length
        while position < end:
            if position >= start + BATCH:
                if parts:
                    yield start, parts
                start, parts = position // BATCH * BATCH, []
            length = min(end, start + BATCH) - position
            offset = extent.offset + position - extent.start
            parts.append(Extent(start=position, length=length, file=extent.file, offset=offset))
            position += length
    if parts:
        yield start, parts


def pack(start: int, parts: Sequence[Extent], files: dict[Path, int]) -> list[Cluster]:
    """Read a batch and compress what is not zero of it."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=LEVEL)
    data = memoryview(bytearray(BATCH))
    for part in parts:
        position = part.start - start
        room, offset = data[position : position + part.length], part.offset
        # Less than it was asked for: what is missing at the end of a raw disk's file is zero.
        while room and (count := os.preadv(files[part.file], [room], offset)):
            room, offset = room[count:], offset + count
    clusters = []
    for position in range(0, BATCH, CLUSTER):
        plain = data[position : position + CLUSTER]
        if plain != ZEROS:
            packed = compressor.compress(plain)
            content = packed if len(packed) < CLUSTER else bytes(plain)
            clusters.append(Cluster(index=(start + position) >> CLUSTER_BITS, data=content))
    return clusters


class Image:
    """The file: a header, the clusters as they come, then the tables that tell where each is."""

    def __init__(self, out: IO[bytes], size_bytes: int) -> None:
        self._out = out
        self._size_bytes = size_bytes
        self._tables: dict[int, array[int]] = {}  # of 512 MiB each
        self._counts = array("H", [1])  # of what lies in each cluster of the file
        self._end = CLUSTER
        out.seek(CLUSTER)

    def put(self, clusters: Sequence[Cluster]) -> None:
        """Add clusters of the disk, packed ones side by side."""
        for cluster in clusters:
            if cluster.is_packed:
                offset = self._append(cluster.data)
                more_sectors = (self._end - 1) // SECTOR - offset // SECTOR
                entry = COMPRESSED | more_sectors << SECTORS_SHIFT | offset
            else:
                entry = COPIED | self._append_aligned(cluster.data)
            number, place = divmod(cluster.index, L2_ENTRIES)
            self._tables.setdefault(number, array("Q", bytes(CLUSTER)))[place] = entry

    def finish(self) -> None:
        """Write the tables and the header."""
        l1 = array("Q", bytes(8 * -(-self._size_bytes // (CLUSTER * L2_ENTRIES))))
        for number, table in self._tables.items():
            l1[number] = COPIED | self._append_aligned(big_endian(table))
        l1_offset = self._append_aligned(big_endian(l1))
        refcounts_offset, table_clusters = self._append_refcounts()
        self._out.truncate(self._end)
        self._out.seek(0)
        header = HEADER.pack(
            *(MAGIC, VERSION),
            *(0, 0, CLUSTER_BITS),
            *(self._size_bytes, 0, len(l1)),
            *(l1_offset, refcounts_offset),
            *(table_clusters, 0, 0),
            *(HAS_COMPRESSION_TYPE, 0, 0),
            *(REFCOUNT_ORDER, HEADER.size),
            ZSTD,
        )
        self._out.write(header)

    def _append(self, data: bytes) -> int:
        """Write at the end; returns where that was."""
        offset = self._end
        self._out.write(data)
        self._end += len(data)
        for index in range(offset // CLUSTER, (self._end - 1) // CLUSTER + 1):
            if index == len(self._counts):
                self._counts.append(0)
            self._counts[index] += 1
        return offset

    def _append_aligned(self, data: bytes) -> int:
        """Write from a cluster boundary on; returns where that is."""
        self._end = self._out.seek(aligned(self._end))
        return self._append(data)

    def _append_refcounts(self) -> tuple[int, int]:
        """Write the counts, which count themselves; returns where their table is and its clusters.

        First the table, then its blocks.
        """
        offset = self._end = self._out.seek(aligned(self._end))
        used = offset // CLUSTER
        blocks = table_clusters = 0
        while (total := used + table_clusters + blocks) > blocks * REFCOUNTS:
            blocks = -(-total // REFCOUNTS)
            table_clusters = -(-8 * blocks // CLUSTER)
        self._counts.extend([1] * (table_clusters + blocks))
        self._counts.extend([0] * (blocks * REFCOUNTS - len(self._counts)))
        first = offset + table_clusters * CLUSTER
        table = array("Q", range(first, first + blocks * CLUSTER, CLUSTER))
        self._out.write(big_endian(table))
        self._out.seek(first)
        self._out.write(big_endian(self._counts))
        self._end = self._out.tell()
        return offset, table_clusters


def aligned(offset: int) -> int:
    """The first cluster boundary from here on."""
    return -(-offset // CLUSTER) * CLUSTER


def big_endian(numbers: array[int]) -> bytes:
    """As the format has them."""
    if sys.byteorder == "big":
        return numbers.tobytes()
    swapped = numbers[:]
    swapped.byteswap()
    return swapped.tobytes()
