"""A door to a Docker engine: all passes as it is, and one can wait for what is asked for."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK_BYTES = 64 * 1024
LONGEST_WORDS = 100
LOOK_S = 0.1


class EngineDoor(socketserver.ThreadingUnixStreamServer):
    """Listens at a unix socket, and passes each connection on to the engine's."""

    daemon_threads = True

    def __init__(self, path: Path, engine: Path) -> None:
        self.address = f"unix://{path}"
        self.engine = engine
        self._watched = b""
        self._passed = threading.Event()
        super().__init__(str(path), Passage)

    def watch_for(self, words: str) -> None:
        """Look out from now on for words that are sent to the engine, in an address or a body."""
        assert len(words) <= LONGEST_WORDS
        self._watched = words.encode()
        self._passed.clear()

    def look(self, sent: bytes) -> None:
        """Look at a piece of what the engine is sent."""
        if self._watched and self._watched in sent:
            self._passed.set()

    def wait(self, is_over: Callable[[], bool]) -> None:
        """Wait until the words have been sent.

        Raises:
            AssertionError: whoever should have sent them is over.
        """
        while not self._passed.wait(LOOK_S):
            over = is_over()
            # What was sent before the end has passed before it was asked for.
            assert not over or self._passed.is_set(), f"nobody asked for {self._watched!r}"


class Passage(socketserver.BaseRequestHandler):
    """One connection; also one that is handed over to a program in a container."""

    server: EngineDoor

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(str(self.server.engine))
            back = threading.Thread(target=carry, args=(engine, self.request, ignore), daemon=True)
            back.start()
            carry(self.request, engine, self.server.look)
            back.join()


def carry(source: socket.socket, target: socket.socket, look: Callable[[bytes], None]) -> None:
    """Carry bytes until the source ends, and end the target then, in this direction only."""
    rest = b""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
            look(rest + data)
            rest = (rest + data)[-LONGEST_WORDS:]
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def ignore(data: bytes) -> None:
    """Take answers and do nothing with them."""


@contextlib.contextmanager
def opened(path: Path, engine_address: str) -> Iterator[EngineDoor]:
    """A door at `path` while the block lasts; the engine is at a unix socket."""
    with EngineDoor(path, Path(engine_address.removeprefix("unix://"))) as door:
        thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield door
        finally:
            door.shutdown()
            thread.join()
