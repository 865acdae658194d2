"""The one place that starts other programs: argv lists, closed stdin, a known environment, a log.

Every program ends with the block or call that started it, and with this process if that is
killed. Ruff bans subprocess everywhere else.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypedDict, Unpack

from tasks.core.crew import waking, whole
from tasks.core.errors import CommandFailed, TimedOut
from tasks.core.tools import require_tool

# What a program may know of its caller: where programs and homes are, and the way to the network.
PASSED_ON = (
    *("PATH", "HOME", "USER", "TMPDIR"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
TAIL_LINES = 20
GRACE_S = 10.0
# A third of the weight of what runs beside it (sched(7)): little hindrance, and with others on the
# machine still not starved.
NICE = 5


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every program: PASSED_ON, a fixed locale, then `extra`."""
    known = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Debian gives ordinary users no sbin, where sfdisk and mke2fs live.
    known["PATH"] = f"{known.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    return {**known, "LC_ALL": "C.UTF-8", **(extra or {})}


def tail_of(log: Path, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a log file, without terminal control characters; () if it has none."""
    # A carriage return begins no new line: of a progress bar only its last state is to be seen.
    with (
        contextlib.suppress(OSError),
        log.open(encoding="utf-8", errors="replace", newline="\n") as stream,
    ):
        return tuple(deque(filter(None, map(printable, stream)), maxlen=lines))
    return ()


def printable(line: str) -> str:
    """`line` without its line end and without control characters that would move a cursor."""
    visible = line.rstrip().rpartition("\r")[2]
    return "".join(char for char in visible if char.isprintable() or char == "\t")


@dataclass(kw_only=True)
class Process:
    """A program that is running; made by Runner.start."""

    argv: tuple[str, ...]
    log: Path
    popen: subprocess.Popen[bytes] = field(repr=False)
    released: bool = False

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.popen.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Wait until it ends; None if it still runs after `timeout_s` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.popen.wait(timeout_s)
        return None

    def release(self) -> None:
        """Let it go on when its block is left; it must have been started with `outlive`."""
        self.released = True
        # Python would warn that nobody waits for it.
        self.popen.returncode = 0

    def stop_aside(self) -> None:
        """Begin to end it, and don't wait for that."""
        threading.Thread(target=self.stop, daemon=True).start()

    @whole
    def stop(self, grace_s: float = GRACE_S) -> None:
        """End it and all it started: ask, wait `grace_s` seconds, kill. Harmless if it is gone."""
        if self.popen.poll() is None:
            signal_group(self.pid, signal.SIGTERM)
            self.wait(grace_s)
        # The leader, if it did not listen; else what it left in its group, which may hold its
        # output open.
        signal_group(self.pid, signal.SIGKILL)
        self.popen.wait()


def signal_group(pgid: int, number: signal.Signals) -> None:
    """Signal a process group that start_new_session made; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)


@dataclass(frozen=True, kw_only=True)
class Talk:
    """The file descriptors of a program that is talked with, as socket.fileno() has them.

    Args:
        words: its standard input and output; errors: its standard error.
    """

    words: int
    errors: int


# Standard input, output and error, as subprocess takes them.
Streams = tuple[int | IO[bytes], int | IO[bytes], int]


class How(TypedDict, total=False):
    """What may be said about a program that runs to its end.

    Args:
        stdin: bytes or an open file for its standard input; closed if None.
        env: more environment variables.
        timeout_s: seconds until it is ended; the runner's limit if not given.
        hint: what the user can do if it fails.
    """

    stdin: bytes | IO[bytes] | None
    env: Mapping[str, str] | None
    cwd: Path | None
    timeout_s: float
    hint: str


class Runner:
    """Runs programs on the host and writes their command lines and output to one log file.

    Args:
        log: the file that is appended to.
        env: more environment variables for every program.
        timeout_s: the default limit for each program, in seconds.
        gives_way: its programs get what processor time the others leave.
    """

    def __init__(
        self,
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 1800,
        gives_way: bool = False,
    ) -> None:
        self.log = log
        self.env = dict(env or {})
        self.timeout_s = timeout_s
        self.gives_way = gives_way

    def giving_way(self) -> Runner:
        """The same for programs whose end nobody waits for as long as others work."""
        return Runner(self.log, env=self.env, timeout_s=self.timeout_s, gives_way=True)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[Process], None] | None = None,
        **how: Unpack[How],
    ) -> None:
        """Run a program to its end; stdout and stderr go to the log.

        Args:
            on_line: called with each line of output as it appears.
            on_start: called with the running program, for those who may have to stop it.

        Raises:
            MissingTool: the program is not installed.
            CommandFailed: it ended with another status than 0.
            TimedOut: it was still running after `timeout_s` seconds.
        """
        self._communicate(argv, how, on_line or ignore, merge=True, on_start=on_start)

    def output(self, argv: Sequence[str | Path], **how: Unpack[How]) -> str:
        """Run a program to its end and return its stdout; stderr goes to the log.

        Raises: as `run`.
        """
        lines: list[str] = []
        self._communicate(argv, how, lines.append, merge=False)
        return "".join(lines)

    @contextlib.contextmanager
    def start(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        talk: Talk | None = None,
        outlive: bool = False,
    ) -> Iterator[Process]:
        """Start a program that runs beside this one; leaving the block ends it.

        Args:
            pass_fds: file descriptors that it inherits.
            talk: where it reads and writes, instead of nowhere and into the log.
            outlive: it is not tied to this process's life (leaving the block still ends it).
        """
        with contextlib.ExitStack() as stack:
            if talk is None:
                log = stack.enter_context(self._log())
                streams: Streams = (subprocess.DEVNULL, log, subprocess.STDOUT)
            else:
                streams = (talk.words, talk.words, talk.errors)
            process = self._spawn(argv, env, cwd, streams, pass_fds, outlive)
            try:
                stack.close()
                yield process
            finally:
                if not process.released:
                    process.stop()

    def hand_over(self, argv: Sequence[str | Path]) -> int:
        """Run a program that has our stdin, stdout and stderr to itself, and return its status.

        It stays in our process group, because only there it may use the terminal, and Ctrl-C
        reaches us both. Nothing of it is in the log but its command line.

        Raises:
            MissingTool: the program is not installed.
        """
        words = tuple(str(word) for word in argv)
        require_tool(words[0])
        self.note(f"$ {shlex.join(words)}")
        sys.stdout.flush()
        with terminal_as_it_was():
            popen = share_streams((*death_tie(), *words), environment(self.env))
            try:
                with waking(popen.terminate):
                    return popen.wait()
            finally:
                if popen.poll() is None:
                    popen.terminate()
                    popen.wait()

    def note(self, text: str) -> None:
        """Write a line of our own to the log."""
        with self._log() as log:
            log.write(f"# {text}\n".encode())

    def _communicate(
        self,
        argv: Sequence[str | Path],
        how: How,
        on_line: Callable[[str], None],
        *,
        merge: bool,
        on_start: Callable[[Process], None] | None = None,
    ) -> None:
        limit_s = how.get("timeout_s", self.timeout_s)
        stdin = how.get("stdin")
        hint = how.get("hint", "")
        source: int | IO[bytes]
        if isinstance(stdin, bytes):
            source = subprocess.PIPE
        else:
            source = subprocess.DEVNULL if stdin is None else stdin
        with self._log() as log:
            stderr = subprocess.STDOUT if merge else log.fileno()
            streams = (source, subprocess.PIPE, stderr)
            process = self._spawn(argv, how.get("env"), how.get("cwd"), streams, (), False)
            try:
                if on_start:
                    on_start(process)
                with ending_after(limit_s, process) as expired, waking(process.stop_aside):
                    if isinstance(stdin, bytes):
                        feed(process.popen, stdin)
                    assert process.popen.stdout is not None
                    for raw in process.popen.stdout:
                        if merge:
                            log.write(raw)
                            log.flush()
                        on_line(raw.decode(errors="replace"))
                    status = process.popen.wait()
            finally:
                process.stop()
                if process.popen.stdout is not None:
                    process.popen.stdout.close()
        name = Path(str(argv[0])).name
        if expired.is_set():
            raise TimedOut(
                f"{name} did not finish within {limit_s:.0f} s.",
                hint=hint,
                log=self.log,
                tail=tail_of(self.log),
            )
        if status != 0:
            raise CommandFailed(
                f"{name} failed ({describe_status(status)}).",
                status=status,
                hint=hint,
                log=self.log,
                tail=tail_of(self.log),
            )

    @whole
    def _spawn(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None,
        cwd: Path | None,
        streams: Streams,
        pass_fds: Sequence[int],
        outlive: bool,
    ) -> Process:
        words = tuple(str(word) for word in argv)
        require_tool(words[0])
        tied = words if outlive else (*death_tie(), *words)
        variables = environment({**self.env, **(env or {})})
        self.note(f"$ {shlex.join(words)}")
        stdin, stdout, stderr = streams
        popen = subprocess.Popen(
            tied,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=variables,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        if self.gives_way:
            give_way(popen.pid)
        return Process(argv=words, log=self.log, popen=popen)

    def _log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return self.log.open("ab")


@whole
def share_streams(words: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program that has our stdin, stdout and stderr."""
    return subprocess.Popen(words, env=env)


def give_way(session: int) -> None:
    """Put a session that start_new_session made behind all others; no harm if it is over."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpriority(os.PRIO_PGRP, session, NICE)
    # Where the kernel shares out by sessions first, niceness counts only within each (sched(7)).
    with contextlib.suppress(OSError):
        Path(f"/proc/{session}/autogroup").write_text(f"{NICE}\n")


def death_tie() -> tuple[str, ...]:
    """Words that, before a command, end it when this process dies, even by SIGKILL.

    The kernel sends the signal (PR_SET_PDEATHSIG, see prctl(2)); other systems have no such
    thing, and there only the orderly ways out end the child.
    """
    if sys.platform == "linux" and (setpriv := shutil.which("setpriv")):
        return (setpriv, "--pdeathsig", "TERM", "--")
    return ()


@contextlib.contextmanager
def terminal_as_it_was() -> Iterator[None]:
    """Undo what a program did to the terminal's settings and, being ended, did not undo itself."""
    import termios

    if not sys.stdin.isatty():
        yield
        return
    settings = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)


@contextlib.contextmanager
def ending_after(limit_s: float, process: Process) -> Iterator[threading.Event]:
    """Stop `process` if the block lasts longer than `limit_s`; the event tells whether it did."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.stop()

    timer = threading.Timer(limit_s, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def feed(popen: subprocess.Popen[bytes], data: bytes) -> None:
    """Write all of `data` to the program's stdin from a thread, so that its output can't block."""

    def write() -> None:
        assert popen.stdin is not None
        with contextlib.suppress(BrokenPipeError), popen.stdin as pipe:
            pipe.write(data)

    threading.Thread(target=write, daemon=True).start()


def describe_status(status: int) -> str:
    """A wait status in words: `exit status 2`, or the name of the signal."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def ignore(line: str) -> None:
    """Take a line of output and do nothing with it: the log has it."""
