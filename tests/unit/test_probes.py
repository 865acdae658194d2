"""Whether DSM and NFS answer, asked of small servers that are it, pretend to be it, or break."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tasks.core.errors import BadInput, MachineFailed, VmbakeError
from tasks.vdsm import probes
from tasks.vdsm.probes import answers_nfs, is_dsm, login

PASSWORD = "s3cret & more"
PLACEHOLDER = b"<html><title>Virtual DSM</title><h1 id=info>Installing</h1></html>"

Answer = tuple[int, bytes]


class Web(http.server.ThreadingHTTPServer):
    """Answers each request by `answer(method, path, words)`; remembers them."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str, dict[str, str]], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that gave up are what some tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.reply(urlsplit(self.path).query)

    def do_POST(self) -> None:
        self.reply(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def reply(self, query: str) -> None:
        words = {name: values[0] for name, values in parse_qs(query).items()}
        self.server.seen.append((self.command, self.path, words))
        status, body = self.server.answer(self.command, urlsplit(self.path).path, words)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""


@contextlib.contextmanager
def web(answer: Callable[[str, str, dict[str, str]], Answer]) -> Iterator[Web]:
    server = Web(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def said(data: object, status: int = 200) -> Answer:
    return status, json.dumps(data).encode()


def dsm(method: str, path: str, words: dict[str, str]) -> Answer:
    """The few calls that are made, answered as DSM does."""
    if path != "/webapi/entry.cgi":
        return 404, b""
    match words.get("api"), words.get("method"):
        case "SYNO.API.Info", "query":
            return said({"success": True, "data": {"SYNO.API.Auth": {"maxVersion": 7}}})
        case "SYNO.API.Auth", "login":
            if words["account"] == "ciadmin" and words["passwd"] == PASSWORD:
                return said({"success": True, "data": {"sid": "abc"}})
            return said({"success": False, "error": {"code": 400}})
        case "SYNO.API.Auth", "logout" if words["_sid"] == "abc":
            return said({"success": True})
    return said({"success": False, "error": {"code": 102}})


def constant(answer: Answer) -> Callable[[str, str, dict[str, str]], Answer]:
    return lambda *_: answer


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP port of 127.0.0.1 whose first connection is served by `serve`, then hung up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                channel, _ = listener.accept()
                with channel:
                    serve(channel)

        thread = threading.Thread(target=run)
        thread.start()
        yield int(listener.getsockname()[1])
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def hangs_up(channel: socket.socket) -> None:
    """As Docker's proxy does when nothing listens behind it."""


def until_hung_up(channel: socket.socket) -> None:
    """Silent until the other side gives up."""
    while channel.recv(4096):
        pass


# DSM.


def test_dsm_answers() -> None:
    with web(dsm) as server:
        assert is_dsm(server.port)
        assert server.seen[0][1] == "/webapi/entry.cgi?api=SYNO.API.Info&version=1&method=query"


@pytest.mark.parametrize(
    "answer",
    [
        (200, PLACEHOLDER),
        (200, b"Booting DSM instance..."),
        (200, b""),
        (200, b"[]"),
        (200, b'"success"'),
        (404, b'{"success": true}'),
        (502, PLACEHOLDER),
        said({"success": False, "error": {"code": 100}}),
        said({"success": "true"}),
        said({}),
    ],
)
def test_what_is_not_dsm(answer: Answer) -> None:
    with web(constant(answer)) as server:
        assert not is_dsm(server.port)


def test_nothing_behind_the_port(closed_port: int) -> None:
    assert not is_dsm(closed_port)
    assert not answers_nfs(closed_port)


def test_a_proxy_with_nothing_behind_it() -> None:
    with listening(hangs_up) as port:
        assert not is_dsm(port)


def test_silence_ends() -> None:
    with listening(until_hung_up) as port:
        since = time.monotonic()
        assert not is_dsm(port, timeout_s=0.2)
        assert time.monotonic() - since < 2


def test_dripping_ends() -> None:
    def drip(channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            channel.sendall(b" ")
            threading.Event().wait(0.02)

    with listening(drip) as port:
        since = time.monotonic()
        assert not is_dsm(port, timeout_s=0.3)
        assert time.monotonic() - since < 2


def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST_ANSWER_BYTES", 10_000)
    with web(constant((200, b" " * 200_000))) as server:
        assert not is_dsm(server.port)


def test_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    with web(dsm) as server:
        assert is_dsm(server.port)


# The login.


def test_logs_in_and_out() -> None:
    with web(dsm) as server:
        login(server.port, "ciadmin", PASSWORD)
        assert [words["method"] for _, _, words in server.seen] == ["login", "logout"]
        # Addresses end up in logs.
        assert {(method, path) for method, path, _ in server.seen} == {
            ("POST", "/webapi/entry.cgi")
        }


def refusal(answer: Answer, kind: type[VmbakeError]) -> str:
    with web(constant(answer)) as server, pytest.raises(kind) as caught:
        login(server.port, "ciadmin", PASSWORD)
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def test_wrong_password() -> None:
    with web(dsm) as server, pytest.raises(BadInput) as caught:
        login(server.port, "ciadmin", "guessed")
    assert "the password is wrong (error 400)" in str(caught.value)
    assert "DSM_ADMIN_PASS" in caught.value.hint
    assert "guessed" not in str(caught.value)


@pytest.mark.parametrize(("code", "word"), [(401, "disabled"), (407, "blocks"), (410, "changed")])
def test_accounts_that_may_not(code: int, word: str) -> None:
    assert word in refusal(said({"success": False, "error": {"code": code}}), BadInput)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ((200, PLACEHOLDER), "no JSON"),
        ((503, b""), "status is 503"),
        (said({"success": False, "error": {"code": 102}}), "error 102"),
        (said({"success": False}), "error None"),
        (said({"success": True}), "no session"),
        (said({"success": True, "data": {"sid": 5}}), "no session"),
    ],
)
def test_no_api(answer: Answer, word: str) -> None:
    assert word in refusal(answer, MachineFailed)


def test_login_where_nothing_listens(closed_port: int) -> None:
    with pytest.raises(MachineFailed, match="ConnectionRefusedError"):
        login(closed_port, "ciadmin", PASSWORD)


def test_failed_logout_is_said() -> None:
    def answer(method: str, path: str, words: dict[str, str]) -> Answer:
        return (503, b"") if words["method"] == "logout" else dsm(method, path, words)

    with web(answer) as server, pytest.raises(MachineFailed, match="logout"):
        login(server.port, "ciadmin", PASSWORD)


# NFS.

ACCEPTED, DENIED = 0, 1


def record(*words: int, rest: bytes = b"", pieces: int = 1) -> bytes:
    """A reply in record marking, cut into fragments."""
    message = struct.pack(f">{len(words)}I", *words) + rest
    step = -(-len(message) // pieces)
    parts = [message[i : i + step] for i in range(0, len(message), step)]
    last = len(parts) - 1
    return b"".join(
        struct.pack(">I", len(part) | (0x80000000 if i == last else 0)) + part
        for i, part in enumerate(parts)
    )


def nfs(answer: Callable[[int], bytes]) -> Callable[[socket.socket], None]:
    """An RPC server that takes the call apart, and replies by `answer(xid)`."""

    def serve(channel: socket.socket) -> None:
        call = channel.recv(4096)
        header, xid, kind, version, program, nfs_version, procedure = struct.unpack_from(
            ">7I", call
        )
        assert header == 0x80000000 | (len(call) - 4)
        assert (kind, version, program, nfs_version, procedure) == (0, 2, 100003, 3, 0)
        assert call[28:] == bytes(16)
        channel.sendall(answer(xid))
        until_hung_up(channel)

    return serve


@pytest.mark.parametrize(
    "answer",
    [
        lambda xid: record(xid, 1, ACCEPTED, 0, 0, 0),
        lambda xid: record(xid, 1, ACCEPTED, 0, 0, 0, pieces=5),
        # A proof of five bytes, filled up to eight.
        lambda xid: record(xid, 1, ACCEPTED, 1, 5, rest=b"proof\0\0\0" + struct.pack(">I", 0)),
        lambda xid: record(xid, 1, ACCEPTED, 1, 400, rest=bytes(404)),
        # NFS is there, but only version 4.
        lambda xid: record(xid, 1, ACCEPTED, 0, 0, 2, 4, 4),
    ],
    ids=["plain", "fragments", "verifier", "longest verifier", "other version"],
)
def test_nfs_answers(answer: Callable[[int], bytes]) -> None:
    with listening(nfs(answer)) as port:
        assert answers_nfs(port, timeout_s=2)


@pytest.mark.parametrize(
    "answer",
    [
        lambda xid: record(xid ^ 1, 1, ACCEPTED, 0, 0, 0),
        lambda xid: record(xid, 0, ACCEPTED, 0, 0, 0),
        lambda xid: record(xid, 1, DENIED, 0, 2, 2),
        lambda xid: record(xid, 1, DENIED, 1, 0, 0),
        lambda xid: record(xid, 1, ACCEPTED, 0, 0, 1),
        lambda xid: record(xid, 1, ACCEPTED, 1, 5, rest=b"proof\0\0\0" + struct.pack(">I", 1)),
        lambda xid: record(xid, 1, ACCEPTED),
        lambda xid: record(xid, 1),
        lambda xid: record(xid, 1, ACCEPTED, 0, 0xFFFFFFFF, 0),
        lambda _: b"",
        lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        lambda xid: record(xid, 1, ACCEPTED, 0, 0, 0)[:-1],
        lambda _: struct.pack(">I", 0x7FFFFFFF),
    ],
    ids=[
        *("other call's", "a call", "denied", "denied by zeros", "no NFS program"),
        *("no NFS program, with verifier", "cut short", "no state"),
        *("endless proof", "silent", "web server", "one byte missing", "endless record"),
    ],
)
def test_what_is_not_nfs(answer: Callable[[int], bytes]) -> None:
    with listening(nfs(answer)) as port:
        assert not answers_nfs(port, timeout_s=0.3)


@pytest.mark.parametrize("serve", [hangs_up, until_hung_up])
def test_a_port_that_only_accepts(serve: Callable[[socket.socket], None]) -> None:
    with listening(serve) as port:
        assert not answers_nfs(port, timeout_s=0.3)
