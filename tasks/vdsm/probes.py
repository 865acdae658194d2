"""Whether it is really DSM that answers on a port of this machine.

A connection proves nothing: Docker's proxy and QEMU's user-mode network accept it before there is
anything behind them, and a page proves little: upstream's placeholder answers everything by one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tasks.core.errors import BadInput, MachineFailed, VmbakeError

HOST = "127.0.0.1"
# Synology, "DSM Login Web API Guide": one address for all calls, the answers are JSON.
API = "/webapi/entry.cgi"
INFO = f"{API}?api=SYNO.API.Info&version=1&method=query"
AUTH = {"api": "SYNO.API.Auth", "version": "6"}
MOST_ANSWER_BYTES = 4 << 20
READ_BYTES = 64 << 10
PROBE_TIMEOUT_S = 10.0
LOGIN_TIMEOUT_S = 60.0

# The guide's error codes of SYNO.API.Auth that are about the account.
ACCOUNT_ERRORS = {
    400: "there is no such account, or the password is wrong",
    401: "the account is disabled",
    402: "the account may not log in",
    403: "it wants a code of two-factor authentication, too",
    404: "it wants a code of two-factor authentication, too",
    406: "it wants two-factor authentication to be set up first",
    407: "it blocks this address after too many failures",
    408: "the password has expired",
    409: "the password has expired",
    410: "the password must be changed first",
}

# ONC RPC (RFC 5531): message types, states and the null procedure; NFS is program 100003.
CALL, REPLY = 0, 1
MSG_ACCEPTED = 0
SUCCESS, PROG_MISMATCH = 0, 2
RPC_VERSION = 2
NFS_PROGRAM, NFS_VERSION = 100003, 3
NULL_PROCEDURE = 0
AUTH_NONE = (0, 0)
LAST_FRAGMENT = 1 << 31
MOST_RPC_BYTES = 64 << 10


class NoDsm(Exception):
    """What is behind the port is no DSM; the text is a clause that says what it is."""


class Reply(NamedTuple):
    """The two fields of an RPC reply that matter here."""

    xid: int
    accepted: int | None


def is_dsm(port: int, *, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether DSM's API answers, by its own list of what it can do."""
    try:
        return ask(port, "GET", INFO, {}, timeout_s).get("success") is True
    except NoDsm:
        return False


def login(port: int, user: str, password: str, *, timeout_s: float = LOGIN_TIMEOUT_S) -> None:
    """Log in, and out again.

    Raises:
        BadInput: DSM doesn't let this account in.
        MachineFailed: no DSM answers, or it answers what it shouldn't.
    """
    session = call_auth(
        port, {"method": "login", "account": user, "passwd": password, "format": "sid"}, timeout_s
    )
    if not isinstance(session.get("sid"), str):
        raise MachineFailed(f"DSM on port {port} accepted the login, but gave no session.")
    call_auth(port, {"method": "logout", "_sid": session["sid"]}, timeout_s)


def call_auth(port: int, words: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
    """Call a method of SYNO.API.Auth; its data.

    The words are in the request's body: an address ends up in logs.

    Raises:
        BadInput, MachineFailed: as `login`.
    """
    method = words["method"]
    try:
        answer = ask(port, "POST", API, {**AUTH, **words}, timeout_s)
    except NoDsm as error:
        raise MachineFailed(
            f"No DSM answers the {method} on port {port}: {error}.",
            hint="The container's log says what became of it.",
        ) from error
    if answer.get("success") is not True:
        raise refused(method, answer)
    data = answer.get("data")
    return data if isinstance(data, dict) else {}


def refused(method: str, answer: Mapping[str, Any]) -> VmbakeError:
    """The error for a call that DSM understood and did not do."""
    error = answer.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if method == "login" and code in ACCOUNT_ERRORS:
        return BadInput(
            f"DSM refuses the login: {ACCOUNT_ERRORS[code]} (error {code}).",
            hint="The account is the one that the wizard was told: DSM_ADMIN_USER and "
            "DSM_ADMIN_PASS must be the same as then.",
        )
    return MachineFailed(f"DSM's API refuses the {method} (error {code}).")


def ask(
    port: int, method: str, path: str, words: Mapping[str, str], timeout_s: float
) -> dict[str, Any]:
    """A call to DSM's API and the JSON object that it answers. Proxies are not for loopback.

    Raises:
        NoDsm: the answer is none of DSM's.
    """
    deadline = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    body = urlencode(words) if words else None
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if words else {}
    try:
        with contextlib.closing(connection):
            connection.request(method, path, body, {**headers, "Connection": "close"})
            with connection.getresponse() as response:
                text = read_body(response, deadline)
    except (OSError, http.client.HTTPException) as error:
        raise NoDsm(f"the request failed ({type(error).__name__})") from error
    if response.status != http.client.OK:
        raise NoDsm(f"the status is {response.status}")
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise NoDsm("the answer is no JSON") from error
    if not isinstance(answer, dict):
        raise NoDsm("the answer is no JSON object")
    return answer


def read_body(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole body; the socket's own limit holds for each piece only.

    Raises:
        OSError: it took too long, or the connection broke.
        NoDsm: no list of DSM's is that long.
    """
    body = b""
    while chunk := response.read1(READ_BYTES):
        body += chunk
        if time.monotonic() > deadline:
            raise TimeoutError
        if len(body) > MOST_ANSWER_BYTES:
            raise NoDsm("the answer has no end")
    return body


def answers_nfs(port: int, *, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether an NFS server answers a null call over TCP, in any version of NFS."""
    xid = secrets.randbits(32)
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((HOST, port), timeout_s) as channel:
            channel.sendall(null_call(xid))
            reply = parse_reply(receive_record(channel, deadline))
    except (OSError, ValueError, struct.error):
        return False
    return reply.xid == xid and reply.accepted in (SUCCESS, PROG_MISMATCH)


def null_call(xid: int) -> bytes:
    """The call of NFS version 3 that does nothing, as one record (RFC 5531, 9 and 11)."""
    message = struct.pack(
        ">10I",
        *(xid, CALL, RPC_VERSION, NFS_PROGRAM, NFS_VERSION, NULL_PROCEDURE),
        *(*AUTH_NONE, *AUTH_NONE),  # who calls, and the proof of it
    )
    return struct.pack(">I", LAST_FRAGMENT | len(message)) + message


def receive_record(channel: socket.socket, deadline: float) -> bytes:
    """One record of one or more fragments.

    Raises:
        OSError: the connection ended, or it took too long.
        ValueError: no server of a null call answers so much.
    """
    record = b""
    while True:
        (header,) = struct.unpack(">I", receive_exactly(channel, 4, deadline))
        size_bytes = header & ~LAST_FRAGMENT
        if len(record) + size_bytes > MOST_RPC_BYTES:
            raise ValueError("the record is too long")
        record += receive_exactly(channel, size_bytes, deadline)
        if header & LAST_FRAGMENT:
            return record


def receive_exactly(channel: socket.socket, size_bytes: int, deadline: float) -> bytes:
    """So many bytes.

    Raises:
        OSError: the connection ended before, or it took too long.
    """
    data = b""
    while len(data) < size_bytes:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        channel.settimeout(left_s)
        if not (chunk := channel.recv(size_bytes - len(data))):
            raise ConnectionResetError
        data += chunk
    return data


def parse_reply(message: bytes) -> Reply:
    """The state of an RPC reply; `accepted` is None if it was denied.

    Raises:
        ValueError, struct.error: it is no reply.
    """
    xid, kind, state = struct.unpack_from(">3I", message)
    if kind != REPLY:
        raise ValueError("that is no reply")
    if state != MSG_ACCEPTED:
        return Reply(xid, None)
    _, proof_bytes = struct.unpack_from(">2I", message, 12)
    padded_bytes = (proof_bytes + 3) & ~3
    (accepted,) = struct.unpack_from(">I", message, 20 + padded_bytes)
    return Reply(xid, accepted)
