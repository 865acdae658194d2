"""Shows findings: a sentence as each comes in, a table at the end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.measure import Comparison, Finding, Omission
from tasks.core.display import in_bytes

HEADINGS = ("what", "vmbake", "other way", "ratio", "goal", "rounds")


def sentence(finding: Finding) -> str:
    """One finding on one line."""
    match finding:
        case Omission():
            return f"{finding.what}: not measured; {finding.why}."
        case Comparison():
            return f"{finding.what}: {finding.ratio:.2f} of {finding.theirs}"


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
        "" if found.goal is None else f"{found.goal:.3f}",
        str(len(found.our_seconds)),
    )


def remarks(finding: Finding) -> list[str]:
    """What does not fit into the table."""
    if isinstance(finding, Omission):
        return [sentence(finding)]
    lines = []
    if finding.sizes:
        sizes = (f"{name} {in_bytes(size)}" for name, size in finding.sizes.items())
        lines.append(f"{finding.what}: sizes: {', '.join(sizes)}")
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
