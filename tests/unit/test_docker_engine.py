"""The way to an engine: each thing that can be wrong with it is told apart."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import docker.utils  # noqa: F401 - before rights are given up, which it needs to be imported
import pytest

from tasks.core.errors import BadInput, CannotRun, TimedOut
from tasks.docker.engine import connect, how_to_start
from tests.standins.fake_engine import serving

NOBODY = 65534
INFO = {
    "ID": "ABCD:EFGH",
    "NCPU": 3,
    "MemTotal": 5 << 30,
    "DockerRootDir": "/",
    "Name": "somewhere-else",
}


def version(api: str, oldest: str = "1.12", engine: str = "20.10.24") -> dict[str, str]:
    return {"Version": engine, "ApiVersion": api, "MinAPIVersion": oldest, "Arch": "arm64"}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the engine of the test is, or would be."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_an_engine_describes_itself(path: Path) -> None:
    answers = {"/version": version("1.41"), "/info": INFO}
    with serving(path, answers) as fake, connect() as engine:
        facts = engine.facts
        assert (facts.version, facts.cores, facts.memory_bytes) == ("20.10.24", 3, 5 << 30)
        assert (facts.root, facts.architecture) == ("/", "arm64")
        # It says that it runs on another machine.
        assert facts.free_bytes is None
        assert engine.id == "ABCD:EFGH"
        assert fake.asked[0] == "/version"
        assert set(fake.asked[1:]) == {"/v1.41/info", "/v1.41/version"}


def test_room_is_told_of_an_engine_on_this_machine(path: Path) -> None:
    here = {**INFO, "Name": os.uname().nodename}
    with serving(path, {"/version": version("1.41"), "/info": here}), connect() as engine:
        assert engine.facts.free_bytes is not None
        assert engine.facts.free_bytes > 0


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [("1.41", "1.12", "1.41"), ("1.99", "1.24", "1.45"), ("1.99", "1.60", "1.60")],
)
def test_the_version_that_both_know_is_spoken(
    path: Path, newest: str, oldest: str, spoken: str
) -> None:
    with serving(path, {"/version": version(newest, oldest)}), connect() as engine:
        assert engine.api.api_version == spoken


def test_an_old_engine_is_refused(path: Path) -> None:
    answers = {"/version": version("1.40", engine="19.03.15")}
    with serving(path, answers), pytest.raises(CannotRun, match=r"19\.03\.15; at least 20\.10"):
        connect()


def test_no_engine(path: Path) -> None:
    with pytest.raises(CannotRun, match="No such file or directory") as caught:
        connect()
    assert str(path) in caught.value.what
    assert "DOCKER_HOST" in caught.value.hint


def test_an_engine_that_has_ended(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(CannotRun, match="Connection refused"):
        connect()


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be an ordinary user."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_engine_that_we_may_not_use(path: Path) -> None:
    with serving(path, {"/version": version("1.41")}):
        path.chmod(0)
        with unprivileged(), pytest.raises(CannotRun, match="permission denied") as caught:
            connect()
    assert "usermod -aG docker" in caught.value.hint


def test_an_engine_that_says_nothing(path: Path) -> None:
    with (
        serving(path, {"/version": None}),
        pytest.raises(TimedOut, match="did not answer in time when it was to say its version"),
    ):
        connect(timeout_s=0.2)


@pytest.mark.parametrize("address", ["nonsense://x", "tcp://", "tcp://127.0.0.1"])
def test_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(BadInput, match="address of the Docker engine can't be used"):
        connect()


def test_a_port_where_no_engine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    with pytest.raises(CannotRun, match=f"answers at tcp://127.0.0.1:{port} .*refused"):
        connect()


def test_a_context_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "missing")
    with pytest.raises(BadInput, match="no Docker context 'missing'"):
        connect()


@pytest.mark.parametrize(
    ("platform", "services", "hint"),
    [("linux", True, "systemctl start docker"), ("linux", False, "sudo dockerd"),
     ("darwin", False, "Docker Desktop")],
)  # fmt: skip
def test_how_to_start_it_depends_on_the_machine(
    platform: str, services: bool, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "is_dir", lambda path: services)
    assert hint in how_to_start({})
    assert "DOCKER_HOST" in how_to_start({"DOCKER_HOST": "tcp://elsewhere:2376"})
