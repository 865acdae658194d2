"""Programs run inside a container, with their input and output."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.crew import waking
from tasks.core.errors import TimedOut
from tasks.docker.connection import CHUNK_BYTES, STDERR, STDOUT, Connection, end
from tasks.docker.failures import translated

if TYPE_CHECKING:
    from tasks.docker.engine import Engine

# The output ends when the program does; its exit code is there a moment later.
EXIT_CODE_TIMEOUT_S = 10.0
POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Executed:
    """A program that has ended."""

    code: int
    stdout: bytes
    stderr: bytes


class Session:
    """A program in a container, started, with a connection to its input and output.

    Raises:
        CommandFailed: the container doesn't run.
        EngineGone: the engine does not answer.
    """

    def __init__(self, engine: Engine, container: str, argv: Sequence[str]) -> None:
        self._engine = engine
        self.program = argv[0]
        with translated(f"run {self.program} in the container {container}"):
            created = engine.api.exec_create(container, list(argv), stdin=True)
            self._id = str(created["Id"])
            self.connection = Connection(engine.api.exec_start(self._id, socket=True))

    def exit_code(self) -> int:
        """The code of a program whose output has ended.

        Raises:
            TimedOut: it has not ended.
            EngineGone: the engine does not answer.
        """
        pause = threading.Event()
        for _ in range(int(EXIT_CODE_TIMEOUT_S / POLL_S)):
            with translated(f"tell how {self.program} ended"):
                state = self._engine.api.exec_inspect(self._id)
            if not state["Running"] and state["ExitCode"] is not None:
                return int(state["ExitCode"])
            # The engine announces the end of a program to nobody whom we could ask.
            pause.wait(POLL_S)
        raise TimedOut(f"{self.program} closed its output and did not end.")


def execute(session: Session, stdin: bytes, timeout_s: float) -> Executed:
    """Feed a program, wait for its end, and collect what it said.

    Raises:
        TimedOut: it had not ended after `timeout_s` seconds. It may still run.
        EngineGone: the engine does not answer.
    """
    output = {STDOUT: bytearray(), STDERR: bytearray()}
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        session.connection.hang_up()

    def feed() -> None:
        # A program that ends early does not read everything.
        with contextlib.suppress(OSError):
            session.connection.send(stdin)
        session.connection.end_input()

    timer = threading.Timer(timeout_s, expire)
    feeder = threading.Thread(target=feed, name=f"input of {session.program}", daemon=True)
    timer.start()
    feeder.start()
    try:
        with translated(f"run {session.program}"), waking(session.connection.hang_up):
            for kind, data in session.connection.frames():
                output[kind] += data
    finally:
        timer.cancel()
        session.connection.hang_up()
        timer.join()
        feeder.join()
        session.connection.close()
    if expired.is_set():
        raise TimedOut(f"{session.program} did not end within {timeout_s:g} s in the container.")
    return Executed(
        code=session.exit_code(), stdout=bytes(output[STDOUT]), stderr=bytes(output[STDERR])
    )


class Stream:
    """A program whose input and output are one socket, `theirs`, for somebody else to use.

    Two threads carry the bytes. When the program ends, or the connection to it is lost, the
    socket reads as ended; when the socket is closed, the program's input ends.

    Args:
        on_stderr: called in a thread with what it writes there.
    """

    def __init__(self, session: Session, on_stderr: Callable[[bytes], None]) -> None:
        self._connection = session.connection
        self._on_stderr = on_stderr
        self._ours, self.theirs = socket.socketpair()
        self._threads = [
            threading.Thread(target=work, name=session.program, daemon=True)
            for work in (self._carry_output, self._carry_input)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the connection and the threads; harmless when repeated."""
        self._connection.hang_up()
        end(self._ours)
        for thread in self._threads:
            thread.join()
        self._connection.close()
        self._ours.close()

    def _carry_output(self) -> None:
        # Whichever side hung up: the other one is told below.
        with contextlib.suppress(OSError, ValueError):
            for kind, data in self._connection.frames():
                if kind == STDOUT:
                    self._ours.sendall(data)
                else:
                    self._on_stderr(data)
        end(self._ours)
        self._connection.hang_up()

    def _carry_input(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._ours.recv(CHUNK_BYTES):
                self._connection.send(data)
            self._connection.end_input()
            # Its owner may have closed it for writing only, and still wait for an answer. When it
            # is closed for both (POLLHUP, which need not be asked for), nobody reads any more.
            closed = select.poll()
            closed.register(self._ours, 0)
            closed.poll()
        self._connection.hang_up()
