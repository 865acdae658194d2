"""What a disk image keeps, against what its root file system has use for."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.core.process import Runner
from tasks.qemu import disk

CLUSTER_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Clusters by number, as the guest counts them.

    Args:
        stored: those that the image has data for.
        zero: of these, those that hold nothing but zeros.
        deleted: of these, those of which the file system uses no block.
    """

    stored: frozenset[int]
    zero: frozenset[int]
    deleted: frozenset[int]


def look(image: Path, folder: Path) -> Kept:
    """Look at a qcow2 image, backing files included; its largest partition is an ext4 root."""
    runner = Runner(folder / "log")
    raw = folder / "disk.raw"
    disk.convert(runner, image, "qcow2", raw, "raw")
    extents = json.loads(runner.output(["qemu-img", "map", "--output=json", "-f", "qcow2", image]))
    stored = frozenset(
        number
        for extent in extents
        if extent["data"]
        for number in touched(extent["start"], extent["start"] + extent["length"])
    )
    zeros = bytes(CLUSTER_BYTES)
    with raw.open("rb") as stream:
        zero = {number for number in stored if cluster(stream.fileno(), number) == zeros}
    kept = Kept(stored=stored, zero=frozenset(zero), deleted=stored & unused(raw, runner))
    raw.unlink()
    return kept


def cluster(descriptor: int, number: int) -> bytes:
    return os.pread(descriptor, CLUSTER_BYTES, number * CLUSTER_BYTES)


def touched(start: int, end: int) -> range:
    """The clusters that hold a byte of a range."""
    return range(start // CLUSTER_BYTES, -(-end // CLUSTER_BYTES))


def unused(raw: Path, runner: Runner) -> frozenset[int]:
    """The clusters that lie wholly in free blocks of the root file system."""
    table = json.loads(runner.output(["sfdisk", "--json", raw]))["partitiontable"]
    root = max(table["partitions"], key=lambda part: int(part["size"]))
    offset = root["start"] * 512
    said = runner.output(["dumpe2fs", f"{raw}?offset={offset}"])
    block = int(re.findall(r"^Block size: +(\d+)$", said, re.MULTILINE)[0])
    ranges = [
        span.partition("-")
        for line in re.findall(r"^  Free blocks: (\d.*)$", said, re.MULTILINE)
        for span in line.split(", ")
    ]
    assert ranges, said
    return frozenset(
        number
        for first, _, last in ranges
        for number in range(
            -(-(offset + int(first) * block) // CLUSTER_BYTES),
            (offset + (int(last or first) + 1) * block) // CLUSTER_BYTES,
        )
    )
