"""Webhooks, against a server that fails in every way: none can hold or fail a run."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tasks.ci.notify import Patience, message, notify
from tasks.ci.origin import Origin
from tests.standins.validations import HOSTILE, check, run, validation

QUICK = Patience(attempts=3, pause_s=0.01, attempt_s=0.3, altogether_s=20)
TOKEN = "T0K3N"


@dataclass
class Hook:
    """What a webhook's server does with each request, in turn; the last again and again."""

    answers: list[Any]
    got: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    hook: Hook

    def do_POST(self) -> None:
        hook = self.hook
        hook.got.append(self.rfile.read(int(self.headers["Content-Length"])))
        hook.paths.append(self.path)
        answer = hook.answers[min(len(hook.got), len(hook.answers)) - 1]
        match answer:
            case int():
                self.send_response(answer)
                if 300 <= answer < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "close":
                self.connection.shutdown(socket.SHUT_RDWR)
            case "hang":
                hook.released.wait(20)
            case "drip":
                with contextlib.suppress(OSError):
                    while not hook.released.wait(0.05):
                        self.wfile.write(b"H")
            case "garbage":
                self.wfile.write(b"\x00\xff not http\r\n\r\n")

    def do_GET(self) -> None:
        self.hook.paths.append(f"GET {self.path}")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(*answers: Any) -> Iterator[Hook]:
    hook = Hook(answers=list(answers))
    handler = type("Bound", (Handler,), {"hook": hook})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/services/{TOKEN}"
    try:
        yield hook
    finally:
        hook.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def told(urls: str, patience: Patience = QUICK) -> list[str]:
    lines: list[str] = []
    notify(urls, b'{"a": 1}', lines.append, patience)
    assert TOKEN not in "".join(lines)
    return lines


def test_it_is_posted_once() -> None:
    with serving(200) as hook:
        assert told(hook.url) == []
    assert hook.got == [b'{"a": 1}']
    assert hook.paths == [f"/services/{TOKEN}"]


@pytest.mark.parametrize("first", [500, 503, 429, 408, "close", "hang", "garbage"])
def test_a_passing_failure_is_tried_again(first: Any) -> None:
    with serving(first, 200) as hook:
        assert told(hook.url) == []
    assert len(hook.got) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    with serving(status) as hook:
        assert told(hook.url) == [f"webhook 1 was not told: it answered with status {status}"]
    assert len(hook.got) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with serving(status) as hook:
        assert told(hook.url) == [f"webhook 1 was not told: it answered with status {status}"]
    assert hook.paths == [f"/services/{TOKEN}"]


def test_it_is_given_up_after_some_attempts() -> None:
    with serving(500) as hook:
        assert told(hook.url) == ["webhook 1 was not told: it answered with status 500"]
    assert len(hook.got) == QUICK.attempts


def test_a_server_that_drips_can_not_hold_the_run() -> None:
    with serving("drip") as hook:
        patience = replace(QUICK, altogether_s=0.5)
        assert told(hook.url, patience) == ["the webhooks took more than 0.5 s: given up"]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert told(f"http://127.0.0.1:{port}/{TOKEN}") == [
        "webhook 1 was not told: ConnectionRefusedError"
    ]


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://127.0.0.1/{TOKEN}",
        f"file:///etc/passwd?{TOKEN}",
        TOKEN,
        f"http://[::1/{TOKEN}",
        f"http://127.0.0.1:{TOKEN}/",
        "http://",
    ],
)
def test_a_url_that_is_none_is_told_without_it(url: str) -> None:
    (line,) = told(url)
    assert line.startswith("webhook 1 was not told: ")


def test_each_webhook_is_told_whatever_the_others_do() -> None:
    with serving(404) as bad, serving(200) as good:
        assert told(f"{bad.url}  {good.url}") == [
            "webhook 1 was not told: it answered with status 404"
        ]
    assert len(good.got) == 1


def test_no_webhook_is_no_trouble() -> None:
    started = time.monotonic()
    assert told("  ") == []
    assert time.monotonic() - started < QUICK.altogether_s


def test_the_json_has_the_figures() -> None:
    origin = Origin(tag="v1.2.3", run_url="https://ci.example/7")
    found = json.loads(message(run(), origin, "json"))
    assert found["passed"] is False
    assert (found["tag"], found["url"], found["build"]) == ("v1.2.3", "https://ci.example/7", "128")
    assert len(found["images"]) == 12
    assert found["checks"]["passed"] > 500
    assert found["problems"][0]["check"] == "validation: Could not be validated"
    assert found["problems"][0]["images"] == ["production debian-12"]


def test_slack_gets_a_text_in_which_nothing_is_markup() -> None:
    bad = validation(check(outcome="failed", reason=f"<!channel> & {HOSTILE}"))
    data = replace(run(), validations=(bad,), timelines=())
    content = json.loads(message(data, Origin(run_url="https://ci.example/7"), "slack"))
    assert set(content) == {"text"}
    text = content["text"]
    assert text.startswith(":x: *vmbake images #128: The image failed*")
    assert "&lt;!channel&gt; &amp;" in text
    assert text.count("<") == 1
    assert text.endswith("<https://ci.example/7|The run>")
