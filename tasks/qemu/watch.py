"""All that is heard from a machine, in one place, so that one wait can end for any reason."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tasks.core.crew import waking
from tasks.core.errors import MachineFailed, NoRoom, TimedOut, VmbakeError
from tasks.core.process import printable
from tasks.qemu.qmp import Event

T = TypeVar("T")
Announcement = Mapping[str, Any]

TAIL_LINES = 30
KEPT_LINES = 2000
# How much of what came before a trouble is shown with it.
LINES_BEFORE = 5
LONGEST_LINE = 64 * 1024
# A kernel prints its registers and call trace after the line that says what happened.
LAST_WORDS_S = 2.0

CONTROL_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])"
)
STAMP = r"^(?:<\d+>)?(?:\[\s*\d+\.\d+\](?:\[[^\]]*\])? )?"
# Lines of the kernel's own, after which its call trace comes.
KERNEL_LINES = (
    (STAMP + r"Kernel panic - not syncing", "The guest's kernel panicked"),
    # Linux ends the head of every oops with its code and count: "Oops: 0002 [#1] SMP".
    (STAMP + r".*: [0-9a-f]{4,16} \[#\d+\]", "The guest's kernel ran into a bug (oops)"),
)
OTHER_LINES = (
    (r"You are in (?:emergency|rescue) mode", "The guest's systemd gave up (emergency mode)"),
    (r"^Gave up waiting for (?:root|suspend)", "The guest's kernel did not find its disk"),
    (r"^ALERT!.* does not exist", "The guest's kernel did not find its disk"),
    (r"^No bootable device", "The firmware found nothing to boot"),
    (r"No bootable option or device was found", "The firmware found nothing to boot"),
)
FATAL_LINES = tuple(
    (re.compile(pattern), what, lines is KERNEL_LINES)
    for lines in (KERNEL_LINES, OTHER_LINES)
    for pattern, what in lines
)
LAST_WORD = re.compile(r"---\[ end ")


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why waiting on has no sense any more."""

    what: str
    hint: str = ""
    kind: type[VmbakeError] = MachineFailed
    # Lines to show before the console's.
    tail: tuple[str, ...] = ()
    # More of the story is on its way over the console.
    unfolds: bool = False


class Watch:
    """Hears the console, the ready channel and QMP, from any thread; waits on all of them.

    Args:
        console_log: named in errors; QEMU itself writes it.
        on_progress: called with the guest's own words on what it does now.
        describe_end: how QEMU ended, in words; called once it has hung up.
    """

    def __init__(
        self,
        console_log: Path,
        on_progress: Callable[[str], None],
        describe_end: Callable[[], Trouble],
    ) -> None:
        self.console_log = console_log
        self._on_progress = on_progress
        self._describe_end = describe_end
        self._changed = threading.Condition()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._events: list[Event] = []
        self._announcements: list[Announcement] = []
        self._console = Lines()
        self._ready = Lines()
        self._open = 0
        self._last = ""
        self._finished = False
        self._heard = self._heard_before_trouble = 0
        self._trouble: Trouble | None = None
        self._callbacks: list[Callable[[], None]] = []

    # What is heard

    def opened(self) -> None:
        """One more channel from which bytes will come."""
        with self._changed:
            self._open += 1

    def closed(self) -> None:
        """A channel has delivered its last byte."""
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def console(self, data: bytes) -> None:
        """Bytes from the serial line."""
        with self._changed:
            for line in self._console.split(data):
                self._heard_line(clean(line))
            self._changed.notify_all()

    def announced(self, data: bytes) -> None:
        """Bytes from the ready channel: a JSON object a line."""
        with self._changed:
            said = [parse(line) for line in self._ready.split(data) if line.strip()]
            self._announcements.extend(said)
            for announcement in said:
                self._last = f"the guest said {json.dumps(announcement)}"
            self._changed.notify_all()
        for announcement in said:
            if "progress" in announcement:
                self._on_progress(str(announcement["progress"]))
            if "failed" in announcement:
                self.found(Trouble(what=f"The guest gave up: {announcement['failed']}"))

    def event(self, event: Event) -> None:
        """An event from QMP."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
        trouble = trouble_in(event)
        if trouble is not None:
            self.found(trouble)

    def hung_up(self) -> None:
        """QEMU closed the QMP connection, as it does at its end."""
        # After an orderly SHUTDOWN this is no news.
        if self._trouble is None:
            self.found(self._describe_end())

    def found(self, trouble: Trouble) -> None:
        """Ends all waits. The first trouble is the cause, what follows are consequences."""
        with self._changed:
            if self._trouble is not None:
                return
            self._trouble = trouble
            self._finished = False
            self._heard_before_trouble = self._heard
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            callback()

    # What is asked

    @property
    def announcements(self) -> tuple[Announcement, ...]:
        with self._changed:
            return tuple(self._announcements)

    @property
    def tail(self) -> tuple[str, ...]:
        """The console's last lines."""
        with self._changed:
            return tuple(self._lines)[-TAIL_LINES:]

    def console_line(self, pattern: re.Pattern[str]) -> str | None:
        """The latest of the last KEPT_LINES console lines in which `pattern` is found."""
        with self._changed:
            return next((line for line in reversed(self._lines) if pattern.search(line)), None)

    def mark(self) -> int:
        """A point in the stream of events, for `wait_event`."""
        with self._changed:
            return len(self._events)

    def events(self, since: int) -> tuple[Event, ...]:
        """The QMP events after `since` (a `mark`), in order."""
        with self._changed:
            return tuple(self._events[since:])

    def on_trouble(self, callback: Callable[[], None]) -> None:
        """Call `callback` (which must not block) when the machine fails; at once if it has."""
        with self._changed:
            if self._trouble is None:
                self._callbacks.append(callback)
                return
        callback()

    def wait(
        self,
        found: Callable[[], T | None],
        *,
        timeout_s: float,
        what: str,
        hint: str = "",
        even_after_end: bool = False,
    ) -> T:
        """Wait until `found` returns something; it is asked again whenever something is heard.

        Args:
            what: the thing waited for, to complete "The guest …".
            even_after_end: ask `found` before looking whether the machine failed.

        Raises:
            MachineFailed: QEMU ended, or the guest died.
            NoRoom: QEMU stopped the guest because the host's disk is full.
            TimedOut: neither happened within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        with waking(self._wake), self._changed:
            while True:
                if self._trouble is None or even_after_end:
                    result = found()
                    if result is not None:
                        return result
                if self._trouble is not None:
                    raise self._failure(self._trouble, what)
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimedOut(
                        f"The guest did not {what} within {timeout_s:g} s; "
                        f"the last thing seen: {self._last_seen()}.",
                        hint=hint,
                        log=self.console_log,
                        tail=self.tail,
                    )
                self._changed.wait(left_s)

    def wait_event(
        self,
        name: str,
        *,
        since: int,
        timeout_s: float,
        what: str,
        hint: str = "",
        even_after_end: bool = False,
        **data: object,
    ) -> Event:
        """Wait for a QMP event after `since` (a `mark`) whose data hold `data`.

        Raises: as `wait`.
        """

        def found() -> Event | None:
            for event in self._events[since:]:
                if event.name == name and data.items() <= event.data.items():
                    return event
            return None

        return self.wait(
            found, timeout_s=timeout_s, what=what, hint=hint, even_after_end=even_after_end
        )

    def pause(self, seconds: float) -> None:
        """Let `seconds` pass, unless the machine fails meanwhile.

        Raises:
            MachineFailed, NoRoom: as `wait`.
        """
        deadline = time.monotonic() + seconds
        with waking(self._wake), self._changed:
            while self._trouble is None and (left_s := deadline - time.monotonic()) > 0:
                self._changed.wait(left_s)
            if self._trouble is not None:
                raise self._failure(self._trouble)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _heard_line(self, line: str) -> None:
        if not line.strip():
            return
        self._lines.append(line)
        self._heard += 1
        self._last = line
        if LAST_WORD.search(line):
            self._finished = True
        if self._trouble is None:
            self._look_for_trouble(line)

    def _look_for_trouble(self, line: str) -> None:
        for pattern, what, unfolds in FATAL_LINES:
            if pattern.search(line):
                self.found(Trouble(what=f"{what}: {line.strip()}", unfolds=unfolds))
                return

    def _last_seen(self) -> str:
        return clean(self._console.rest).strip() or self._last or "nothing at all"

    def _failure(self, trouble: Trouble, undone: str = "") -> VmbakeError:
        deadline = time.monotonic() + LAST_WORDS_S
        while trouble.unfolds and self._open > 0 and not self._finished:
            if (left_s := deadline - time.monotonic()) <= 0:
                break
            self._changed.wait(left_s)
        return trouble.kind(
            trouble.what.rstrip(".") + (f"; the guest did not {undone}." if undone else "."),
            hint=trouble.hint,
            log=self.console_log,
            tail=(*trouble.tail, *self._story()),
        )

    def _story(self) -> tuple[str, ...]:
        """The console's lines around the trouble: a long call trace must not push it out."""
        since = self._heard - self._heard_before_trouble + LINES_BEFORE
        begin = max(0, len(self._lines) - max(since, TAIL_LINES))
        return tuple(self._lines)[begin : begin + TAIL_LINES]


class Lines:
    """Cuts a stream of bytes into lines; what has no line end yet is `rest`."""

    def __init__(self) -> None:
        self.rest = b""

    def split(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. A guest can't make us keep more than LONGEST_LINE."""
        *lines, rest = (self.rest + data).split(b"\n")
        self.rest = rest[-LONGEST_LINE:]
        return [line[:LONGEST_LINE] for line in lines]


def clean(line: bytes) -> str:
    """A console line as text, without colours and cursor movements."""
    return printable(CONTROL_SEQUENCE.sub("", line.decode(errors="replace")))


def parse(line: bytes) -> Announcement:
    """An announcement; a line that is no JSON object counts as one with this `text`."""
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"text": clean(line)}


def trouble_in(event: Event) -> Trouble | None:
    """What an event says of the machine's end, if it does."""
    match event.name, event.data:
        case "SHUTDOWN", {"reason": reason}:
            return Trouble(what=f"The guest shut down ({reason})", unfolds=True)
        case "GUEST_PANICKED", _:
            return Trouble(what="The guest's kernel panicked", unfolds=True)
        case "BLOCK_IO_ERROR", {"action": "stop", **details}:
            # virtio-blk's werror=enospc: the guest stands still until there is room again.
            disk = details.get("node-name") or details.get("device")
            if details.get("nospace"):
                return Trouble(
                    what=f"The host's disk is full, so QEMU stopped the guest (disk {disk})",
                    hint="Make room where the store and the work files are.",
                    kind=NoRoom,
                )
            return Trouble(what=f"QEMU could not {details.get('operation')} the disk {disk}")
    return None
