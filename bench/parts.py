"""The parts of a run, each of which may fail, or have no way to run here, without the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bench.measure import Finding, Omission
from tasks.core.errors import CannotRun, MissingTool, VmbakeError


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some comparisons that are made together.

    Args:
        what: is said not to be measured if they can't be made.
    """

    what: str
    measure: Callable[[], Iterable[Finding]]


def left_out(what: str, why: str) -> Part:
    """A part that is not for this run."""
    return Part(what=what, measure=lambda: [Omission(what=what, why=why)])


def findings_of(parts: Iterable[Part]) -> Iterator[Finding]:
    """Each finding as it is made, and what keeps a part from making more."""
    for part in parts:
        try:
            yield from part.measure()
        except Exception as error:  # noqa: BLE001 - the others are to be measured, whatever it is
            yield omission(part.what, error)


def omission(what: str, error: Exception) -> Omission:
    """What is said of something that an error has ended.

    What is no VmbakeError is a bug, or the fault of something that no task would use; its traceback
    is shown, and the run goes on.
    """
    if isinstance(error, MissingTool | CannotRun):
        return Omission(what=what, why=str(error))
    if not isinstance(error, VmbakeError):
        traceback.print_exception(error)
        return Omission(what=what, why=f"{type(error).__name__}: {error}", failed=True)
    log = f" Log: {error.log}" if error.log else ""
    return Omission(what=what, why=f"{error}{log}", failed=True)
