"""What answers like a Docker engine at a unix socket, as far as a connection needs it."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class FakeEngine(socketserver.ThreadingUnixStreamServer):
    """A server of JSON answers.

    Args:
        answers: path, without the API's version, to what is answered; None: nothing, ever.
    """

    daemon_threads = True

    def __init__(self, path: Path, answers: Mapping[str, object]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.over = threading.Event()
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    server: FakeEngine

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path
        if path.startswith("/v1."):
            path = "/" + path.split("/", 2)[2]
        answer = self.server.answers[path]
        if answer is None:
            self.server.over.wait()
            return
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextlib.contextmanager
def serving(path: Path, answers: Mapping[str, object]) -> Iterator[FakeEngine]:
    """The fake while the block lasts."""
    with FakeEngine(path, answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
