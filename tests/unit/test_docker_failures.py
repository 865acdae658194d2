"""What the engine, the SDK and registries say, in vmbake's own errors."""

from __future__ import annotations

import http.client
from typing import Any

import docker.errors
import pytest
import requests
import urllib3

from tasks.core.errors import (
    Busy,
    CannotRun,
    CommandFailed,
    DownloadFailed,
    MachineFailed,
    NoRoom,
    TimedOut,
    VmbakeError,
)
from tasks.docker.failures import EngineGone, status_of, translated
from tasks.docker.registry import digest_in, explain, split_reference, transfer


def refusal(text: str, status: int = 500) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("message", response=response, explanation=text)


# Engines 20.10 and 28 say the same in different words.
PORT_TAKEN = (
    (
        "driver failed programming external connectivity on endpoint dsm (0123): Bind for "
        "127.0.0.1:5000 failed: port is already allocated"
    ),
    (
        "driver failed programming external connectivity on endpoint dsm (0123): Error starting "
        "userland proxy: listen tcp4 127.0.0.1:5000: bind: address already in use"
    ),
    (
        "failed to set up container networking: driver failed programming external connectivity on "
        "endpoint dsm (0123): failed to bind host port for 127.0.0.1:5000:172.17.0.2:80/tcp: "
        "address already in use"
    ),
)


@pytest.mark.parametrize("text", PORT_TAKEN)
def test_a_taken_port_is_named(text: str) -> None:
    with pytest.raises(Busy, match=r"^Port 5000 of this machine is in use\."), translated("start"):
        raise refusal(text)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            (
                'Conflict. The container name "/dsm" is already in use by container "0123". '
                "You have to remove (or rename) that container to be able to reuse that name."
            ),
            Busy,
            "of the name dsm already",
        ),
        (
            (
                'error gathering device information while adding custom device "/dev/kvm": no such '
                "file or directory"
            ),
            CannotRun,
            "device /dev/kvm",
        ),
        (
            "write /storage/disk.img: no space left on device",
            NoRoom,
            "disk is full; it could not start dsm",
        ),
        ("something\nelse\x1b[1m.\n", CommandFailed, r"could not start dsm: something else\[1m\.$"),
    ],
)
def test_refusals(text: str, kind: type[VmbakeError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught, translated("start dsm"):
        raise refusal(text, 409)
    assert type(caught.value) is kind
    assert status_of(caught.value) == 409


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("Connection aborted."),
        requests.exceptions.ChunkedEncodingError("Connection broken"),
        urllib3.exceptions.ProtocolError("Connection broken: IncompleteRead"),
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(32, "Broken pipe"),
        docker.errors.StreamParseError("half a message"),
    ],
)
def test_a_lost_connection(error: Exception) -> None:
    with pytest.raises(EngineGone, match=r"went away when it was to wait\.") as caught:
        raising(error)
    assert isinstance(caught.value, MachineFailed)
    assert caught.value.__cause__ is error
    assert status_of(caught.value) is None


@pytest.mark.parametrize(
    "error",
    [
        requests.ReadTimeout("Read timed out. (read timeout=60)"),
        requests.ConnectionError(urllib3.exceptions.ReadTimeoutError(None, "/", "Read timed out.")),  # type: ignore[arg-type]
        urllib3.exceptions.ReadTimeoutError(None, "/", "Read timed out."),  # type: ignore[arg-type]
    ],
)
def test_an_engine_that_takes_too_long(error: Exception) -> None:
    with pytest.raises(TimedOut, match="did not answer in time when it was to wait"):
        raising(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("ours"),
        KeyError("ours"),
        FileNotFoundError("ours"),
        http.client.HTTPException("ours"),
    ],
)
def test_a_mistake_of_our_own_stays_one(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        raising(error)
    assert caught.value is error


def raising(error: BaseException) -> None:
    with translated("wait"):
        raise error


def test_other_errors_of_the_sdk() -> None:
    with pytest.raises(CannotRun, match="too old to pull"), translated("pull"):
        raise docker.errors.InvalidVersion("platform is not supported for API version < 1.41")
    with pytest.raises(CommandFailed, match="could not pull: Invalid"), translated("pull"):
        raise docker.errors.InvalidRepository("Invalid index name")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("unauthorized: authentication required", "wants a login"),
        ("no basic auth credentials", "wants a login"),
        (
            "denied: requested access to the resource is denied",
            "does not allow it, or has no such image",
        ),
        (
            (
                "pull access denied for nobody/nothing, repository does not exist or may require "
                "'docker login': denied: requested access to the resource is denied"
            ),
            "does not allow it, or has no such image",
        ),
        (
            (
                'Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid on '
                "192.0.2.1:53: no such host"
            ),
            "there is no such host",
        ),
        (
            'Get "https://registry.invalid/v2/": x509: certificate signed by unknown authority',
            "its certificate is not trusted",
        ),
        (
            (
                'Get "https://registry.invalid/v2/": tls: failed to verify certificate: x509: '
                "certificate signed by unknown authority"
            ),
            "its certificate is not trusted",
        ),
        (
            'Get "https://192.0.2.1:5000/v2/": http: server gave HTTP response to HTTPS client',
            "speaks plain HTTP",
        ),
        (
            'Get "http://127.0.0.1:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused',
            "does not answer",
        ),
        ("manifest for 127.0.0.1:5000/x:1 not found: manifest unknown", "has no such image"),
    ],
)
def test_registries_fail_for_many_reasons(text: str, why: str) -> None:
    error = explain(text, "push x:1")
    assert isinstance(error, DownloadFailed)
    assert error.what.startswith("Docker could not push x:1: ")
    assert why in error.what
    assert text in error.what
    assert error.hint


def test_a_full_disk_is_no_registry_trouble() -> None:
    error = explain("write /var/lib/docker/tmp/x: no space left on device", "pull x")
    assert isinstance(error, NoRoom)


DIGEST = f"sha256:{'ab' * 32}"


def test_a_transfer_is_followed_to_its_end() -> None:
    messages: list[dict[str, Any]] = [
        {"status": "Pulling from x", "id": "1"},
        {"status": "Pulling fs layer", "progressDetail": {}, "id": "a"},
        {"status": "Downloading", "progressDetail": {"current": 10, "total": 100}, "id": "a"},
        {"status": "Downloading", "progressDetail": {"current": 5, "total": 50}, "id": "b"},
        {"status": "Extracting", "progressDetail": {"current": 1, "total": 999}, "id": "a"},
        {"status": "Downloading", "progressDetail": {"current": 60, "total": 50}, "id": "b"},
        {"status": "Downloading", "progressDetail": {"current": 100, "total": 100}, "id": "a"},
        {"status": f"Digest: {DIGEST}"},
        {"status": "Status: Downloaded newer image"},
    ]
    told: list[tuple[int, int | None]] = []
    digest = transfer(messages, "pull", "Downloading", lambda *said: told.append(said))
    assert digest == DIGEST
    assert told == [(10, 100), (15, 150), (70, 150), (150, 150)]


def test_a_transfer_that_fails_says_why_after_its_last_message() -> None:
    messages = iter([{"error": "denied: no", "errorDetail": {"message": "denied: no"}}, {}])
    with pytest.raises(DownloadFailed, match="denied"):
        transfer(messages, "push", "Pushing", None)
    assert list(messages) == []
    with pytest.raises(DownloadFailed, match="did not say what came of it"):
        transfer([{"status": "Pushed"}], "push", "Pushing", None)


def test_digests_in_messages() -> None:
    assert digest_in({"progressDetail": {}, "aux": {"Tag": "1", "Digest": DIGEST}}) == DIGEST
    assert digest_in({"status": f"1: digest: {DIGEST} size: 1"}) == ""
    assert digest_in({"status": "Digest: nonsense"}) == ""


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("name", ("name", "latest")),
        ("name:1", ("name", "1")),
        ("host:5000/name", ("host:5000/name", "latest")),
        ("host:5000/group/name:1.2", ("host:5000/group/name", "1.2")),
        (f"host:5000/name@{DIGEST}", ("host:5000/name", DIGEST)),
    ],
)
def test_references_are_split(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts
