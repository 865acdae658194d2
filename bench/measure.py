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
        goal_s: the most seconds that we were to take, whatever the other way takes; None: any.
        note: what a reader of the figure must know.
    """

    what: str
    ours: str
    theirs: str
    our_seconds: tuple[float, ...]
    their_seconds: tuple[float, ...]
    sizes: dict[str, int] = field(default_factory=dict)
    goal: float | None = None
    goal_s: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """Our median over theirs: below 1 we are faster."""
        return statistics.median(self.our_seconds) / statistics.median(self.their_seconds)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None if there is none.

        Where both ways left a file, ours must not be larger: fast is easy then.
        """
        if self.goal is None and self.goal_s is None:
            return None
        return (
            (self.goal is None or self.ratio <= self.goal)
            and (self.goal_s is None or statistics.median(self.our_seconds) <= self.goal_s)
            and not self.larger
        )

    @property
    def larger(self) -> bool:
        """Whether what we leave is larger than what the other way leaves."""
        ours, theirs = self.sizes.get(self.ours), self.sizes.get(self.theirs)
        return ours is not None and theirs is not None and ours > theirs


@dataclass(frozen=True, kw_only=True)
class Omission:
    """A comparison that was not made, and why.

    Args:
        failed: it was tried; else there was no way to, or no wish.
    """

    what: str
    why: str
    failed: bool = False


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
    warm_up: bool = True,
    sizes: Callable[[], dict[str, int]] = dict,
    goal: float | None = None,
    goal_s: float | None = None,
    note: str = "",
) -> Comparison:
    """Run both ways `rounds` times, by turns, so that a busy machine is busy for both.

    Args:
        warm_up: run each once before, uncounted: it fills the page cache and loads programs.
    """
    if warm_up:
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
        goal_s=goal_s,
        note=note,
    )
