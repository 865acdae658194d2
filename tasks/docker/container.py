"""A container that lives as long as a block does: `with Container.started(…) as c:`."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from tasks.core.errors import CommandFailed, MachineFailed, TimedOut, VmbakeError
from tasks.core.process import tail_of
from tasks.docker import files
from tasks.docker.execute import Executed, Session, Stream, execute
from tasks.docker.failures import translated
from tasks.docker.files import Content
from tasks.docker.follow import ExitStatus, Follower
from tasks.docker.runs import RUN_LABEL, Run
from tasks.docker.spec import ContainerSpec, request

T = TypeVar("T")
EXEC_TIMEOUT_S = 60.0
# What waits for a condition that nobody announces looks this often.
POLL_S = 0.1
# Between a container's last breath and the word of it.
NEWS_S = 5.0


class Container:
    """A container of a run; made by `created` or `started`.

    Args:
        name: unique in the engine; `docker logs NAME` and the like take it.
        log: what its output goes to, once it is started.
    """

    def __init__(self, run: Run, spec: ContainerSpec, name: str) -> None:
        self.engine = run.engine
        self.spec = spec
        self.name = name
        self.id = ""
        self.log: Path | None = None
        self._run = run
        self._follower: Follower | None = None
        self._streams: list[Stream] = []
        self._kept = False

    # Begin and end

    @classmethod
    @contextlib.contextmanager
    def created(cls, run: Run, spec: ContainerSpec) -> Iterator[Container]:
        """A container that is not started; gone with its anonymous volumes after the block.

        Raises:
            CommandFailed: the engine refused; there is no such image, for example.
            EngineGone: the engine does not answer.
        """
        container = cls(run, spec, run.claim(spec.name))
        try:
            container._create()
            yield container
        except BaseException:
            # A failure to clean up must not hide the first one; a sweep finds what is left.
            with contextlib.suppress(VmbakeError):
                container._leave()
            raise
        container._leave()

    @classmethod
    @contextlib.contextmanager
    def started(cls, run: Run, spec: ContainerSpec, *, log: Path) -> Iterator[Container]:
        """A container that runs.

        Raises:
            Busy: a port that the spec names is taken.
            CannotRun: the engine's machine lacks a device.
            CommandFailed, EngineGone: as `created`.
        """
        with cls.created(run, spec) as container:
            container.start(log)
            yield container

    def start(self, log: Path) -> None:
        """Start it, and follow its output into the file `log`.

        Raises: as `started`.
        """
        self.log = log
        self._follower = Follower(self.engine, self.id, self.name, log)
        self._follower.start()
        with translated(f"start the container {self.name}"):
            self.engine.api.start(self.id)

    def keep(self) -> str:
        """Let it stay as it is when the block ends, and for good. Returns its new name.

        Raises:
            EngineGone, CommandFailed: it will be removed like any other.
        """
        self.name = self._run.give_up(self.name)
        self._kept = True
        return self.name

    def _create(self) -> None:
        body = request(self.spec, {RUN_LABEL: self._run.id})
        with translated(f"create the container {self.name} from {self.spec.image}"):
            created = self.engine.api.create_container_from_config(body, name=self.name)
        self.id = str(created["Id"])

    def _leave(self) -> None:
        with ExitStack() as stack:
            for stream in self._streams:
                stack.callback(stream.close)
            if self._follower is not None:
                stack.callback(self._follower.close)
            if not self._kept:
                self._run.remove(self.name)

    # Its life

    @property
    def ended(self) -> ExitStatus | None:
        """How it ended; None if it has not, or was not started."""
        outcome = self._outcome
        return outcome if isinstance(outcome, ExitStatus) else None

    def wait_until(
        self, condition: Callable[[], T | None], *, what: str, timeout_s: float, hint: str = ""
    ) -> T:
        """Ask `condition` again and again until it returns something, and return that.

        Args:
            what: the thing waited for, to complete "… while waiting for …".

        Raises:
            MachineFailed: the container ended.
            EngineGone: the engine did.
            TimedOut: neither happened within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._require_running(f"while waiting for {what}")
            result = condition()
            if result is not None:
                return result
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimedOut(
                    f"There was no {what} from the container {self.name} within {timeout_s:g} s.",
                    hint=hint,
                    log=self.log,
                    tail=self.tail,
                )
            # Ends early when the container does.
            self._ended.wait(min(POLL_S, left_s))

    def wait_end(self, timeout_s: float) -> ExitStatus:
        """Wait for it to end by itself.

        Raises:
            TimedOut: it still runs after `timeout_s` seconds.
            EngineGone: the engine ended first.
        """
        if not self._ended.wait(timeout_s):
            raise TimedOut(
                f"The container {self.name} did not end within {timeout_s:g} s.",
                log=self.log,
                tail=self.tail,
            )
        outcome = self._outcome
        if not isinstance(outcome, ExitStatus):
            raise self._failure("while waiting for its end")
        return outcome

    def stop(self) -> ExitStatus:
        """Ask it to end, kill it if it does not within the spec's `grace_s`.

        Raises:
            EngineGone, TimedOut: the engine did not do it.
        """
        with translated(f"stop the container {self.name}"):
            self.engine.api.stop(self.id, timeout=self.spec.grace_s)
        return self.wait_end(NEWS_S)

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send its first process a signal.

        Raises:
            CommandFailed: it doesn't run.
        """
        with self._alive(f"send {signal} to the container {self.name}"):
            self.engine.api.kill(self.id, signal=signal)

    def pause(self) -> None:
        """Freeze all its processes."""
        with self._alive(f"pause the container {self.name}"):
            self.engine.api.pause(self.id)

    def unpause(self) -> None:
        """Let them go on."""
        with self._alive(f"unpause the container {self.name}"):
            self.engine.api.unpause(self.id)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of its output."""
        return tail_of(self.log) if self.log else ()

    # What can be done with it

    def port(self, number: int) -> int:
        """The port on 127.0.0.1 at which a TCP port of the container is published.

        Raises:
            MachineFailed: the container has ended.
            KeyError: the spec doesn't publish it.
        """
        self.spec.ports[number]
        bound = self.inspect()["NetworkSettings"]["Ports"].get(f"{number}/tcp")
        if not bound:
            self._is_over()
            raise self._failure(f"and so its port {number} is not published")
        return int(bound[0]["HostPort"])

    def exec(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = EXEC_TIMEOUT_S
    ) -> Executed:
        """Run a program in it to its end. 126 and 127 are the codes if it can't be started.

        Args:
            stdin: what it reads; the place for secrets, which must not be in `argv`.

        Raises:
            MachineFailed: the container ended.
            TimedOut: the program had not ended after `timeout_s` seconds; it may still run.
        """
        with self._alive(f"run {argv[0]} in the container {self.name}"):
            session = Session(self.engine, self.id, argv)
            return execute(session, stdin, timeout_s)

    def open_stream(
        self, argv: Sequence[str], on_stderr: Callable[[bytes], None] | None = None
    ) -> socket.socket:
        """A connected socket that is the input and output of a program started in the container.

        It reads as ended when the program, the container or the engine ends. When it is closed,
        the program's input ends; a program that doesn't end then goes on in the container (such
        as `nc -U` without -N).

        Args:
            on_stderr: called, in another thread, with what the program writes there.

        Raises:
            MachineFailed: the container ended.
        """
        with self._alive(f"run {argv[0]} in the container {self.name}"):
            session = Session(self.engine, self.id, argv)
        stream = Stream(session, on_stderr or ignore)
        self._streams.append(stream)
        return stream.theirs

    def find_file(self, path: str) -> bytes | None:
        """The content of a plain file; None if there is none.

        Raises: as files.read.
        """
        return files.read(self.engine.api, self.name, path)

    def read_file(self, path: str) -> bytes:
        """The content of a plain file.

        Raises:
            CommandFailed: there is none, or as files.read.
        """
        content = self.find_file(path)
        if content is None:
            raise CommandFailed(f"The container {self.name} has no file {path}.")
        return content

    def write_files(self, contents: Mapping[str, bytes | Content]) -> None:
        """Write files, path to content; missing folders are made.

        Raises: as files.write.
        """
        files.write(
            self.engine.api,
            self.name,
            {
                path: content if isinstance(content, Content) else Content(data=content)
                for path, content in contents.items()
            },
        )

    def inspect(self) -> dict[str, Any]:
        """What the engine says of it, as in `docker inspect`.

        Raises:
            EngineGone: the engine does not answer.
        """
        with translated(f"describe the container {self.name}"):
            found: dict[str, Any] = self.engine.api.inspect_container(self.id)
        return found

    # Its end

    @property
    def _ended(self) -> threading.Event:
        assert self._follower is not None, "the container was not started"
        return self._follower.ended

    @property
    def _outcome(self) -> ExitStatus | VmbakeError | None:
        return self._follower.outcome if self._follower else None

    def _require_running(self, undone: str) -> None:
        if self._ended.is_set():
            raise self._failure(undone)

    @contextlib.contextmanager
    def _alive(self, doing: str) -> Iterator[None]:
        """What can't be done to a container that has ended fails by its end."""
        try:
            with translated(doing):
                yield
        except (CommandFailed, MachineFailed) as error:
            if self._follower is not None and self._is_over():
                raise self._failure(f"when it was to {doing}") from error
            raise

    def _is_over(self) -> bool:
        with contextlib.suppress(VmbakeError):
            if self.inspect()["State"]["Running"]:
                return False
        return self._ended.wait(NEWS_S)

    def _failure(self, undone: str) -> VmbakeError:
        """The error for a container that has ended before its time."""
        outcome = self._outcome
        if isinstance(outcome, VmbakeError):
            return type(outcome)(
                f"{outcome.what.rstrip('.')} ({undone}).",
                hint=outcome.hint,
                log=self.log,
                tail=self.tail,
            )
        how = "has not ended" if outcome is None else self._describe(outcome)
        return MachineFailed(
            f"The container {self.name} {how} {undone}.",
            hint=self.spec.exit_remedy(outcome.code) if outcome else "",
            log=self.log,
            tail=self.tail,
        )

    def _describe(self, status: ExitStatus) -> str:
        reasons = (
            self.spec.exit_reason(status.code),
            "the kernel ended it because memory ran out" if status.oom_killed else "",
            status.error,
        )
        known = "; ".join(filter(None, reasons))
        return f"ended with exit code {status.code}" + (f" ({known})" if known else "")


def ignore(data: bytes) -> None:
    """Take what a program says and do nothing with it."""
