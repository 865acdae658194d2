"""When which stage starts: pure bookkeeping, which knows neither threads nor clocks.

Whoever uses it carries out the orders of `step`, reports what came of each, and asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from enum import Enum, auto
from typing import Any, Generic, Literal, Protocol, TypeVar

from tasks.core.capacity import Capacity, Cost

Verdict = Literal["fresh", "stale", "failed"]
Verb = Literal["start", "close"]


class Item(Protocol):
    """What is scheduled: a stage with its values."""

    @property
    def parents(self) -> tuple[Any, ...]:
        """The items that it stands on."""

    @property
    def is_live(self) -> bool:
        """Whether it stays open for those that stand on it, and leaves nothing to others."""


class State(Enum):
    """Where an item is. A live one goes from WORKING to OPEN, WORKING again, and OVER."""

    WAITING = auto()  # for those that it stands on
    IDLE = auto()  # live, and nobody needs it yet
    HELD = auto()  # for another one that will leave just what this one would
    READY = auto()  # to be started as soon as there is room
    WORKING = auto()
    OPEN = auto()
    OVER = auto()


N = TypeVar("N", bound=Item)


class Schedule(Generic[N]):
    """The course of one run.

    Args:
        items: all that may have to be done, each after those that it stands on.
        goals: the items that were asked for by name.
        cost: what an item takes; asked when it could start.
        look: whether an item must be made, now that all it stands on is known.
        outcome: what is the same of items of which only one is to be made, because the others
            would leave the same; asked after `look`.
    """

    def __init__(
        self,
        items: Sequence[N],
        goals: Collection[N],
        *,
        capacity: Capacity,
        cost: Callable[[N], Cost],
        look: Callable[[N], Verdict],
        outcome: Callable[[N], Hashable],
    ) -> None:
        self._goals = goals
        self._capacity = capacity
        self._cost = cost
        self._look = look
        self._outcome = outcome
        self._state = dict.fromkeys(items, State.WAITING)
        self._taken: dict[N, Cost] = {}
        self._failed: set[N] = set()
        self._making: dict[Hashable, N] = {}
        self._held: dict[N, N] = {}
        self._children: dict[N, list[N]] = {item: [] for item in items}
        for item in items:
            for parent in item.parents:
                if parent in self._children:
                    self._children[parent].append(item)

    # What to do

    def step(self) -> list[tuple[Verb, N]]:
        """What is to be started and closed now. Nothing, and not `busy`: all is over."""
        self._settle()
        closing = [item for item in self._in(State.OPEN) if self._is_unused(item)]
        for item in closing:
            self._state[item] = State.WORKING
        orders: list[tuple[Verb, N]] = [("close", item) for item in closing]
        return [*orders, *(("start", item) for item in self._start())]

    @property
    def busy(self) -> bool:
        """Whether something is at work, of which a report will come."""
        return any(True for _ in self._in(State.WORKING))

    def is_open(self, item: N) -> bool:
        """Whether a live item is there for those that stand on it."""
        return self._state[item] is State.OPEN

    # What came of it

    def opened(self, item: N) -> None:
        """A live item is there."""
        self._state[item] = State.OPEN

    def over(self, item: N, *, failed: bool = False) -> None:
        """An item was made or closed, or has failed, and with it all that stands on it."""
        self._state[item] = State.OVER
        self._taken.pop(item, None)
        if failed:
            self._failed.add(item)
        self._held.pop(item, None)
        self._making = {key: first for key, first in self._making.items() if first is not item}
        for other in [other for other, first in self._held.items() if first is item]:
            if failed:
                self.over(other, failed=True)
            else:
                del self._held[other]
                self._state[other] = State.WAITING  # for being looked at again

    # How it is decided

    def _settle(self) -> None:
        for item in self._in(State.WAITING, State.IDLE, State.HELD, State.READY):
            if any(parent in self._failed for parent in item.parents):
                self.over(item, failed=True)
            elif self._state[item] is State.WAITING and self._can_look(item):
                self._judge(item)
        # From the top down: what is wanted may want another one.
        for item in reversed(list(self._in(State.IDLE))):
            wanted = any(self._state[child] is State.READY for child in self._children[item])
            if wanted or (item in self._goals and self._is_unused(item)):
                self._state[item] = State.READY
            elif self._is_unused(item):
                self.over(item)

    def _judge(self, item: N) -> None:
        verdict = self._look(item)
        if verdict != "stale":
            self.over(item, failed=verdict == "failed")
        elif item.is_live:
            self._state[item] = State.IDLE
        elif (first := self._making.setdefault(self._outcome(item), item)) is item:
            self._state[item] = State.READY
        else:
            self._held[item] = first
            self._state[item] = State.HELD

    def _can_look(self, item: N) -> bool:
        # What a live item will be is known before it is there.
        return all(
            self._state.get(parent, State.OVER) is State.OVER
            or (parent.is_live and self._state[parent] is not State.WAITING)
            for parent in item.parents
        )

    def _is_unused(self, item: N) -> bool:
        return all(self._state[child] is State.OVER for child in self._children[item])

    def _start(self) -> Iterable[N]:
        # Who stands on something open goes first, so that it can be closed.
        ready = [item for item in self._in(State.READY) if self._has_its_ground(item)]
        ready.sort(key=lambda item: not any(parent.is_live for parent in item.parents))
        for item in ready:
            cost = self._cost(item)
            if self._fits(cost):
                yield self._started(item, cost)
        if ready and not self.busy:
            # Whatever holds what it wants is open and waits for others: nothing else would ever go
            # on.
            yield self._started(ready[0], self._cost(ready[0]))

    def _started(self, item: N, cost: Cost) -> N:
        self._taken[item] = cost
        self._state[item] = State.WORKING
        return item

    def _has_its_ground(self, item: N) -> bool:
        return all(
            self._state.get(parent, State.OVER) in (State.OPEN, State.OVER)
            for parent in item.parents
        )

    def _fits(self, cost: Cost) -> bool:
        if any(cost.holds & taken.holds for taken in self._taken.values()):
            return False
        working = len(list(self._in(State.WORKING)))
        # What is larger than the machine goes alone; what is open only waits for those who use it.
        return working == 0 or (
            working < self._capacity.stages and self._capacity.has_room(self._taken.values(), cost)
        )

    def _in(self, *states: State) -> Iterable[N]:
        return [item for item, state in self._state.items() if state in states]
