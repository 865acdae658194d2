"""An HTTP server for a folder of files, with Range and validators, that can misbehave on demand."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request that came."""

    path: str
    range: str
    if_range: str
    authorization: str


class ReleaseServer(http.server.ThreadingHTTPServer):
    """Serves `root` on a free port of 127.0.0.1.

    `misbehave(path, a, b)` answers the next two requests for the path by `a` and `b`, then well
    again; with `forever=True`, the last of them stays.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._plans: dict[str, list[Behaviour]] = {}
        self._forever: dict[str, Behaviour] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def misbehave(self, path: str, *behaviours: Behaviour, forever: bool = False) -> None:
        self._plans[path] = list(behaviours)
        if forever:
            self._forever[path] = behaviours[-1]

    def next_for(self, path: str) -> Behaviour:
        with self._lock:
            plan = self._plans.get(path)
            return plan.pop(0) if plan else self._forever.get(path, well)

    def requests_for(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what the tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ReleaseServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append(
            Seen(
                path=path,
                range=self.headers.get("Range", ""),
                if_range=self.headers.get("If-Range", ""),
                authorization=self.headers.get("Authorization", ""),
            )
        )
        behaviour = self.server.next_for(path)
        file = self.server.root / path.lstrip("/")
        if behaviour.needs_file and not file.is_file():
            status(404)(self, b"")
        else:
            behaviour(self, file.read_bytes() if file.is_file() else b"")

    def head(self, code: int, **headers: str | int) -> None:
        """Send a status line and headers; `_` stands for `-`."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def drop(self) -> None:
        """Close the connection the orderly way, whatever was promised."""
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""


@dataclass(frozen=True)
class Behaviour:
    """One way to answer; called with the handler and the file's content."""

    answer: Callable[[Handler, bytes], None]
    needs_file: bool = True

    def __call__(self, handler: Handler, content: bytes) -> None:
        self.answer(handler, content)


def tag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def begin(handler: Handler, content: bytes, *, tag: str | None = None) -> bytes:
    """Answer the head as a good server does (RFC 9110); returns the body that is due."""
    tag = tag_of(content) if tag is None else tag
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    fits = handler.headers.get("If-Range", tag) == tag
    if not match or not fits:
        handler.head(200, Content_Length=len(content), ETag=tag, Accept_Ranges="bytes")
        return content
    start = int(match[1])
    if start >= len(content):
        handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
        return b""
    body = content[start:]
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.head(206, Content_Length=len(body), Content_Range=span, ETag=tag)
    return body


@Behaviour
def well(handler: Handler, content: bytes) -> None:
    """As a good server does."""
    handler.wfile.write(begin(handler, content))


@Behaviour
def without_range(handler: Handler, content: bytes) -> None:
    """Always the whole file."""
    handler.head(200, Content_Length=len(content))
    handler.wfile.write(content)


@Behaviour
def without_length(handler: Handler, content: bytes) -> None:
    """The whole file, its end marked only by the end of the connection."""
    handler.head(200, Connection="close")
    handler.wfile.write(content)
    handler.drop()


def status(code: int, **headers: str | int) -> Behaviour:
    """A bare status."""
    return Behaviour(lambda handler, _: handler.head(code, Content_Length=0, **headers), False)


def redirect(location: str) -> Behaviour:
    return status(302, Location=location)


def truncated(after_bytes: int) -> Behaviour:
    """Promises all, sends `after_bytes`, closes."""

    def answer(handler: Handler, content: bytes) -> None:
        handler.wfile.write(begin(handler, content)[:after_bytes])
        handler.drop()

    return Behaviour(answer)


def truncated_without_range(after_bytes: int) -> Behaviour:
    """As `truncated`, and always from the beginning."""

    def answer(handler: Handler, content: bytes) -> None:
        handler.head(200, Content_Length=len(content))
        handler.wfile.write(content[:after_bytes])
        handler.drop()

    return Behaviour(answer)


def reset(after_bytes: int) -> Behaviour:
    """Sends `after_bytes`, then a TCP reset."""

    def answer(handler: Handler, content: bytes) -> None:
        handler.wfile.write(begin(handler, content)[:after_bytes])
        # Zero linger time makes close(2) send RST, see socket(7).
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.shutdown(socket.SHUT_RD)
        handler.connection.close()
        handler.drop()

    return Behaviour(answer)


def held(after_bytes: int, until: threading.Event | None = None) -> Behaviour:
    """Sends `after_bytes`, then nothing until `until` (or the server's end), then the rest."""

    def answer(handler: Handler, content: bytes) -> None:
        body = begin(handler, content)
        handler.wfile.write(body[:after_bytes])
        (until or handler.server.closing).wait()
        with contextlib.suppress(OSError):
            handler.wfile.write(body[after_bytes:])

    return Behaviour(answer)


def dripping(handler: Handler, content: bytes) -> None:
    """Sends byte by byte, with a little time between."""
    with contextlib.suppress(OSError):
        for byte in begin(handler, content):
            handler.wfile.write(bytes([byte]))
            if handler.server.closing.wait(0.01):
                return


def claiming(size_bytes: int) -> Behaviour:
    """Promises a file of that size."""

    def answer(handler: Handler, content: bytes) -> None:
        handler.head(200, Content_Length=size_bytes)
        handler.wfile.write(content)
        handler.drop()

    return Behaviour(answer)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[ReleaseServer]:
    """Serve `root` for the length of the block."""
    server = ReleaseServer(root)
    # shutdown() waits for the next look at its flag, half a second by default.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
