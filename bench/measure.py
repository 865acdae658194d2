"""Times two ways to do one thing, turn by turn, and keeps every figure."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to do the thing: what it is called, and a call that does it once."""

    name: str
    run: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two ways, in seconds by round, in the order in which they ran.

    Args:
        sizes: bytes that each way left, by its name; {} if size is not the point.
        goal: the largest ratio that was aimed at; None: none was.
        note: what a reader of the figure must know.
    """

    what: str
    ours: str
    theirs: str
    our_seconds: tuple[float, ...]
    their_seconds: tuple[float, ...]
    sizes: dict[str, int] = field(default_factory=dict)
    goal: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """Our median over theirs: below 1 we are faster."""
        return statistics.median(self.our_seconds) / statistics.median(self.their_seconds)


@dataclass(frozen=True, kw_only=True)
class Omission:
    """A comparison that was not made, and why."""

    what: str
    why: str


Finding = Comparison | Omission


def seconds_of(run: Callable[[], object]) -> float:
    """How long one call takes by the wall clock."""
    since = time.perf_counter()
    run()
    return time.perf_counter() - since


def compare(
    what: str,
    ours: Way,
    theirs: Way,
    *,
    rounds: int,
    sizes: Callable[[], dict[str, int]] = dict,
    goal: float | None = None,
    note: str = "",
) -> Comparison:
    """Run both ways `rounds` times, by turns, so that a busy machine is busy for both.

    One run of each comes before and isn't counted: it fills the page cache and loads programs.
    """
    ours.run()
    theirs.run()
    pairs = [(seconds_of(ours.run), seconds_of(theirs.run)) for _ in range(rounds)]
    our_seconds, their_seconds = zip(*pairs, strict=True)
    return Comparison(
        what=what,
        ours=ours.name,
        theirs=theirs.name,
        our_seconds=our_seconds,
        their_seconds=their_seconds,
        sizes=sizes(),
        goal=goal,
        note=note,
    )
