"""What stages take of this machine while they run, and how much of it there is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# What a control group counts as used although the kernel drops it where memory gets short: see
# "memory.stat" in the kernel's Documentation/admin-guide/cgroup-v2.rst. Files in memory (tmpfs)
# are in neither list.
DROPPED_AT_NEED = ("active_file", "inactive_file", "slab_reclaimable")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one stage takes.

    Args:
        cores: how many it keeps busy, on average: it may start more threads for a while, which
            makes others slower and breaks nothing.
        share: which part of all cores it keeps busy, if that is more than `cores`.
        memory_bytes: the most that it needs beside what every program takes. A scratch folder in
            memory is no need: it is on disk where memory is short.
        kvm_guests: machines that it runs under KVM.
        holds: what only one stage can have at a time, such as a port.
    """

    cores: float = 1
    share: float = 0
    memory_bytes: int = 0
    kvm_guests: int = 0
    holds: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What all stages together may take.

    Args:
        stages: how many may work at the same time.
        memory_bytes: what is free when the run begins.
    """

    stages: int
    cores: float
    memory_bytes: int
    kvm_guests: int

    def has_room(self, taken: Iterable[Cost], wanted: Cost) -> bool:
        """Whether `wanted` fits in beside what is `taken`."""
        all_of_them = [*taken, wanted]
        return (
            sum(max(cost.cores, cost.share * self.cores) for cost in all_of_them) <= self.cores
            and sum(cost.memory_bytes for cost in all_of_them) <= self.memory_bytes
            and sum(cost.kvm_guests for cost in all_of_them) <= self.kvm_guests
        )


def capacity_of_host(jobs: int) -> Capacity:
    """What this machine has.

    Args:
        jobs: cores to count with, which may be more than there are; 0: those that there are.
    """
    cores = jobs or core_count()
    # A guest under KVM is counted by what guests take on average; all may want more at once.
    return Capacity(
        stages=cores, cores=cores, memory_bytes=memory_of_host()[1], kvm_guests=core_count()
    )


def core_count() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory_of_host(root: Path = Path("/")) -> tuple[int, int]:
    """Memory in all and free, in bytes, within the limit of the control group (cgroup v2)."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = total
    with contextlib.suppress(OSError, ValueError, KeyError):
        rows = (line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
        kib = {key: int(value.split()[0]) for key, value in rows}
        total, free = kib["MemTotal"] << 10, kib["MemAvailable"] << 10
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        group = root / "sys/fs/cgroup"
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = sum(int(size) for name, size in rows if name in DROPPED_AT_NEED)
        total, free = min(total, limit), min(free, limit - used + cached)
    return total, free
