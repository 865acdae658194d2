"""The ends of a machine's channels: sockets that QEMU inherits, and threads that read them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

CHUNK_BYTES = 64 * 1024
JOIN_TIMEOUT_S = 5.0


@contextlib.contextmanager
def socket_pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connected sockets, closed at the end of the block.

    A channel that QEMU inherits needs no name in the file system: nobody else can connect, no
    path is too long, and its end is QEMU's end.
    """
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(count)]
        for pair in pairs:
            for end in pair:
                stack.enter_context(end)
        yield pairs


def shut(channel: socket.socket) -> None:
    """Wake whoever reads the channel."""
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def following(
    channel: socket.socket, heard: Callable[[bytes], None], ended: Callable[[], None]
) -> Iterator[None]:
    """Read a channel in a thread of its own until QEMU, or the end of the block, closes it."""

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := channel.recv(CHUNK_BYTES):
                heard(data)
        ended()

    thread = threading.Thread(target=read, name="channel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        shut(channel)
        thread.join(JOIN_TIMEOUT_S)
