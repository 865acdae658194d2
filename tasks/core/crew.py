"""Stages at work, each in a thread of its own, and how all of them are ended at once.

A thread, because everything that a stage does is waiting for programs. One for each and no pool,
because Linux ends a program that is tied to our life when the thread that started it ends: see
PR_SET_PDEATHSIG in prctl(2). A live stage's thread lasts as long as what it opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import CodeType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
SHORT_S = 0.001
UNBROKEN_S = 1.0


class Interrupted(SystemExit):
    """Raised in a stage's thread wherever it is, as KeyboardInterrupt is in the main one."""


@dataclass(frozen=True, kw_only=True)
class News(Generic[T]):
    """That a worker has got somewhere.

    Args:
        opened: what it opened is there, and it waits until that may be closed.
        error: how it ended, if that was not in order.
    """

    work: T
    opened: bool = False
    error: BaseException | None = None


class Worker(threading.Thread):
    """A thread that can be interrupted.

    Args:
        tell: called last, with how the work ended if that was not in order.
    """

    def __init__(
        self, work: Callable[[], None], tell: Callable[[BaseException | None], None], name: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._tell = tell
        self._wakers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._done = False
        self._interrupted = False

    def run(self) -> None:
        error: BaseException | None = None
        try:
            try:
                self._work()
            finally:
                with self._lock:
                    self._done = True
                # An interruption that has come too late must not hit what follows.
                raise_in(threading.get_ident(), None)
        except BaseException as raised:  # noqa: BLE001 - the main thread raises it again
            error = raised
        if error is not None and self._interrupted:
            error = Interrupted()  # whatever was in the way of what it did was the interruption
        self._tell(error)

    def interrupt(self) -> bool:
        """Have it raise Interrupted, and wake it up if it waits; False: not now, try again."""
        if not self._raise():
            return False
        with self._lock:
            wakers = list(self._wakers)
        for wake in reversed(wakers):
            wake()
        return True

    def _raise(self) -> bool:
        with self._lock, unbroken():
            if self._done or self.ident is None:
                return True
            if is_in(self.ident, WHOLE):
                return False
            self._interrupted = True
            raise_in(self.ident, Interrupted)
            return True

    @contextlib.contextmanager
    def woken_by(self, wake: Callable[[], None]) -> Iterator[None]:
        """While the block lasts, `wake` is called when this thread is interrupted."""
        with self._lock:
            self._wakers.append(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)


def raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an exception in a thread, as soon as that runs Python code; None takes it back.

    PyThreadState_SetAsyncExc of Python's C interface, the only way to do it.
    """
    what = ctypes.py_object(error) if error else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


# The functions in which a worker is not interrupted, nor in what they call. Until a thread that
# is being started runs, CPython (3.11) has it under the identity of the one that starts it, and
# would raise in it what is meant for the other, which then waits for its start for ever.
WHOLE = {threading.Thread.start.__code__}


def whole(function: F) -> F:
    """Have a function run to its end, once it has begun, before its worker is interrupted.

    For what would leave behind, if it were left in the middle, what nobody knows of. If it is
    called plainly, not by `*args`, a decorator's wrapper or C, the next statement is reached, too,
    so that it can be a `try`: CPython looks for exceptions from outside when it enters a function
    or comes back from C, not when a function of Python's returns.
    """
    WHOLE.add(function.__code__)
    return function


def is_in(thread: int, codes: Container[CodeType]) -> bool:
    """Whether a thread is within a call of one of these functions."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Let no other thread run Python code between two steps of this one, as far as can be had."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(UNBROKEN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def waking(wake: Callable[[], None]) -> Iterator[None]:
    """Have `wake` called if this thread is interrupted while it waits in the block.

    An exception cannot reach a thread that waits outside Python, for a lock or for bytes. `wake`
    runs in another thread and must not take long.
    """
    worker = threading.current_thread()
    if isinstance(worker, Worker):
        with worker.woken_by(wake):
            yield
    else:
        yield  # the main thread's waiting ends by the signal


class Crew(Generic[T]):
    """The workers of one run; everything here is for the main thread."""

    def __init__(self) -> None:
        self._news: SimpleQueue[News[T]] = SimpleQueue()
        self._workers: dict[T, Worker] = {}
        self._closing: dict[T, threading.Event] = {}
        self._open: set[T] = set()

    def start(self, work: T, body: Callable[[], None], name: str) -> None:
        """Run `body` beside everything else."""

        def tell(error: BaseException | None) -> None:
            self._news.put(News(work=work, error=error))

        worker = self._workers[work] = Worker(body, tell, name)
        worker.start()

    def open(self, work: T, opening: contextlib.AbstractContextManager[None], name: str) -> None:
        """Enter `opening`; there are news when it has been entered, and when it has been left."""
        closing = self._closing[work] = threading.Event()

        def hold() -> None:
            with opening:
                self._open.add(work)
                self._news.put(News(work=work, opened=True))
                closing.wait()

        self.start(work, hold, name)

    def close(self, work: T) -> None:
        """Leave what was opened."""
        self._closing[work].set()

    def next(self) -> News[T]:
        """Wait for the next thing that a worker has to tell."""
        return self._news.get()

    def end(self) -> list[News[T]]:
        """Interrupt all that work, then close what is open; returns what has not been told yet.

        Whatever the caller was about to do when an exception brought it here, this asks the
        threads and nobody else.
        """
        working = [work for work in self._workers if work not in self._open]
        left = working
        while left := [work for work in left if not self._workers[work].interrupt()]:
            # Nobody tells when a thread leaves a function that is whole.
            time.sleep(SHORT_S)
        for work in working:
            if work in self._closing:
                self.close(work)  # it may have come to be open in this moment
        self._wait(working)
        # The newest first: it may stand on an older one.
        for work in reversed(self._workers):
            if work in self._open:
                self.close(work)
                self._wait([work])
        untold = []
        with contextlib.suppress(Empty):
            while True:
                untold.append(self._news.get_nowait())
        return untold

    def _wait(self, works: Iterable[T]) -> None:
        for work in works:
            # One that was about to be started has no identity yet.
            if self._workers[work].ident is not None:
                self._workers[work].join()
