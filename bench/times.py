"""The seconds of cases that are run in several rounds, and why some have none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from bench.measure import Omission, seconds_of
from bench.parts import omission


class Times:
    """Seconds by case. A case that failed once is not tried again: it may take long to fail."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._missing: dict[str, Omission] = {}

    def take(self, case: str, run: Callable[[], object], *, after: str = "") -> None:
        """Run a case once, unless it has failed, or what it begins with has.

        Args:
            after: the case whose results it begins with; "": none.
        """
        if after in self._missing:
            self._missing.setdefault(case, self._missing[after])
        if case in self._missing:
            return
        try:
            self._seconds[case].append(seconds_of(run))
        except Exception as error:  # noqa: BLE001 - the others are to be measured, whatever it is
            self._missing[case] = omission(case, error)

    def leave_out(self, case: str, why: str) -> None:
        """Say why a case can't be tried."""
        self._missing[case] = Omission(what=case, why=why)

    def of(self, *cases: str) -> tuple[float, ...]:
        """The seconds by round; of several cases, what they took together."""
        rounds = zip(*(self._seconds[case] for case in cases), strict=False)
        return tuple(map(sum, rounds))

    def why_not(self, what: str, *cases: str) -> Omission | None:
        """What is said of a comparison of cases, one of which has no seconds; None: all have."""
        for case in cases:
            if not self._seconds[case]:
                missing = self._missing.get(case, Omission(what=case, why="it was not tried"))
                return Omission(what=what, why=missing.why, failed=missing.failed)
        return None

    def broken_off(self) -> Iterator[Omission]:
        """The cases that failed after they had run well."""
        for case, missing in self._missing.items():
            if done := len(self._seconds[case]):
                what = f"{case}, round {done + 1}"
                yield Omission(what=what, why=missing.why, failed=missing.failed)
