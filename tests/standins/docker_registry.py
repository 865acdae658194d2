"""A registry for images on 127.0.0.1: the distribution's docker-registry, not installed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.core.process import Runner
from tests.standins.debs import unpack
from tests.standins.ports import free_port

READY_S = 30.0


def program(directory: Path) -> Path:
    """The registry's program, fetched with apt-get."""
    return next(unpack(directory, "docker-registry").rglob("bin/docker-registry"))


@contextlib.contextmanager
def serving(registry: Path, directory: Path, htpasswd: str = "") -> Iterator[str]:
    """A registry while the block lasts; yields HOST:PORT.

    Args:
        htpasswd: a line with a name and the bcrypt hash of a password, if a login is wanted.
    """
    directory.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    settings: dict[str, object] = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "images")}},
        "http": {"addr": address},
    }
    if htpasswd:
        (directory / "htpasswd").write_text(htpasswd)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    config = directory / "config.yml"
    config.write_text(json.dumps(settings))  # which is YAML, too
    runner = Runner(directory / "registry.log")
    with runner.start([registry, "serve", config]) as process:
        deadline = time.monotonic() + READY_S
        pause = threading.Event()
        # It announces nothing; a port that takes connections is the sign.
        while not connects(address):
            assert process.returncode is None, runner.log.read_text()
            assert time.monotonic() < deadline, runner.log.read_text()
            pause.wait(0.05)
        yield address


def connects(address: str) -> bool:
    host, _, port = address.partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False
