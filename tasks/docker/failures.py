"""Turns what the Docker SDK raises into vmbake's errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from tasks.core.errors import (
    Busy,
    CannotRun,
    CommandFailed,
    MachineFailed,
    NoRoom,
    TimedOut,
    VmbakeError,
)
from tasks.core.process import printable

NOT_FOUND, CONFLICT = 404, 409

# The engine's own words; they differ between its versions (20.10 to 28 are covered).
PORT_TAKEN = re.compile(r"127\.0\.0\.1:(\d+).*(?:port is already allocated|address already in use)")
NAME_TAKEN = re.compile(r'container name "/?([^"]+)" is already in use')
NO_DEVICE = re.compile(r'adding custom device "([^"]+)"')
DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


class EngineGone(MachineFailed):
    """The Docker engine ended or hung up while it was needed."""


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise vmbake's error for what the SDK, or a library below it, raises in the block.

    Args:
        doing: what the block asks for, to complete "The Docker engine could not …".

    Raises:
        EngineGone: the connection to the engine was lost.
        TimedOut: the engine did not answer in time.
        NoRoom: the engine's disk is full.
        Busy: a port or a name is taken.
        CannotRun: the engine's host lacks a device, or the engine is too old for what was asked.
        CommandFailed: the engine refused, for another reason; with its text.
    """
    try:
        yield
    except VmbakeError:
        raise
    except Exception as error:
        failure = translate(error, doing)
        if failure is None:
            raise
        raise failure from error


def translate(error: Exception, doing: str) -> VmbakeError | None:
    """The error for an exception of the SDK or of a library below it; None for all others."""
    from docker.errors import APIError, DockerException, InvalidVersion, StreamParseError

    if isinstance(error, APIError):
        return refusal(str(error.explanation or error), doing)
    if isinstance(error, InvalidVersion):
        return CannotRun(f"The Docker engine is too old to {doing}: {error}")
    if isinstance(error, DockerException):
        return refusal(str(error), doing)
    if not (is_of_transport(error) or isinstance(error, (ConnectionError, StreamParseError))):
        return None
    if "timed out" in str(error).lower():
        return TimedOut(f"The Docker engine did not answer in time when it was to {doing}.")
    return EngineGone(
        f"The Docker engine went away when it was to {doing}.",
        hint="Look at its log (sudo journalctl -u docker), and start it again: finished stages "
        "are kept.",
    )


def is_of_transport(error: BaseException) -> bool:
    """Whether an exception belongs to the HTTP libraries under the SDK.

    They are told by name: only another layer may import them.
    """
    libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return not libraries.isdisjoint({"requests", "urllib3"})


def refusal(text: str, doing: str) -> VmbakeError:
    """The error for what the engine itself said."""
    text = one_line(text)
    if found := PORT_TAKEN.search(text):
        return Busy(
            f"Port {found[1]} of this machine is in use.",
            hint="Choose another one, or 0 for any free one.",
        )
    if found := NAME_TAKEN.search(text):
        return Busy(f"There is a container of the name {found[1]} already.")
    if found := NO_DEVICE.search(text):
        return CannotRun(
            f"The machine of the Docker engine has no usable device {found[1]}.",
            hint="inv doctor says what is missing.",
        )
    if DISK_FULL.search(text):
        return NoRoom(
            f"The Docker engine's disk is full; it could not {doing} ({text}).",
            hint="Make room where the engine keeps its data: docker system df shows what takes it.",
        )
    return CommandFailed(f"The Docker engine could not {doing}: {text}.")


def one_line(text: str) -> str:
    """What somebody else wrote, as part of a sentence."""
    return " ".join(printable(line) for line in text.splitlines()).strip().rstrip(".")


def status_of(failure: VmbakeError) -> int | None:
    """The HTTP status with which the engine refused, if it did."""
    status = getattr(failure.__cause__, "status_code", None)
    return status if isinstance(status, int) else None
