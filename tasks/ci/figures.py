"""The figures and phrases that every report begins with, so that all of them say the same."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.artifacts.checks import Outcome, Validation
from tasks.ci.data import ReportData, Size
from tasks.core.display import in_seconds

OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "error", "skipped")
# A smaller change is what updates of the distribution bring every week.
NOTABLE_GROWTH = 0.05


def verdict(data: ReportData) -> str:
    """The result of the run in some words."""
    total = len(data.judged)
    bad = sum(not item.passed for item in data.judged)
    if not total:
        return "No image was validated"
    if not bad and not data.passed:
        return "The images passed, but not all around them"
    if not bad:
        return f"All {total} images passed" if total > 1 else "The image passed"
    return f"{bad} of {total} images failed" if total > 1 else "The image failed"


def count_all(validations: Iterable[Validation]) -> dict[Outcome, int]:
    """How many checks of all images ended in each way."""
    counts: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
    for validation in validations:
        for check in validation.checks:
            counts[check.outcome] += 1
    return counts


def ssh_after(validation: Validation) -> str:
    """When SSH answered; "" if it didn't or nobody looked."""
    found = next((mark for mark in validation.boot if "ssh" in mark.name.lower()), None)
    return in_seconds(found.seconds) if found else ""


def growth(size: Size | None) -> float | None:
    """By which share an artifact grew since the last run; None if there is nothing to compare."""
    if size is None or size.now_bytes is None or not size.last_bytes:
        return None
    return size.now_bytes / size.last_bytes - 1


def change(size: Size) -> str:
    """The growth for people: `+1.2 %`, `new`, `gone`."""
    if size.now_bytes is None:
        return "gone"
    share = growth(size)
    if share is None:
        return "new"
    if size.now_bytes == size.last_bytes:
        return "unchanged"
    return in_percent(share)


def notable(size: Size | None) -> str:
    """The growth, if it is large enough to be looked at; else ""."""
    share = growth(size)
    return in_percent(share) if share is not None and abs(share) >= NOTABLE_GROWTH else ""


def in_percent(share: float) -> str:
    """`+1.2 %`, with a true minus sign where it shrank."""
    return f"{share * 100:+.1f} %".replace("-", "\N{MINUS SIGN}")
