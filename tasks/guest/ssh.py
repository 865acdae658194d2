"""Commands in a guest, by the OpenSSH client: one connection, a pinned host key, no user config."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tasks.core.errors import CommandFailed, TimedOut
from tasks.core.process import Process, Runner, tail_of
from tasks.guest.shell import Shell, opened

LOOPBACK = "127.0.0.1"
# The name in known_hosts: the port is another one at each start, the key is not.
HOST_ALIAS = "vmbake-guest"
CONNECT_TIMEOUT_S = 20
RETRY_S = 0.5
# How often the control socket is looked for: ssh has no other way to say that it is there.
LOOK_S = 0.05
# An emulated guest under load can be silent for minutes; only then is it given up.
ALIVE_INTERVAL_S, ALIVE_COUNT = 15, 20
COMMAND_TIMEOUT_S = 1800.0
# QEMU's end reaches us a moment later than the end of the connection that it causes.
CAUSE_S = 1.0
# A unix socket's path has at most 107 bytes, and ssh appends 17 while it makes one.
LONGEST_SOCKET_DIRECTORY = 70
# Debian's and Ubuntu's; started by sudo, it reads and writes root's files.
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
# Read all, then run: a command can't eat the rest of the script from stdin, and the braces
# keep sh from running a script that a broken connection cut short.
RUN_STDIN = 'eval "$(cat)"'


class Reachable(Protocol):
    """The machine behind the port; tasks.qemu.machine.Machine is one."""

    @property
    def ssh_port(self) -> int | None: ...

    def pause(self, seconds: float) -> None:
        """Let time pass; raise if the machine fails."""

    def on_trouble(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the machine fails."""


class Ssh:
    """A connection to a guest, shared by all commands of the block.

    Args:
        key: the private key, for this guest only.
        host_key: the guest's public host key (`ssh-ed25519 AAAA…`), which we gave it.
        runner: its log gets the commands and their output.
    """

    def __init__(
        self, machine: Reachable, *, user: str, key: Path, host_key: str, runner: Runner
    ) -> None:
        self._machine = machine
        self._user = user
        self._key = key
        self._host_key = host_key.strip()
        self._runner = runner
        self._stack = ExitStack()
        self._master: Process | None = None
        self._directory = Path()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._directory = stack.enter_context(private_directory())
            kind_and_key = " ".join(self._host_key.split()[:2])
            self._known_hosts.write_text(f"{HOST_ALIAS} {kind_and_key}\n")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def command_for_humans(self) -> str:
        """The ssh command for a person to paste; it needs nothing of this block."""
        options = (
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        )
        where = ("-i", str(self._key), "-p", str(self._port), f"{self._user}@{LOOPBACK}")
        return shlex.join(("ssh", *options, "-o", "LogLevel=ERROR", *where))

    def wait(self, timeout_s: float) -> None:
        """Connect, as often as it takes.

        Raises:
            MachineFailed: the machine failed meanwhile.
            TimedOut: no connection within `timeout_s` seconds; with ssh's last words.
        """
        deadline = time.monotonic() + timeout_s
        while not self._connect(deadline - time.monotonic()):
            if time.monotonic() >= deadline:
                raise TimedOut(
                    f"The guest took no SSH connection of {self._user} on port {self._port} "
                    f"within {timeout_s:g} s.",
                    hint="Its console says whether sshd runs, and ssh's last words are below.",
                    log=self._runner.log,
                    tail=tail_of(self._runner.log, 5),
                )
            self._machine.pause(RETRY_S)

    def run(
        self,
        script: str,
        *,
        what: str,
        sudo: bool = True,
        timeout_s: float = COMMAND_TIMEOUT_S,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run a shell script (`sh -eu`) in the guest; its output goes to the log as it comes.

        Args:
            what: what the script does, to begin the sentence "… failed in the guest".
            on_line: called with each line of output.

        Raises:
            CommandFailed: it ended with another status than 0, or the connection broke.
            MachineFailed: the machine failed.
            TimedOut: it still ran after `timeout_s` seconds.
        """
        self._runner.note(f"in the guest: {what}")
        with self._blaming_the_machine(what):
            self._runner.run(
                self._shell(sudo), stdin=braced(script), timeout_s=timeout_s, on_line=on_line
            )

    def output(
        self, script: str, *, what: str, sudo: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> str:
        """Run a shell script in the guest and return what it wrote to stdout.

        Raises: as `run`.
        """
        self._runner.note(f"in the guest: {what}")
        with self._blaming_the_machine(what):
            return self._runner.output(self._shell(sudo), stdin=braced(script), timeout_s=timeout_s)

    def session(self, command: str, *, terminal: bool) -> tuple[str, ...]:
        """The words of an ssh that is used by somebody else: a login shell, or one command.

        It goes through the connection of this block, as our user and without sudo.
        """
        how = ("-o", "ControlMaster=no", "-t" if terminal else "-T")
        return ("ssh", *self._options(), *how, *self._where(), *((command,) if command else ()))

    @contextlib.contextmanager
    def shell(self) -> Iterator[Shell]:
        """A shell of root that stays open while the block lasts."""
        self._runner.note("in the guest: opening a shell")
        rights = () if self._user == "root" else ("sudo", "-n")
        command = shlex.join((*rights, "env", "LC_ALL=C.UTF-8", "sh"))
        client = (*self._client(), command)
        with opened(client, self._runner, lambda: self._machine.pause(CAUSE_S)) as shell:
            yield shell

    def fetch(self, remote: str, local: Path, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Copy one file of the guest (root's too) to the host; `local` appears when complete.

        Raises: as `run`.
        """
        partial = local.with_name(f"{local.name}.part")
        try:
            self._sftp(
                f"get {quote(remote)} {quote(str(partial))}", f"Fetching {remote}", timeout_s
            )
            partial.replace(local)
        finally:
            partial.unlink(missing_ok=True)

    def send(self, local: Path, remote: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Copy one file to the guest, as root.

        Raises: as `run`.
        """
        self._sftp(f"put {quote(str(local))} {quote(remote)}", f"Sending {remote}", timeout_s)

    @property
    def _port(self) -> int:
        assert self._machine.ssh_port is not None, "the machine has no network"
        return self._machine.ssh_port

    @property
    def _known_hosts(self) -> Path:
        return self._directory / "known_hosts"

    @property
    def _control(self) -> Path:
        return self._directory / "control"

    def _options(self) -> tuple[str, ...]:
        settings = {
            "BatchMode": "yes",
            "ControlPath": str(self._control),
            "ConnectTimeout": str(CONNECT_TIMEOUT_S),
            "GlobalKnownHostsFile": "none",
            "HostKeyAlias": HOST_ALIAS,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "IdentityFile": str(self._key),
            "LogLevel": "ERROR",
            "PreferredAuthentications": "publickey",
            "ServerAliveCountMax": str(ALIVE_COUNT),
            "ServerAliveInterval": str(ALIVE_INTERVAL_S),
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": str(self._known_hosts),
        }
        pairs = (("-o", f"{name}={quote_setting(value)}") for name, value in settings.items())
        return ("-F", "none", *(word for pair in pairs for word in pair))

    def _shell(self, sudo: bool) -> tuple[str, ...]:
        shell = ("sh", "-euc", RUN_STDIN)
        return (*self._client(), shlex.join(("sudo", "-n", *shell) if sudo else shell))

    def _client(self) -> tuple[str, ...]:
        # Without the master there is no guest any more: don't wait for a connection of our own.
        return ("ssh", *self._options(), "-o", "ControlMaster=no", *self._where())

    def _where(self) -> tuple[str, ...]:
        return ("-p", str(self._port), f"{self._user}@{LOOPBACK}")

    def _sftp(self, command: str, what: str, timeout_s: float) -> None:
        server = ("-s", f"sudo -n {SFTP_SERVER}", "-b", "-", "-P", str(self._port))
        argv = ("sftp", *self._options(), *server, f"{self._user}@{LOOPBACK}")
        with self._blaming_the_machine(what):
            self._runner.run(argv, stdin=f"{command}\n".encode(), timeout_s=timeout_s)

    def _connect(self, limit_s: float) -> bool:
        """One attempt at the shared connection; it stays open until the block is left."""
        argv = ("ssh", *self._options(), "-M", "-N", *self._where())
        deadline = time.monotonic() + limit_s
        with ExitStack() as attempt:
            master = attempt.enter_context(self._runner.start(argv))
            # ssh makes the socket when the guest has let it in, and removes it when it ends.
            while not self._control.exists():
                if master.returncode is not None or time.monotonic() >= deadline:
                    return False
                self._machine.pause(LOOK_S)
            self._stack.push(attempt.pop_all())
        self._master = master
        # A command that waits for a dead guest ends with the connection.
        self._machine.on_trouble(master.popen.terminate)
        return True

    @contextlib.contextmanager
    def _blaming_the_machine(self, what: str) -> Iterator[None]:
        """Name the cause of a failure: the machine's end, if that was it."""
        try:
            yield
        except CommandFailed as error:
            self._machine.pause(CAUSE_S)
            raise CommandFailed(
                f"{what} failed in the guest: {error.what}",
                hint=error.hint,
                log=error.log,
                tail=error.tail,
            ) from error
        except TimedOut as error:
            raise TimedOut(
                f"{what} did not end in the guest: {error.what}", log=error.log, tail=error.tail
            ) from error


def braced(script: str) -> bytes:
    """A script that sh runs completely or, if its end is missing, not at all."""
    return f"{{\n{script}\n}}\n".encode()


def quote(path: str) -> str:
    """A path in an sftp command; inside the quotes sftp takes no character for a pattern."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def quote_setting(value: str) -> str:
    """A value of an ssh -o option: paths may have spaces, and % begins a token."""
    escaped = value.replace("%", "%%")
    return f'"{escaped}"' if " " in escaped else escaped


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A directory for sockets: short-named, readable by us only, gone afterwards."""
    base = tempfile.gettempdir()
    where = base if len(os.fsencode(base)) <= LONGEST_SOCKET_DIRECTORY else "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="vmbake-", dir=where) as name:
        yield Path(name)
