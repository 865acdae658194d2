"""Follows a running container: its output goes to a file, and its end is noticed at once."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tasks.core.errors import CommandFailed, MachineFailed, NoRoom, VmbakeError
from tasks.core.process import printable
from tasks.docker.connection import Connection
from tasks.docker.failures import NOT_FOUND, status_of, translated

if TYPE_CHECKING:
    from tasks.docker.engine import Engine

LONGEST_LINE = 64 * 1024
# The output ends when the container does; the engine then has it to take down.
END_TIMEOUT_S = 60.0
CONTROL_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])"
)


@dataclass(frozen=True, kw_only=True)
class ExitStatus:
    """How a container ended.

    Args:
        code: above 128: the signal that ended it, plus 128.
        oom_killed: the kernel ended it, or a part of it, because memory ran out.
        error: what the engine has to say about it, usually nothing.
    """

    code: int
    oom_killed: bool = False
    error: str = ""


class Follower:
    """A thread that listens to one container until it ends, or until `close`.

    Args:
        container, name: its id, which stays, and its name, for messages.
        log: gets the container's output, line by line.
    """

    def __init__(self, engine: Engine, container: str, name: str, log: Path) -> None:
        self._engine = engine
        self._container = container
        self._name = name
        self._log = log
        self._closing = False
        self._stack = ExitStack()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        # Set when `outcome` is known and all output is in the log.
        self.ended = threading.Event()
        self.outcome: ExitStatus | VmbakeError | None = None

    def start(self) -> None:
        """Begin to listen; before the container is started, lest something is missed.

        What `docker logs --follow` shows instead may lack the last line (engine 20.10).

        Raises:
            EngineGone: the engine does not answer.
        """
        with ExitStack() as stack:
            lines = Lines(stack.enter_context(open_log(self._log)))
            api = stack.enter_context(self._engine.client(END_TIMEOUT_S))
            with translated(f"show the output of {self._name}"):
                self._connection = Connection(api.attach_socket(self._container))
            stack.callback(self._connection.close)
            work = partial(self._run, self._connection, lines, api)
            self._thread = threading.Thread(target=work, name=self._name, daemon=True)
            self._thread.start()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Stop listening; harmless when repeated, or when the container has ended."""
        self._closing = True
        if self._thread is None or self._connection is None:
            return
        self._connection.hang_up()
        self._thread.join()
        self._stack.close()

    def _run(self, connection: Connection, lines: Lines, api: Any) -> None:
        try:
            # The connection may be lost in any way: the question after it tells what happened.
            with contextlib.suppress(ConnectionError):
                for _, data in connection.frames():
                    lines.add(data)
            lines.end()
            if not self._closing:
                self.outcome = self._ask_outcome(api)
        except VmbakeError as error:
            self.outcome = error
        except OSError as error:
            self.outcome = NoRoom(f"{self._log} can't be written ({error.strerror}).")
        finally:
            self.ended.set()

    def _ask_outcome(self, api: Any) -> ExitStatus:
        try:
            with translated(f"tell how {self._name} ended"):
                code = int(api.wait(self._container)["StatusCode"])
                state = api.inspect_container(self._container)["State"]
        except CommandFailed as error:
            if status_of(error) != NOT_FOUND:
                raise
            raise MachineFailed(f"Somebody else removed the container {self._name}.") from error
        return ExitStatus(
            code=code, oom_killed=bool(state["OOMKilled"]), error=str(state["Error"] or "")
        )


def open_log(path: Path) -> IO[str]:
    """A new log; what a container says can be anything, so only the owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    return open(fd, "w", encoding="utf-8")  # noqa: PTH123 - a descriptor, not a path


class Lines:
    """Writes a stream of bytes as lines that a terminal can show."""

    def __init__(self, log: IO[str]) -> None:
        self._log = log
        self._rest = b""

    def add(self, data: bytes) -> None:
        """Write the lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._log.write(clean(line) + "\n")
        self._log.flush()

    def end(self) -> None:
        """Write what had no line end."""
        if self._rest:
            self.add(b"\n")


def clean(line: bytes) -> str:
    """A line as text, without colours and cursor movements."""
    return printable(CONTROL_SEQUENCE.sub("", line.decode(errors="replace")))
