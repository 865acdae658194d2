"""The SSH connection's own logic; a real sshd is in the integration tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.errors import CommandFailed, MachineFailed, TimedOut
from tasks.core.process import Runner
from tasks.guest.ssh import RUN_STDIN, Ssh, braced, private_directory, quote

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGu comment"
# Connects at the third attempt, by making the control socket; runs the remote command here.
FAKE_SSH = """#!/bin/sh
for word in "$@"; do
    case $word in ControlPath=*) control=${word#ControlPath=} ;; -M) master=1 ;; esac
done
if [ -n "$master" ]; then
    echo attempt >> COUNT
    if [ "$(wc -l < COUNT)" -lt ATTEMPTS ]; then
        echo "Connection reset by 127.0.0.1" >&2
        exit 255
    fi
    touch "$control"
    exec sleep 600
fi
for command; do :; done
exec sh -c "$command"
"""


class FakeMachine:
    """A machine that fails when it is told to."""

    def __init__(self) -> None:
        self.ssh_port: int | None = 2222
        self.failed = False
        self.callbacks: list[Callable[[], None]] = []

    def pause(self, seconds: float) -> None:
        if self.failed:
            raise MachineFailed("QEMU ended (killed by SIGKILL).")

    def on_trouble(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: FakeMachine
) -> Callable[[int], Ssh]:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def make(attempts: int) -> Ssh:
        text = FAKE_SSH.replace("COUNT", str(tmp_path / "count")).replace("ATTEMPTS", str(attempts))
        (programs / "ssh").write_text(text)
        (programs / "ssh").chmod(0o755)
        return Ssh(
            machine,
            user="builder",
            key=tmp_path / "key",
            host_key=HOST_KEY,
            runner=Runner(tmp_path / "stage.log"),
        )

    return make


def test_tries_until_the_guest_answers(connect: Callable[[int], Ssh], tmp_path: Path) -> None:
    with connect(3) as ssh:
        ssh.wait(timeout_s=20)
        known = (ssh._directory / "known_hosts").read_text()
        assert known == "vmbake-guest ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGu\n"
        assert ssh._directory.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "count").read_text() == "attempt\n" * 3
    assert not ssh._directory.exists()


def test_gives_up_with_sshs_last_words(connect: Callable[[int], Ssh]) -> None:
    with (
        connect(10**6) as ssh,
        pytest.raises(TimedOut, match=r"no SSH connection of builder on port 2222") as caught,
    ):
        ssh.wait(timeout_s=0.3)
    assert "Connection reset by 127.0.0.1" in caught.value.tail


def test_a_dead_machine_ends_the_attempts(
    connect: Callable[[int], Ssh], machine: FakeMachine
) -> None:
    machine.failed = True
    with connect(10**6) as ssh, pytest.raises(MachineFailed, match="SIGKILL"):
        ssh.wait(timeout_s=60)


def test_trouble_with_the_machine_ends_the_connection(
    connect: Callable[[int], Ssh], machine: FakeMachine
) -> None:
    with connect(1) as ssh:
        ssh.wait(timeout_s=20)
        assert ssh._master is not None
        for callback in machine.callbacks:
            callback()
        assert ssh._master.wait(20) is not None


def test_a_script_runs_and_its_lines_arrive(connect: Callable[[int], Ssh]) -> None:
    lines: list[str] = []
    with connect(1) as ssh:
        ssh.run("echo one\ncat\necho two", what="Talking", sudo=False, on_line=lines.append)
        assert ssh.output("echo 'a \"quoted\" word'", what="Quoting", sudo=False) == (
            'a "quoted" word\n'
        )
    assert lines == ["one\n", "two\n"]


def test_a_failing_script_is_named(connect: Callable[[int], Ssh]) -> None:
    with (
        connect(1) as ssh,
        pytest.raises(CommandFailed, match=r"^Compiling failed in the guest: .*3"),
    ):
        ssh.run("echo before; (exit 3); echo never", what="Compiling", sudo=False)


def test_the_machines_end_is_the_cause_of_a_broken_command(
    connect: Callable[[int], Ssh], machine: FakeMachine
) -> None:
    with connect(1) as ssh:
        machine.failed = True
        with pytest.raises(MachineFailed, match="SIGKILL"):
            ssh.run("exit 255", what="Compiling", sudo=False)


def test_a_script_that_was_cut_short_does_nothing(tmp_path: Path) -> None:
    """A connection that breaks while the script is sent must not run half of it."""
    sent = braced(f"echo did > {tmp_path / 'it'}\necho more")
    cut = sent[: sent.index(b"more")]
    done = subprocess.run(("sh", "-euc", RUN_STDIN), input=cut, capture_output=True, check=False)
    assert done.returncode != 0
    assert not (tmp_path / "it").exists()


def test_paths_are_quoted_for_sftp() -> None:
    assert quote('/a b/*"[x]\\') == '"/a b/*\\"[x]\\\\"'


def test_the_socket_directory_has_a_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "x" * 100)
    with private_directory() as directory:
        assert len(str(directory)) < 40


def test_the_pasteable_command_needs_nothing_of_ours(
    connect: Callable[[int], Ssh], tmp_path: Path
) -> None:
    command = connect(1).command_for_humans()
    assert command.startswith("ssh -F none")
    assert f"-i {tmp_path / 'key'} -p 2222" in command
    assert command.endswith("builder@127.0.0.1")
