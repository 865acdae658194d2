"""A shell in a guest that stays open: a command costs no new connection, login or sudo.

Under TCG a command of its own over a shared SSH connection costs 0.3 s, in here a tenth of it.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tasks.core.errors import CommandFailed, TimedOut
from tasks.core.process import Runner, Talk, tail_of

CHUNK_BYTES = 64 * 1024
# timeout(1) ends the command; only if that does not work either is the shell given up.
GRACE_S = 15.0
KILL_AFTER_S = 5
TIMED_OUT_STATUS = 124


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command said; status 124: it was ended after its time."""

    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def said(self) -> str:
        """Both outputs as a person would read them."""
        return "\n".join(filter(None, (self.stdout.rstrip(), self.stderr.rstrip())))


class Shell:
    """The shell; made by Ssh.shell().

    Args:
        cause: called when the connection ends; raises if it knows why.
    """

    def __init__(
        self,
        words: socket.socket,
        errors: socket.socket,
        runner: Runner,
        cause: Callable[[], None] | None = None,
    ) -> None:
        self._cause = cause or nothing_known
        self._words = words
        self._errors = errors
        self._runner = runner
        self._broken = ""

    def run(self, command: str, *, timeout_s: float) -> Answer:
        """Run a command line of sh to its end.

        Raises:
            CommandFailed: the connection ended.
            MachineFailed: it did because the machine failed.
            TimedOut: the guest did not even end the command after its time.
        """
        if self._broken:
            raise CommandFailed(f"The guest's shell is lost: {self._broken}")
        mark = secrets.token_hex(8)
        since = time.monotonic()
        self._send(request(command, mark, timeout_s))
        try:
            out, errors = self._receive(mark, since + timeout_s + KILL_AFTER_S + GRACE_S)
        except (CommandFailed, TimedOut) as error:
            self._broken = error.what
            if isinstance(error, CommandFailed):
                self._cause()
            raise
        text, _, status = out.rpartition(f"\n{mark} ")
        answer = Answer(
            command=command,
            status=int(status),
            stdout=text,
            stderr=errors.rpartition(f"\n{mark}")[0],
            seconds=time.monotonic() - since,
        )
        self._runner.note(f"in the guest: {command}")
        self._runner.note(f"status {answer.status} after {answer.seconds:.2f} s")
        for line in answer.said.splitlines():
            self._runner.note(f"  {line}")
        return answer

    def _send(self, text: str) -> None:
        with contextlib.suppress(OSError):  # reading tells that nobody is there
            self._words.sendall(text.encode())

    def _receive(self, mark: str, deadline: float) -> tuple[str, str]:
        """Both outputs, up to and with their last lines, which have the mark."""
        heard = {self._words: b"", self._errors: b""}
        missing = set(heard)
        with selectors.DefaultSelector() as selector:
            for channel in heard:
                selector.register(channel, selectors.EVENT_READ, channel)
            while missing:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimedOut("The guest does not answer any more.", tail=self._last(heard))
                for key, _ in selector.select(left_s):
                    channel = key.data
                    data = received(channel)
                    if not data:
                        raise CommandFailed(
                            "The connection to the guest ended.", tail=self._last(heard)
                        )
                    heard[channel] += data
                    if is_complete(heard[channel], mark):
                        missing.discard(channel)
        out, errors = (heard[channel].decode(errors="replace") for channel in heard)
        return out, errors

    def _last(self, heard: dict[socket.socket, bytes]) -> tuple[str, ...]:
        said = heard[self._errors].decode(errors="replace").splitlines()
        return tuple(said[-5:]) or tail_of(self._runner.log, 5)


def received(channel: socket.socket) -> bytes:
    """What has come; b"" if nothing will come any more."""
    with contextlib.suppress(OSError):
        return channel.recv(CHUNK_BYTES)
    return b""


def is_complete(data: bytes, mark: str) -> bool:
    """Whether the last line of a command's output is there."""
    _, found, tail = data.rpartition(f"\n{mark}".encode())
    return bool(found) and tail.endswith(b"\n")


def request(command: str, mark: str, timeout_s: float) -> str:
    """What sh reads to run one command and to mark the ends of both outputs."""
    limit = f"timeout -k {KILL_AFTER_S} {max(1, round(timeout_s))}"
    return (
        f"{limit} sh -c {shlex.quote(command)} < /dev/null; "
        f"printf '\\n%s %s\\n' {mark} $?; printf '\\n%s\\n' {mark} >&2\n"
    )


def nothing_known() -> None:
    """Know no cause."""


@contextlib.contextmanager
def opened(
    argv: tuple[str, ...], runner: Runner, cause: Callable[[], None] | None = None
) -> Iterator[Shell]:
    """Start a program that reads commands of sh; leaving the block ends it."""
    words, theirs = socket.socketpair()
    errors, their_errors = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.enter_context(words)
        stack.enter_context(errors)
        with theirs, their_errors:
            talk = Talk(words=theirs.fileno(), errors=their_errors.fileno())
            stack.enter_context(runner.start(argv, talk=talk))
        # Only the program holds the other ends now: when it ends, ours read as ended.
        yield Shell(words, errors, runner, cause)
