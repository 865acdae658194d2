"""pytest-testinfra over the shell that is open anyway: files, services, mounts as objects.

Its own SSH backends would open a connection for each command, and read the user's configuration.
"""

from __future__ import annotations

from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from tasks.guest.shell import Shell


class ShellBackend(BaseBackend):  # type: ignore[misc] # it has no types
    """Runs testinfra's commands in the guest's shell."""

    NAME = "vmbake"

    def __init__(self, shell: Shell, timeout_s: float) -> None:
        super().__init__("guest")
        self._shell = shell
        self._timeout_s = timeout_s
        self.ran: list[str] = []
        self.said: list[str] = []

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run one command line; testinfra's `%s` stand for quoted arguments."""
        line = self.get_command(command, *args)
        answer = self._shell.run(line, timeout_s=self._timeout_s)
        self.ran.append(line)
        self.said.append(answer.said)
        return self.result(answer.status, line.encode(), answer.stdout, answer.stderr)


class Asked:
    """testinfra's view of a guest: it remembers what it has found out about it."""

    def __init__(self, shell: Shell, timeout_s: float) -> None:
        self._backend = ShellBackend(shell, timeout_s)
        self._host = Host(self._backend)

    def ask(self, module: str, argument: str, name: str) -> tuple[Any, str, str]:
        """A property of an object: its value, the last command for it, and what that said.

        Raises:
            CommandFailed, TimedOut: the guest can't be asked any more.
            AssertionError, LookupError, RuntimeError, TypeError, ValueError: testinfra could not
                make sense of it.
        """
        self._backend.ran, self._backend.said = [], []
        value = getattr(getattr(self._host, module)(argument), name)
        value = value() if callable(value) else value
        ran, said = self._backend.ran, self._backend.said
        return value, ran[-1] if ran else "", said[-1] if said else ""
