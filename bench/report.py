"""Shows findings: a sentence as each comes in, a table at the end."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure import Comparison, Finding, Omission
from tasks.core.display import in_bytes

HEADINGS = ("what", "vmbake", "other way", "ratio", "goal", "rounds")


def sentence(finding: Finding) -> str:
    """One finding on one line."""
    match finding:
        case Omission():
            verb = "failed" if finding.failed else "not measured"
            return f"{finding.what}: {verb}; {finding.why.rstrip('.')}."
        case Comparison():
            goal = f", goal {said}" if (said := goal_of(vars(finding), finding.reached)) else ""
            return f"{finding.what}: {finding.ratio:.3f} of {finding.theirs}{goal}"


def as_table(findings: Sequence[Finding]) -> str:
    """The comparisons as aligned columns, and below them what goes with them."""
    rows = [HEADINGS, *(row(found) for found in findings if isinstance(found, Comparison))]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]
    return "\n".join([*lines, *(line for found in findings for line in remarks(found))])


def row(found: Comparison) -> tuple[str, ...]:
    """The cells of one comparison."""
    return (
        found.what,
        f"{with_spread(found.our_seconds)} {found.ours}",
        f"{with_spread(found.their_seconds)} {found.theirs}",
        f"{found.ratio:.3f}",
        goal_of(vars(found), found.reached),
        rounds_of(found),
    )


def goal_of(finding: Mapping[str, Any], reached: bool | None) -> str:
    """What was aimed at and what came of it: `0.083: missed`; "" if nothing was aimed at.

    Args:
        finding: a comparison's values, by name.
    """
    aims = []
    if finding["goal"] is not None:
        aims.append(f"{finding['goal']:.3f}")
    if finding["goal_s"] is not None:
        aims.append(in_time(finding["goal_s"]))
    return f"{' and '.join(aims)}: {'reached' if reached else 'missed'}" if aims else ""


def rounds_of(found: Comparison) -> str:
    """How often each was run; one number if both were as often."""
    counts = [len(found.our_seconds), len(found.their_seconds)]
    return " and ".join(map(str, counts if counts[0] != counts[1] else counts[:1]))


def remarks(finding: Finding) -> list[str]:
    """What does not fit into the table."""
    if isinstance(finding, Omission):
        return [sentence(finding)]
    lines = []
    if finding.sizes:
        sizes = (f"{name} {in_bytes(size)}" for name, size in finding.sizes.items())
        lines.append(f"{finding.what}: sizes: {', '.join(sizes)}")
    if finding.larger:
        lines.append(f"{finding.what}: what {finding.ours} leaves is larger")
    if finding.note:
        lines.append(f"{finding.what}: {finding.note}")
    return lines


def with_spread(seconds: Sequence[float]) -> str:
    """The median, and behind it the fastest and the slowest round if there were several."""
    median = in_time(statistics.median(seconds))
    if len(seconds) == 1:
        return median
    return f"{median} ({in_time(min(seconds))} to {in_time(max(seconds))})"


def in_time(seconds: float) -> str:
    """`0.65 ms`, `230 ms` or `4.2 s`."""
    if seconds < 0.01:
        return f"{seconds * 1000:.2f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
