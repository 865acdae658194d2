"""What people see: a live line and a bar on a terminal, plain lines elsewhere, one table."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from tqdm import tqdm

from tasks.core import display
from tasks.core.display import Plain, Row, Terminal, describe, for_stream, in_bytes, in_seconds
from tasks.core.errors import BadInput, CompileFailed, SeveralFailed
from tasks.core.events import Reporter

# The only control sequence that tqdm uses: one line up.
UP = r"\x1b\[A"
MB = 1_000_000


class Screen:
    """Our end of a pseudo-terminal: what was drawn on it so far."""

    def __init__(self, ours: int) -> None:
        self._ours = ours
        self._seen = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        # Linux reports the end of a terminal's other side as an error.
        try:
            while data := os.read(self._ours, 65536):
                self._seen += data
        except OSError:
            pass

    @property
    def text(self) -> str:
        return self._seen.decode()

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + 10
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, f"{pattern!r} never came:\n{self.text!r}"
            time.sleep(0.01)

    def lines(self) -> list[str]:
        """What is left to be read on the screen in the end."""
        rows: dict[int, list[str]] = {}
        row = column = 0
        for part in re.findall(rf"{UP}|.", self.text, re.DOTALL):
            match part:
                case "\r":
                    column = 0
                case "\n":
                    row += 1
                case "\x1b[A":
                    row -= 1
                case _:
                    cells = rows.setdefault(row, [" "] * 200)
                    cells[column] = part
                    column += 1
        texts = ["".join(rows[row]).rstrip() for row in sorted(rows)]
        return [text for text in texts if text]


@contextmanager
def terminal(columns: int = 100) -> Iterator[tuple[TextIO, Screen]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        screen = Screen(ours)
        yield stream, screen
    # Else it would read from whatever gets this number next.
    screen.reader.join()
    os.close(ours)


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(display, "REFRESH_S", 0.02)


@pytest.fixture(autouse=True)
def no_line_left() -> Iterator[None]:
    """A line that a failed test left open would move those of the next one."""
    yield
    for line in list(vars(tqdm).get("_instances", ())):
        line.close()


def test_a_terminal_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as (stream, _):
        assert isinstance(for_stream(stream), Terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(for_stream(stream), Plain)
    assert isinstance(for_stream(io.StringIO()), Plain)


def test_a_stage_has_one_live_line_whose_clock_goes() -> None:
    with terminal() as (stream, screen):
        shown = for_stream(stream)
        reporter = shown.start("vexfs.boot")
        screen.wait_for(r"⏵ vexfs\.boot  \d+\.\d s")
        reporter.say("waiting for cloud-init")
        screen.wait_for("· waiting for cloud-init")
        screen.wait_for(r"⏵ vexfs\.boot  \d+\.[1-9] s · waiting for cloud-init")
        assert "\n" not in screen.text.replace("\r\n", "\n").strip("\n")
        shown.end(Row(name="vexfs.boot", outcome="done", seconds=81))
        shown.say("the end")
        screen.wait_for("the end")
        assert screen.lines() == ["✔ vexfs.boot  1 min 21 s", "the end"]


def test_a_size_has_a_bar() -> None:
    with terminal() as (stream, screen):
        shown = for_stream(stream)
        reporter = shown.start("vexfs.compress")
        reporter.say("compressing with zstd")
        reporter.progress(0, 64 << 20)
        deadline = time.monotonic() + 10
        while not re.search(r"compressing with zstd:\s+50%\|█+.*32\.0M/64\.0M", screen.text):
            assert time.monotonic() < deadline, screen.text
            reporter.progress(32 << 20, 64 << 20)
            reporter.progress((32 << 20) - 1, 64 << 20)
            time.sleep(0.01)
        reporter.say("done")
        shown.end(Row(name="vexfs.compress", outcome="failed", seconds=4.25))
        screen.wait_for("✘ vexfs.compress  4.2 s")
        assert screen.lines() == ["✘ vexfs.compress  4.2 s"]


def test_an_unknown_total_is_counted_in_the_line() -> None:
    with terminal() as (stream, screen):
        shown = for_stream(stream)
        reporter = shown.start("vexfs.fetch")
        reporter.say("downloading")
        for done in (1, 2, 3):
            reporter.progress(done * MB, None)
        screen.wait_for("downloading · 3.0 MB")
        assert "2.0 MB · 3.0 MB" not in screen.text
        shown.end(Row(name="vexfs.fetch", outcome="done", seconds=1))


def test_what_is_to_stay_stays_above_the_live_line() -> None:
    with terminal() as (stream, screen):
        shown = for_stream(stream)
        reporter = shown.start("vexfs.boot")
        reporter.tell("tcg: /dev/kvm is missing")
        shown.end(Row(name="vexfs.boot", outcome="done", seconds=1))
        screen.wait_for("✔ vexfs.boot")
        assert screen.lines() == [
            "  vexfs.boot: tcg: /dev/kvm is missing",
            "✔ vexfs.boot  1.0 s",
        ]


def test_a_long_line_does_not_wrap() -> None:
    with terminal(columns=40) as (stream, screen):
        shown = for_stream(stream)
        shown.start("vexfs.boot").say("x" * 200)
        screen.wait_for("xxx")
        shown.end(Row(name="vexfs.boot", outcome="done", seconds=1))
        screen.wait_for("✔ vexfs.boot")
        drawn = re.sub(UP, "", screen.text).replace("\n", "\r").split("\r")
        assert max(len(part) for part in drawn) <= 40


def plain_run() -> tuple[str, Reporter]:
    stream = io.StringIO()
    shown = Plain(stream)
    reporter = shown.start("vexfs.compress")
    reporter.say("compressing")
    reporter.say("compressing")
    for done in range(0, 100 * MB + 1, MB):
        reporter.progress(done, 100 * MB)
    reporter.progress(5, None)
    reporter.tell("kept")
    shown.end(Row(name="vexfs.compress", outcome="done", seconds=4.26))
    shown.end(Row(name="vexfs.seal", outcome="fresh", seconds=0))
    return stream.getvalue(), reporter


def test_plain_lines_are_few_and_have_no_control_codes() -> None:
    text, _ = plain_run()
    assert all(char.isprintable() or char == "\n" for char in text)
    tenths = [f"vexfs.compress: {share} % of 100.0 MB" for share in range(10, 101, 10)]
    assert text.splitlines() == [
        "vexfs.compress: started",
        "vexfs.compress: compressing",
        *tenths,
        "vexfs.compress: kept",
        "vexfs.compress: done after 4.3 s",
    ]


def test_the_table_has_every_stage_with_its_time() -> None:
    rows = [
        Row(name="vexfs.build-cloudimg", outcome="fresh", seconds=0),
        Row(name="vexfs.boot", outcome="interrupted", seconds=125, note="tcg"),
    ]
    assert display.table(rows).splitlines() == [
        "  vexfs.build-cloudimg  fresh",
        "  vexfs.boot            interrupted 2 min 05 s  tcg",
    ]
    assert display.table([]) == ""


def test_an_error_is_told_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = CompileFailed(
        "It failed.", hint="Fix it.", log=tmp_path / "logs" / "x.log", tail=("a.c:1: error", "^")
    )
    assert describe(error) == (
        "error: It failed.\n  | a.c:1: error\n  | ^\nFix it.\nFull log: logs/x.log"
    )
    assert describe(CompileFailed("Short.")) == "error: Short."


def test_figures_are_for_people() -> None:
    assert [in_seconds(s) for s in (0, 59.94, 60, 3599)] == [
        "0.0 s",
        "59.9 s",
        "1 min 00 s",
        "59 min 59 s",
    ]
    assert [in_bytes(size) for size in (0, 999, 1000, 12_345_678, 5 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "5.0 TB",
    ]


def test_stages_at_the_same_time_have_a_line_each_and_leave_no_gap() -> None:
    with terminal() as (stream, screen):
        shown = for_stream(stream)
        boot, tools = shown.start("vexfs.boot"), shown.start("vexfs.toolchain")
        boot.say("waiting for cloud-init")
        tools.progress(5 * MB, 10 * MB)
        screen.wait_for(r"⏵ vexfs\.boot  \d+\.\d s · waiting for cloud-init")
        screen.wait_for(r"⏵ vexfs\.toolchain  \d+\.\d s")
        screen.wait_for(r"vexfs\.toolchain:\s+0%\|")
        boot.tell("it is up")
        shown.end(Row(name="vexfs.boot", outcome="done", seconds=2))
        third = shown.start("vexfs.seal")
        third.say("sealing")
        screen.wait_for("· sealing")
        tools.say("unpacking")
        screen.wait_for("· unpacking")
        shown.end(Row(name="vexfs.toolchain", outcome="failed", seconds=3))
        shown.end(Row(name="vexfs.seal", outcome="done", seconds=1))
        shown.say("the end")
        screen.wait_for("the end")
        assert screen.lines() == [
            *("  vexfs.boot: it is up", "✔ vexfs.boot  2.0 s"),
            *("✘ vexfs.toolchain  3.0 s", "✔ vexfs.seal  1.0 s", "the end"),
        ]


def test_the_lines_that_are_left_move_up() -> None:
    with terminal() as (stream, _):
        shown = for_stream(stream)
        for name in ("a", "b", "c"):
            shown.start(name)
        shown.end(Row(name="a", outcome="done", seconds=1))
        places = sorted(abs(line.pos) for line in vars(tqdm)["_instances"])
        assert places == [0, 1]
        for name in ("b", "c"):
            shown.end(Row(name=name, outcome="done", seconds=1))


def test_plain_lines_of_stages_at_the_same_time_are_whole() -> None:
    stream = io.StringIO()
    shown = Plain(stream)

    def chatter(reporter: Reporter) -> None:
        for _ in range(99):
            reporter.tell("x" * 99)

    threads = [
        threading.Thread(target=chatter, args=[shown.start(name)]) for name in ("left", "right")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 + 2 * 99
    assert {line.partition(":")[2] for line in lines} == {" started", f" {'x' * 99}"}


def test_several_failures_are_told_one_after_the_other() -> None:
    first, second = CompileFailed("The bread burnt.", tail=("smoke",)), BadInput("No salt.")
    error = SeveralFailed([first, second, first])
    assert describe(error) == "error: The bread burnt.\n  | smoke\n\nerror: No salt."
    assert error.exit_code == CompileFailed.exit_code


def test_a_program_has_the_terminal_to_itself() -> None:
    with terminal() as (stream, screen):
        reporter = for_stream(stream).start("vexfs.shell")
        screen.wait_for("vexfs.shell")
        ticks = threading.Event()
        with reporter.aside():
            stream.write("MINE")
            stream.flush()
            screen.wait_for("MINE$")
            # The clock goes on ticking meanwhile: what it would draw came within this time.
            ticks.wait(10 * display.REFRESH_S)
            reporter.say("heard from the guest")
            assert screen.text.endswith("MINE")
        screen.wait_for("MINE.*heard from the guest")
        reporter.close()  # type: ignore[attr-defined]


def test_plain_lines_need_no_room() -> None:
    stream = io.StringIO()
    reporter = for_stream(stream).start("vexfs.shell")
    with reporter.aside():
        pass
    assert stream.getvalue() == "vexfs.shell: started\n"
