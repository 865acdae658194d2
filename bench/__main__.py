"""`nox -s bench`: measures, prints a table, and keeps the figures in .vmbake/bench/."""

from __future__ import annotations

import argparse
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

from bench import commands, machines, packing, virtual_dsm
from bench.commands import ROOT
from bench.measure import Comparison, Finding
from bench.report import as_table, sentence
from tasks.core.errors import VmbakeError
from tasks.core.process import Runner

BENCH = ROOT / ".vmbake" / "bench"
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
    target = BENCH / f"{stamp}.json"
    target.write_text(json.dumps(record(findings, started, runner), indent=1) + "\n")
    print(as_table(findings))
    print(target.relative_to(ROOT))
    return 0


def parse() -> argparse.Namespace:
    """The options of `nox -s bench -- …`."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the builds (minutes)")
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
        yield from machines.measured(work, runner, RESTORE_ROUNDS)
        yield from virtual_dsm.measured(work, runner, START_ROUNDS)
        yield commands.building(work, runner)


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
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "findings": [
            dataclasses.asdict(finding)
            | ({"ratio": finding.ratio} if isinstance(finding, Comparison) else {})
            for finding in findings
        ],
    }


sys.exit(main())
