"""The limit of a run, while a person works in it."""

from __future__ import annotations

import signal

import pytest

from tasks.core import deadline as module
from tasks.core.deadline import Deadline
from tasks.core.errors import TimedOut


def alarm_s() -> float:
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_a_lifted_deadline_stands_still() -> None:
    deadline = Deadline(60)
    with deadline.enforced():
        assert 0 < alarm_s() <= 60 + module.GRACE_S
        with deadline.lifted():
            assert alarm_s() == 0
        assert 0 < alarm_s() <= 60 + module.GRACE_S
    assert alarm_s() == 0


def test_what_was_left_is_left_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("tasks.core.deadline.time.monotonic", lambda: now)
    deadline = Deadline(60)
    with deadline.lifted():
        now += 3600
    assert deadline.left_s == 60


def test_it_holds_again_after_the_block() -> None:
    deadline = Deadline(60)
    with deadline.enforced():
        with deadline.lifted():
            pass
        with pytest.raises(TimedOut):
            signal.raise_signal(signal.SIGALRM)
