"""Output becomes lines, and connections to programs become sockets."""

from __future__ import annotations

import io
import socket
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.docker.connection import STDERR, STDOUT, Connection
from tasks.docker.execute import Session, Stream
from tasks.docker.follow import LONGEST_LINE, Lines

SOON_S = 10.0


def test_output_becomes_lines_that_can_be_shown() -> None:
    log = io.StringIO()
    lines = Lines(log)
    for byte in b"\x1b[1;34m\xc3\xa9 Starting\x1b[0m\r\n10%\r20%\nla":
        lines.add(bytes([byte]))
    assert log.getvalue() == "é Starting\n20%\n"
    lines.end()
    lines.end()
    assert log.getvalue() == "é Starting\n20%\nla\n"


def test_output_without_line_ends_costs_no_memory() -> None:
    log = io.StringIO()
    lines = Lines(log)
    for _ in range(5):
        lines.add(b"x" * LONGEST_LINE)
    assert len(log.getvalue()) >= 2 * LONGEST_LINE


class Hijacked:
    """What the SDK returns for `socket=True`: a socket, and what was read ahead from it."""

    def __init__(self, connection: socket.socket) -> None:
        self._sock = connection
        self.reader = connection.makefile("rb")
        response = SimpleNamespace(raw=SimpleNamespace(_fp=SimpleNamespace(fp=self.reader)))
        self._response = SimpleNamespace(raw=response.raw, close=self.reader.close)


def frame(kind: int, data: bytes) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_frames_come_apart_also_what_was_read_ahead() -> None:
    ours, engine = socket.socketpair()
    with engine:
        engine.sendall(frame(STDOUT, b"greeting"))
        hijacked = Hijacked(ours)
        hijacked.reader.peek(1)
        connection = Connection(hijacked)
        engine.sendall(frame(STDERR, b"oops") + frame(STDOUT, b"") + frame(STDOUT, b"x" * 200_000))
        engine.sendall(frame(STDOUT, b"cut off")[:-3])
        engine.shutdown(socket.SHUT_WR)
        frames = list(connection.frames())
        connection.close()
    assert frames[:2] == [(STDOUT, b"greeting"), (STDERR, b"oops")]
    assert b"".join(data for kind, data in frames[2:]) == b"x" * 200_000 + b"cut "
    assert ours.fileno() == -1


@pytest.fixture
def spliced() -> Any:
    """The engine's end of a stream, the stream, and what it wrote to stderr."""
    ours, engine = socket.socketpair()
    session = cast("Session", SimpleNamespace(program="cat", connection=Connection(Hijacked(ours))))
    errors: list[bytes] = []
    stream = Stream(session, errors.append)
    with engine, stream.theirs:
        engine.settimeout(SOON_S)
        stream.theirs.settimeout(SOON_S)
        yield engine, stream, errors
        stream.close()
        stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "cat"]


def test_a_stream_carries_both_ways(spliced: Any) -> None:
    engine, stream, errors = spliced
    engine.sendall(frame(STDERR, b"warning") + frame(STDOUT, b"hello"))
    assert stream.theirs.recv(100) == b"hello"
    assert errors == [b"warning"]
    stream.theirs.sendall(b"ask")
    assert engine.recv(100) == b"ask"
    stream.theirs.shutdown(socket.SHUT_WR)
    assert engine.recv(100) == b""
    # Only one direction has ended.
    engine.sendall(frame(STDOUT, b"answer"))
    assert stream.theirs.recv(100) == b"answer"


def test_a_stream_ends_when_the_engine_hangs_up(spliced: Any) -> None:
    engine, stream, _ = spliced
    engine.close()
    assert stream.theirs.recv(100) == b""


def test_a_stream_ends_when_its_owner_closes_it(spliced: Any) -> None:
    engine, stream, _ = spliced
    stream.theirs.sendall(b"last")
    stream.theirs.close()
    assert engine.recv(100) == b"last"
    assert engine.recv(100) == b""
    with pytest.raises(BrokenPipeError):  # nobody reads any more
        send_for_long(engine)


def send_for_long(connection: socket.socket) -> None:
    for _ in range(1000):
        connection.sendall(frame(STDOUT, bytes(10_000)))
