"""The time that a whole run may take (`--timeout`), whatever it waits for."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

from tasks.core.errors import TimedOut

# What waits for the deadline itself ends with a better message; this long it has for that.
GRACE_S = 5.0
SHORTEST_S = 1.0


class Deadline:
    """A moment in the future, `limit_s` seconds from when this is made."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._end = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """Seconds until then, and never less than SHORTEST_S: a limit for one more wait."""
        return max(self._end - time.monotonic(), SHORTEST_S)

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Stop the clock for the block: a person works in it, for as long as it takes."""
        since = time.monotonic()
        left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            yield
        finally:
            self._end += time.monotonic() - since
            signal.setitimer(signal.ITIMER_REAL, left_s)

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        """End the block by TimedOut if it lasts much longer; for the main thread only."""

        def expire(number: int, frame: FrameType | None) -> None:
            raise TimedOut(
                f"The run did not finish within {self.limit_s:.0f} s (--timeout).",
                hint="Finished stages are kept: run the same command again, with more time.",
            )

        before = signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, self.left_s + GRACE_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
