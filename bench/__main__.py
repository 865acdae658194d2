"""`nox -s bench`: measures, prints a table, and keeps the figures in .vmbake/bench/."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench import record
from bench.choice import Choice, parts
from bench.commands import ROOT
from bench.measure import Finding, Omission
from bench.parts import Part, findings_of
from bench.report import as_table, sentence
from tasks.core.display import shown
from tasks.core.process import Runner
from tasks.core.store import Store

STATE = ROOT / ".vmbake"
PUBLISHED = ROOT / "docs" / "bench"


def main() -> int:
    """Measure what the command line asks for; the status is 1 if a part of it failed."""
    options = parse()
    choice = Choice(quick=options.quick, image=options.image)
    stem = STATE / "bench" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    stem.parent.mkdir(parents=True, exist_ok=True)
    published = [PUBLISHED] if options.publish else []
    runner = Runner(stem.with_suffix(".log"))
    # A work folder like that of a stage: beside the store, because /tmp may be memory and a build
    # wants gigabytes, and removed by whoever comes next if this is killed.
    with Store(STATE).workspace("bench", keep=False) as work:
        return measure(parts(choice, work, runner), runner, [stem, *published])


def measure(chosen: list[Part], runner: Runner, stems: list[Path]) -> int:
    """Make and show all findings, and keep them; returns the exit status.

    Args:
        stems: where they are kept, without endings; in the first one from the beginning on.
    """
    head = record.head(runner)
    findings: list[Finding] = []
    for finding in findings_of(chosen):
        findings.append(finding)
        print(sentence(finding), file=sys.stderr, flush=True)
        record.write(record.figures(head, findings, whole=False), stems[0].with_suffix(".json"))
    print(as_table(findings))
    figures = record.figures(head, findings, whole=True)
    for stem in stems:
        print(*map(shown, record.keep(figures, stem)), sep="\n")
    failed = [found for found in findings if isinstance(found, Omission) and found.failed]
    if failed:
        names = ", ".join(found.what for found in failed)
        print(f"bench: failed: {names}. Log: {runner.log}", file=sys.stderr)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    """The options of `nox -s bench -- …`."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="within ten minutes: start-up, seed, an image up to date, compressed, booted against "
        "restored; no builds, no large file, no Virtual-DSM (all takes 45 minutes on two cores)",
    )
    parser.add_argument(
        "--publish", action="store_true", help="write docs/bench.json and docs/bench.svg, too"
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="QCOW2",
        help="what to compress and to boot (default: the newest in output/)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
