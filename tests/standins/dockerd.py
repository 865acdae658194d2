"""A Docker engine of a test's own, beside whatever else runs on the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tasks.core.process import Process, Runner

READY_S = 60.0
STOP_S = 30.0
# The SDK forgets to close a socket that it could not connect.
forgive_the_sdk = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class PrivateEngine:
    """A dockerd with its data, its socket and its processes under one directory.

    Args:
        network: it gets the machine's bridge docker0 and firewall rules; only one engine at a
            time can have these. Otherwise it is in a network namespace of its own, where its
            published ports are, too: see `inside`.
        room_bytes: the size of its disk, if that is to be a small one.
    """

    def __init__(self, directory: Path, *, network: bool, room_bytes: int | None = None) -> None:
        self.directory = directory
        self.address = f"unix://{directory}/docker.sock"
        self._network = network
        self._room_bytes = room_bytes
        self._runner = Runner(directory / "dockerd.log")
        self._stack = contextlib.ExitStack()
        self._process: Process | None = None

    @property
    def log(self) -> Path:
        return self._runner.log

    @property
    def inside(self) -> tuple[str, ...]:
        """Words before a command that run it where the engine's published ports are."""
        assert self._process is not None
        return ("nsenter", f"--net=/proc/{self._process.pid}/ns/net", "--")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # The machine's own settings are for the machine's own engine.
        (self.directory / "daemon.json").write_text("{}")
        if self._room_bytes is not None:
            self._mount_disk(self._room_bytes)
        with contextlib.ExitStack() as stack:
            self._process = stack.enter_context(self._runner.start(self._command()))
            self._wait_ready(self._process)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End it in order, with its containers; it can be started again."""
        if self._process is not None:
            self._process.stop(STOP_S)
            self._process = None
        self._stack.close()

    def kill(self) -> None:
        """End it as a crash would: containers go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_S)
        self.stop()
        # Its containerd dies with it. Where nobody reaps it, the next dockerd takes it for alive.
        (self.directory / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def destroy(self) -> None:
        """End it and whatever it left: processes and mounts under its directory."""
        self.stop()
        for pid in self._shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for mount in reversed(self._mounts()):
            subprocess.run(("umount", "--lazy", mount), check=False, capture_output=True)
        assert not self._mounts()

    def _command(self) -> list[str]:
        directory = self.directory
        command = [
            *("dockerd", "--host", self.address, "--pidfile", str(directory / "docker.pid")),
            *("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")),
            *("--config-file", str(directory / "daemon.json")),
        ]
        if self._network:
            return command
        with_loopback = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        return ["unshare", "--net", "--", *with_loopback, *command]

    def _mount_disk(self, size_bytes: int) -> None:
        place = self.directory / "data"
        place.mkdir(exist_ok=True)
        options = f"size={size_bytes}"
        subprocess.run(("mount", "-t", "tmpfs", "-o", options, "none", place), check=True)

    def _wait_ready(self, process: Process) -> None:
        deadline = time.monotonic() + READY_S
        pause = threading.Event()
        # dockerd tells nobody that it is ready, except systemd.
        while not answers(self.directory / "docker.sock"):
            assert process.returncode is None, f"dockerd ended: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"dockerd is not ready: {self.log.read_text()}"
            pause.wait(0.1)

    def _shims(self) -> list[int]:
        """Processes that hold containers; their command line has containerd's socket in it."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith(bytes(self.directory / "exec")) for word in words):
                    found.append(int(entry.name))
        return found

    def _mounts(self) -> list[str]:
        lines = Path("/proc/mounts").read_text().splitlines()
        places = [line.split()[1] for line in lines]
        return [place for place in places if place.startswith(f"{self.directory}/")]


def answers(path: Path) -> bool:
    """Whether an engine at a unix socket is ready."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(READY_S)
        connection.connect(str(path))
        connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 OK" in connection.recv(100)
    return False
