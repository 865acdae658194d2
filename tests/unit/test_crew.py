"""Threads that can be interrupted wherever they are, and how a run ends all of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.core.crew import Crew, Interrupted, waking
from tasks.core.process import Runner
from tasks.qemu.watch import Trouble, Watch

LONG_S = 600.0


@pytest.fixture
def crew() -> Crew[str]:
    return Crew()


def test_news_come_as_work_ends(crew: Crew[str]) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    crew.start("good", lambda: None, "good")
    assert crew.next().error is None
    crew.start("bad", fail, "bad")
    news = crew.next()
    assert news.work == "bad"
    assert isinstance(news.error, ZeroDivisionError)


def test_what_is_open_stays_in_the_thread_that_opened_it(crew: Crew[str]) -> None:
    threads: list[int] = []

    @contextlib.contextmanager
    def door() -> Iterator[None]:
        threads.append(threading.get_ident())
        yield
        threads.append(threading.get_ident())

    crew.open("door", door(), "door")
    assert crew.next().opened
    assert len(threads) == 1
    crew.close("door")
    news = crew.next()
    assert (news.opened, news.error) == (False, None)
    assert len(set(threads)) == 1


def test_a_thread_in_python_is_interrupted_where_it_is(crew: Crew[str]) -> None:
    started, cleaned = threading.Event(), []

    def turn() -> None:
        started.set()
        try:
            while True:
                time.sleep(0.001)
        finally:
            cleaned.append(True)

    crew.start("turn", turn, "turn")
    assert started.wait(LONG_S)
    (news,) = crew.end()
    assert isinstance(news.error, Interrupted)
    assert cleaned == [True]


def test_a_thread_that_waits_outside_python_is_woken(crew: Crew[str], tmp_path: Path) -> None:
    """The three ways in which stages wait: for a program, for a machine, for an event."""
    watch = Watch(tmp_path / "console.log", lambda _: None, lambda: Trouble(what="it ended"))
    event = threading.Event()
    runner = Runner(tmp_path / "log", timeout_s=LONG_S)

    def wait() -> None:
        with waking(event.set):
            event.wait(LONG_S)

    crew.start("program", lambda: runner.run(["sleep", "600"]), "program")
    crew.start("machine", lambda: watch.pause(LONG_S), "machine")
    crew.start(
        "ready", lambda: watch.wait(lambda: None, timeout_s=LONG_S, what="be ready"), "ready"
    )
    crew.start("event", wait, "event")
    deadline = time.monotonic() + 30
    while not runner.log.exists() or "sleep" not in runner.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    untold = crew.end()
    assert {news.work for news in untold} == {"program", "machine", "ready", "event"}
    assert all(isinstance(news.error, Interrupted) for news in untold)


@pytest.mark.parametrize("way", ["run", "start", "hand_over"])
def test_a_program_is_not_left_behind_by_who_is_interrupted_while_starting_it(
    crew: Crew[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    started: list[int] = []

    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self.pid)
            for _ in range(100):
                time.sleep(0.001)

    monkeypatch.setattr("tasks.core.process.subprocess.Popen", Slow)
    runner, words = Runner(tmp_path / "log"), ["sleep", "600"]

    def work() -> None:
        if way == "start":
            with runner.start(words):
                while True:
                    time.sleep(0.001)
        getattr(runner, way)(words)

    crew.start("work", work, "work")
    deadline = time.monotonic() + 30
    while not started:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    (news,) = crew.end()
    assert isinstance(news.error, Interrupted)
    with pytest.raises(ChildProcessError):
        os.waitpid(started[0], os.WNOHANG)


def test_what_is_open_is_closed_after_the_work_the_newest_first(crew: Crew[str]) -> None:
    order: list[str] = []

    @contextlib.contextmanager
    def opening(name: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            order.append(f"{name} broken")
            raise
        order.append(name)

    for name in ("oven", "pot"):
        crew.open(name, opening(name), name)
        assert crew.next().opened
    started = threading.Event()

    def cook() -> None:
        started.set()
        try:
            while True:
                time.sleep(0.001)
        finally:
            order.append("cook")

    crew.start("cook", cook, "cook")
    assert started.wait(LONG_S)
    crew.end()
    assert order == ["cook", "pot", "oven"]


def test_whatever_fails_because_of_the_interruption_is_one(crew: Crew[str]) -> None:
    woken = threading.Event()

    def stubborn() -> None:
        with waking(woken.set):
            try:
                woken.wait(LONG_S)
                time.sleep(0)
            except Interrupted:
                raise ValueError("the program was killed") from None

    crew.start("stubborn", stubborn, "stubborn")
    time.sleep(0)
    (news,) = crew.end()
    assert isinstance(news.error, Interrupted)


def test_an_interruption_that_comes_too_late_hurts_nobody(crew: Crew[str]) -> None:
    for number in range(50):
        crew.start(str(number), lambda: None, "quick")
    told = {news.work for news in crew.end()}
    assert told == {str(number) for number in range(50)}


def test_outside_a_worker_nothing_needs_waking() -> None:
    def never() -> None:
        raise AssertionError

    with waking(never):
        pass


def test_a_program_that_has_the_terminal_ends_with_its_thread(
    crew: Crew[str], tmp_path: Path
) -> None:
    runner, started = Runner(tmp_path / "log"), tmp_path / "started"
    words = ["sh", "-c", f"echo $$ > {started}; exec sleep 600"]
    crew.start("shell", lambda: print(runner.hand_over(words)), "shell")
    deadline = time.monotonic() + 30
    while not started.exists() or not started.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (news,) = crew.end()
    assert isinstance(news.error, Interrupted)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
