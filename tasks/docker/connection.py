"""A connection that the engine has handed over to a program's input and output."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import IO, Any

STDOUT, STDERR = 1, 2
HEADER_BYTES = 8
CHUNK_BYTES = 64 * 1024


class Connection:
    """What the SDK returns for `socket=True`, made fit for use from several threads.

    Engines that are reached by TLS or SSH are not supported: there the end of the input can't be
    told to the program while its output goes on.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._socket: socket.socket = raw._sock
        # http.client reads ahead: what the program said at once is here, and not in the socket.
        self._reader: IO[bytes] = raw._response.raw._fp.fp
        # Silence is no failure: who waits has a deadline.
        self._socket.settimeout(None)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(STDOUT or STDERR, bytes) until the program ends or the connection is lost.

        The form is described at ContainerAttach in the reference of the Engine API.
        """
        while len(header := self._reader.read(HEADER_BYTES)) == HEADER_BYTES:
            left = int.from_bytes(header[4:], "big")
            while left and (data := self._reader.read(min(left, CHUNK_BYTES))):
                left -= len(data)
                yield header[0], data

    def send(self, data: bytes) -> None:
        """Write to the program's input."""
        self._socket.sendall(data)

    def end_input(self) -> None:
        """Tell the program that its input has ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """End the connection, also for a thread that waits for it; repeating it is harmless."""
        end(self._socket)

    def close(self) -> None:
        """Free the connection; no thread may use it any more."""
        self.hang_up()
        self._raw._response.close()
        self._socket.close()


def end(connection: socket.socket) -> None:
    """Close a socket for both directions; threads that wait for it go on."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
