"""What is kept of a run: all its figures, and what else a reader needs to judge them.

Times are in seconds, sizes in bytes. It is written after every finding, so that whatever ends a run
leaves what was found until then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import picture
from bench.commands import ROOT
from bench.measure import Comparison, Finding
from tasks.artifacts.publish import publish_text
from tasks.core.errors import VmbakeError
from tasks.core.process import Runner
from tasks.qemu.accel import choose

FORMAT = 2


def head(runner: Runner) -> dict[str, Any]:
    """The machine and the checkout, as they are when a run begins."""
    return {
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(),
        "commit": commit(runner),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "accelerator": accelerator(runner),
        "load_average": os.getloadavg(),
    }


def figures(head: dict[str, Any], findings: Sequence[Finding], *, whole: bool) -> dict[str, Any]:
    """The record of a run, as it will be read from its JSON.

    Args:
        whole: the run has come to its end; else more may follow.
    """
    found = [plain(finding) for finding in findings]
    # Tuples become lists: a picture that is drawn now and one that is drawn later are the same.
    data: dict[str, Any] = json.loads(json.dumps({**head, "whole": whole, "findings": found}))
    return data


def plain(finding: Finding) -> dict[str, Any]:
    """A finding as JSON-able data."""
    data = dataclasses.asdict(finding)
    if isinstance(finding, Comparison):
        data |= {"ratio": finding.ratio, "reached": finding.reached}
    return data


def write(record: dict[str, Any], path: Path) -> None:
    """Write a record, whole or not at all."""
    publish_text(json.dumps(record, indent=1) + "\n", path)


def keep(record: dict[str, Any], stem: Path) -> list[Path]:
    """Write a record and its picture; returns where."""
    paths = [stem.with_suffix(".json"), stem.with_suffix(".svg")]
    write(record, paths[0])
    publish_text(picture.draw(record), paths[1])
    return paths


def commit(runner: Runner) -> str:
    """What is checked out; "" if that can't be told."""
    with contextlib.suppress(VmbakeError):
        return runner.output(["git", "describe", "--always", "--dirty"], cwd=ROOT).strip()
    return ""


def accelerator(runner: Runner) -> str:
    """What guests run under; "none" if they don't."""
    with contextlib.suppress(VmbakeError):
        return choose("auto", runner, ROOT / ".vmbake" / "cache").name
    return "none"


def processor() -> str:
    """The model of the processor, where Linux says it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
