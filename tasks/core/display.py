"""What people see of a run on stderr: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from tasks.core.errors import SeveralFailed, VmbakeError
from tasks.core.events import StageReporter

if TYPE_CHECKING:
    from tqdm import tqdm

Outcome = Literal["fresh", "done", "failed", "interrupted"]
REFRESH_S = 0.5
# A line per tenth of a long transfer is enough for a log.
PLAIN_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stage in the table at the end of a run."""

    name: str
    outcome: Outcome
    seconds: float
    note: str = ""


class Display(Protocol):
    """Shows the stages of a run as they go."""

    def start(self, name: str) -> StageReporter:
        """A stage begins; its reports go to what is returned."""

    def end(self, row: Row) -> None:
        """A stage has ended, or is open and stays so, or was found fresh."""

    def say(self, text: str) -> None:
        """A line about the run as a whole."""


def for_stream(stream: TextIO) -> Display:
    """Live lines if `stream` is a terminal that can show them, else plain lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return Terminal(stream)
    return Plain(stream)


class Plain:
    """One line for each thing that happens; no control codes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def start(self, name: str) -> StageReporter:
        self.say(f"{name}: started")
        return PlainReporter(name, self)

    def end(self, row: Row) -> None:
        if row.outcome != "fresh":
            self.say(f"{row.name}: {row.outcome} after {row.seconds:.1f} s")

    def say(self, text: str) -> None:
        # In one piece: stages that run at the same time write lines at the same time.
        with self._lock:
            self._stream.write(f"{text}\n")
            self._stream.flush()


class PlainReporter:
    """The reports of one stage as lines."""

    def __init__(self, name: str, display: Plain) -> None:
        self._name = name
        self._display = display
        self._said = ""
        self._tenth = 0

    def say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._tenth = 0
            self._display.say(f"{self._name}: {text}")

    def tell(self, text: str) -> None:
        self._display.say(f"{self._name}: {text}")

    def progress(self, done: int, total: int | None) -> None:
        tenth = done * PLAIN_STEPS // total if total else 0
        if total and tenth > self._tenth:
            self._tenth = tenth
            share = f"{tenth * 100 // PLAIN_STEPS} % of {in_bytes(total)}"
            self._display.say(f"{self._name}: {share}")

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()


class Terminal:
    """One live line per running stage; a bar where there is a size."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._running: dict[str, TerminalReporter] = {}

    def start(self, name: str) -> StageReporter:
        reporter = self._running[name] = TerminalReporter(name, self._stream)
        return reporter

    def end(self, row: Row) -> None:
        if reporter := self._running.pop(row.name, None):
            reporter.close()
            close_gaps()
        if row.outcome != "fresh":
            mark = "✔" if row.outcome == "done" else "✘"
            self.say(f"{mark} {row.name}  {in_seconds(row.seconds)}")

    def say(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=self._stream)


class TerminalReporter:
    """The live line of one stage, redrawn twice a second so that its clock goes."""

    def __init__(self, name: str, stream: TextIO) -> None:
        from tqdm import tqdm

        self._name = name
        self._stream = stream
        self._text = ""
        self._since = time.monotonic()
        self._line: tqdm[Any] = tqdm(
            total=0, file=stream, leave=False, bar_format="{desc}", dynamic_ncols=True
        )
        self._bar: tqdm[Any] | None = None
        self._hidden = False
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def say(self, text: str) -> None:
        with self._lock:
            self._drop_bar()
            self._text = text
        self._draw()

    def tell(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(f"  {self._name}: {text}", file=self._stream)

    def progress(self, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if total is None:
            with self._lock:
                self._text = f"{self._text.partition(' · ')[0]} · {in_bytes(done)}"
            return
        with self._lock:
            if self._bar is None or self._bar.total != total:
                self._drop_bar()
                self._bar = tqdm(
                    total=total,
                    file=self._stream,
                    leave=False,
                    unit="B",
                    unit_scale=True,
                    unit_divisor=1024,
                    dynamic_ncols=True,
                    desc=f"  {self._text or self._name}",
                )
            self._bar.update(done - self._bar.n)

    @contextmanager
    def aside(self) -> Iterator[None]:
        with self._lock:
            self._drop_bar()
            self._line.clear()
            self._hidden = True
        try:
            yield
        finally:
            self._hidden = False
            self._draw()

    def close(self) -> None:
        self._closed.set()
        self._clock.join()
        with self._lock:
            self._drop_bar()
            self._line.close()

    def _tick(self) -> None:
        while not self._closed.wait(REFRESH_S):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return  # a live stage may go on reporting when it is closed
            seconds = in_seconds(time.monotonic() - self._since)
            text = f" · {self._text}" if self._text else ""
            if self._hidden:
                return
            self._line.set_description_str(f"⏵ {self._name}  {seconds}{text}")

    def _drop_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def close_gaps() -> None:
    """Have the lines that are left follow each other; tqdm leaves a line empty that has ended."""
    from tqdm import tqdm

    with tqdm.get_lock():  # type: ignore[no-untyped-call]
        lines = sorted(vars(tqdm).get("_instances", ()), key=lambda line: abs(line.pos))
        for place, line in enumerate(lines):
            if abs(line.pos) != place:
                line.clear(nolock=True)
                line.pos = -place
                line.refresh(nolock=True)


def table(rows: Sequence[Row]) -> str:
    """The stages with their times, one a line."""
    width = max((len(row.name) for row in rows), default=0)
    lines = [
        f"  {row.name:<{width}}  {row.outcome:<11} {took(row):>9}"
        f"{'  ' + row.note if row.note else ''}".rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def took(row: Row) -> str:
    """How long a stage ran; nothing if it didn't."""
    return "" if row.outcome == "fresh" else in_seconds(row.seconds)


def describe(error: VmbakeError) -> str:
    """An error for people: its paragraph, the last lines of the log that matter, the log."""
    if isinstance(error, SeveralFailed):
        return "\n\n".join(dict.fromkeys(map(describe, error.errors)))
    parts = [f"error: {error.what}"]
    if error.tail:
        parts.append("\n".join(f"  | {line}" for line in error.tail))
    if error.hint:
        parts.append(error.hint)
    if error.log:
        parts.append(f"Full log: {shown(error.log)}")
    return "\n".join(parts)


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def in_seconds(seconds: float) -> str:
    """`4.2 s` or `3 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def in_bytes(size: int) -> str:
    """`12.3 MB`, with units of 1000 as disks are sold and `df -H` counts."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def default() -> Display:
    """The display of the command line: stderr."""
    return for_stream(sys.stderr)
