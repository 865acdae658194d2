"""`nox -s bench`: measures, prints a table, and keeps the figures in .vmbake/bench/."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import builds, commands, machines, packing, picture, virtual_dsm
from bench.commands import ROOT
from bench.measure import Comparison, Finding
from bench.report import as_table, sentence
from tasks.core.errors import VmbakeError
from tasks.core.process import Runner
from tasks.qemu.accel import choose

BENCH = ROOT / ".vmbake" / "bench"
DOCS = ROOT / "docs"
# Enough rounds for a median that means something, at a second to a minute for each part.
PACKING_ROUNDS = 3
SEED_ROUNDS = 30
START_ROUNDS = 11
RESTORE_ROUNDS = 5


def main() -> int:
    """Measure what the command line asks for."""
    options = parse()
    started = datetime.now(UTC)
    stamp = started.strftime("%Y%m%d-%H%M%S")
    BENCH.mkdir(parents=True, exist_ok=True)
    runner = Runner(BENCH / f"{stamp}.log")
    findings: list[Finding] = []
    # Beside the store: /tmp may be memory, and a build wants gigabytes.
    with tempfile.TemporaryDirectory(prefix="work-", dir=BENCH) as folder:
        try:
            for finding in measured(Path(folder), runner, options):
                findings.append(finding)
                print(sentence(finding), file=sys.stderr, flush=True)
        except VmbakeError as error:
            print(f"bench: {error} Log: {error.log or runner.log}", file=sys.stderr)
            return error.exit_code
    figures = record(findings, started, runner)
    print(as_table(findings))
    stems = [BENCH / stamp, *([DOCS / "bench"] if options.publish else [])]
    for stem in stems:
        print(*keep(figures, stem), sep="\n")
    return 0


def keep(figures: dict[str, Any], stem: Path) -> list[Path]:
    """Write the figures and their picture; returns where, seen from the checkout."""
    paths = [stem.with_suffix(".json"), stem.with_suffix(".svg")]
    # What JSON makes of it is what a picture that is drawn again later is made from.
    text = json.dumps(figures, indent=1) + "\n"
    paths[0].write_text(text, encoding="utf-8")
    paths[1].write_text(picture.draw(json.loads(text)), encoding="utf-8")
    return [path.relative_to(ROOT) for path in paths]


def parse() -> argparse.Namespace:
    """The options of `nox -s bench -- …`."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the builds (minutes)")
    parser.add_argument(
        "--publish", action="store_true", help="write docs/bench.json and docs/bench.svg, too"
    )
    parser.add_argument(
        "--image", type=Path, metavar="QCOW2", help="what to compress (default: newest in output/)"
    )
    return parser.parse_args()


def measured(work: Path, runner: Runner, options: argparse.Namespace) -> Iterator[Finding]:
    """Each comparison as it is made, the cheap ones first."""
    yield from commands.starting(work, runner, START_ROUNDS)
    yield packing.seeding(work, runner, SEED_ROUNDS)
    manifest = newest(ROOT.glob("output/vexfs-*.manifest.json"))
    if manifest:
        made = json.loads(manifest.read_text())
        words = ["--variant", made["variant"], "--version", made["version"]]
        yield commands.up_to_date([*words, "--base", made["base"]["name"]], runner, START_ROUNDS)
    if image := options.image or newest(ROOT.glob("output/vexfs-*.qcow2")):
        yield packing.packing(image, work, runner, PACKING_ROUNDS)
    if not options.quick:
        yield packing.packing_much(work, runner)
        yield from machines.measured(work, runner, RESTORE_ROUNDS)
        yield from virtual_dsm.measured(work, runner, START_ROUNDS)
        yield from builds.measured(work, runner)


def newest(paths: Iterable[Path]) -> Path | None:
    """The file that was written last."""
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)


def record(findings: Iterable[Finding], started: datetime, runner: Runner) -> dict[str, Any]:
    """All figures, and what else a reader needs to judge them. Times in seconds, sizes in bytes."""
    return {
        "format": 1,
        "started": started.isoformat(),
        "commit": runner.output(["git", "describe", "--always", "--dirty"], cwd=ROOT).strip(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "accelerator": choose("auto", runner, ROOT / ".vmbake" / "cache").name,
        "load_average": os.getloadavg(),
        "findings": [
            dataclasses.asdict(finding)
            | ({"ratio": finding.ratio} if isinstance(finding, Comparison) else {})
            for finding in findings
        ],
    }


def processor() -> str:
    """The model of the processor, where Linux says it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


sys.exit(main())
