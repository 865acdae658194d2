"""What a check of the doctor found: fine, a warning, or broken with its fix."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a finding bears on the main job."""

    OK = "ok"
    WARNING = "warning"  # the job runs, slower or without something beside it
    BROKEN = "broken"  # the job cannot run


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is there, in one phrase, and the command that mends it.

    Args:
        name, needs: those of the check if empty.
    """

    outcome: Outcome
    detail: str
    fix: str = ""
    name: str = ""
    needs: str = ""


def fine(detail: str, *, name: str = "", needs: str = "") -> Finding:
    """What the job needs is there."""
    return Finding(outcome=Outcome.OK, detail=detail, name=name, needs=needs)


def warning(detail: str, fix: str, *, name: str = "", needs: str = "") -> Finding:
    """The job runs all the same."""
    return Finding(outcome=Outcome.WARNING, detail=detail, fix=fix, name=name, needs=needs)


def broken(detail: str, fix: str, *, name: str = "", needs: str = "") -> Finding:
    """The job cannot run before this is mended."""
    return Finding(outcome=Outcome.BROKEN, detail=detail, fix=fix, name=name, needs=needs)
