"""What people see of validations on the terminal: the groups of each image, and the failures."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.artifacts.checks import Check, Outcome, Validation
from tasks.core.display import in_seconds
from tasks.validate.catalogue import GROUPS

OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "error", "skipped")
BAD = ("failed", "error")


def line_of(check: Check) -> str:
    """One check in one line."""
    reason = f": {check.reason}" if check.reason else ""
    return f"{check.outcome}  {check.group}: {check.name}{reason}"


def title(validation: Validation) -> str:
    """An image and how it went."""
    how = "passed" if validation.passed else "failed"
    where = f"{validation.accel}, {validation.firmware}"
    return f"{validation.image} ({where}): {how} after {in_seconds(validation.seconds)}"


def table(validations: Iterable[Validation]) -> str:
    """All images with their groups, failures below each."""
    lines = []
    for validation in validations:
        lines.append(title(validation))
        if validation.error:
            lines.append(f"  {validation.error}")
            lines += [f"  | {line}" for line in validation.console[-10:]]
        for group in GROUPS:
            checks = [check for check in validation.checks if check.group == group]
            if checks:
                lines.append(f"  {group:<14} {counts(checks)}")
                lines += [f"    {line_of(check)}" for check in checks if check.outcome in BAD]
    return "\n".join(lines)


def counts(checks: list[Check]) -> str:
    """`7 passed, 1 failed`."""
    numbers = {o: sum(check.outcome == o for check in checks) for o in OUTCOMES}
    return ", ".join(f"{number} {outcome}" for outcome, number in numbers.items() if number)
