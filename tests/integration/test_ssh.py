"""The SSH connection with a real sshd, on this host in place of a guest."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.core.errors import CommandFailed, TimedOut
from tasks.core.process import Runner
from tasks.core.tools import require_tool
from tasks.guest.ssh import Ssh

pytestmark = pytest.mark.integration

# Nobody needs to be root: `sudo` is a stand-in, which leaves a mark.
SUDO = """#!/bin/sh
[ "$1" = -n ] && shift
echo "$*" >> MARK
exec "$@"
"""


@dataclass
class Host:
    """The machine behind the port: this one."""

    ssh_port: int | None
    directory: Path
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def on_trouble(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)


def make_key(path: Path) -> str:
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path), check=True)
    return path.with_suffix(".pub").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    sshd = require_tool("sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sudo").write_text(SUDO.replace("MARK", str(tmp_path / "sudo.log")))
    (tmp_path / "bin" / "sudo").chmod(0o755)
    make_key(tmp_path / "host_key")
    (tmp_path / "authorized").write_text(make_key(tmp_path / "key"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "ListenAddress": "127.0.0.1",
        "HostKey": tmp_path / "host_key",
        "AuthorizedKeysFile": tmp_path / "authorized",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "SetEnv": f"PATH={tmp_path / 'bin'}:/usr/bin:/bin",
    }
    config = tmp_path / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    command = (str(sshd), "-D", "-e", "-f", str(config), "-p", str(port))
    with (tmp_path / "sshd.log").open("wb") as log, subprocess.Popen(command, stderr=log) as server:
        yield Host(ssh_port=port, directory=tmp_path)
        server.terminate()


def connect(host: Host, *, host_key: str | None = None) -> Ssh:
    directory = host.directory
    return Ssh(
        host,
        user=getpass.getuser(),
        key=directory / "key",
        host_key=host_key or (directory / "host_key.pub").read_text(),
        runner=Runner(directory / "stage.log"),
    )


def test_commands_and_files_share_one_connection(host: Host) -> None:
    here = host.directory
    source = here / "a [strange] name?.bin"
    source.write_bytes(bytes(range(256)) * 400)
    with connect(host) as ssh:
        ssh.wait(timeout_s=20)
        assert ssh.output('echo "$((6 * 7))"; cat', what="Counting") == "42\n"
        with pytest.raises(CommandFailed, match=r"Compiling failed in the guest: .*status 3"):
            ssh.run("echo 'x.c:1: error' >&2; exit 3", what="Compiling")
        ssh.send(source, str(here / "there *.bin"))
        ssh.fetch(str(here / "there *.bin"), here / "back.bin")
        with pytest.raises(CommandFailed, match="Fetching /nowhere"):
            ssh.fetch("/nowhere", here / "nothing")
    assert (here / "back.bin").read_bytes() == source.read_bytes()
    assert not (here / "nothing").exists()
    assert not list(here.glob("*.part"))
    assert "x.c:1: error" in (here / "stage.log").read_text()
    assert "sftp-server" in (here / "sudo.log").read_text()
    assert (here / "sshd.log").read_text().count("Accepted publickey") == 1


def test_a_shell_stays_open(host: Host) -> None:
    with connect(host) as ssh:
        ssh.wait(timeout_s=20)
        with ssh.shell() as shell:
            first = shell.run("echo $LC_ALL; echo err >&2; exit 3", timeout_s=20)
            second = shell.run("cat", timeout_s=20)
    assert (first.status, first.stdout, first.stderr) == (3, "C.UTF-8\n", "err\n")
    assert (second.status, second.said) == (0, "")
    assert (host.directory / "sshd.log").read_text().count("Accepted publickey") == 1


def test_a_shell_ends_with_the_machine(host: Host) -> None:
    with connect(host) as ssh:
        ssh.wait(timeout_s=20)
        with ssh.shell() as shell:
            shell.run("true", timeout_s=20)
            for callback in host.callbacks:
                callback()
            with pytest.raises(CommandFailed, match="connection to the guest ended"):
                shell.run("exec sleep 60", timeout_s=60)


def test_another_host_key_is_refused(host: Host) -> None:
    other = make_key(host.directory / "other")
    with (
        connect(host, host_key=other) as ssh,
        pytest.raises(TimedOut) as caught,
    ):
        ssh.wait(timeout_s=1)
    assert any("Host key verification failed" in line for line in caught.value.tail)


def test_the_end_of_the_machine_ends_a_command(host: Host) -> None:
    with connect(host) as ssh:
        ssh.wait(timeout_s=20)
        started = time.monotonic()

        def die(line: str) -> None:
            for callback in host.callbacks:
                callback()

        with pytest.raises(CommandFailed, match="Waiting"):
            ssh.run("echo now; exec sleep 60", what="Waiting", on_line=die)
    assert time.monotonic() - started < 20


def test_a_pasted_command_works(host: Host) -> None:
    with connect(host) as ssh:
        ssh.wait(timeout_s=20)
        command = f"{ssh.command_for_humans()} echo hello"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "hello\n"
