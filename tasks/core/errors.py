"""Every failure that a user can cause or cure, one class and one exit code per cause.

A message is a short paragraph: what failed, on which object, what was expected. The way out
is the hint. Anything that is not a VmbakeError is a bug in vmbake and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class VmbakeError(Exception):
    """Base of the tree.

    Args:
        what: what failed, on which object, and what was expected.
        hint: what the user can do about it.
        log: the file that holds the whole story, if there is one.
        tail: the last lines of that story that matter, oldest first.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        hint: str = "",
        log: Path | None = None,
        tail: tuple[str, ...] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.log = log
        self.tail = tail

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".rstrip()


class BadInput(VmbakeError):
    """An option, a setting or a file that the user named is not what it should be."""

    exit_code = 2


class MissingTool(VmbakeError):
    """A program that this stage needs is not installed."""

    exit_code = 3


class NoRoom(VmbakeError):
    """The disk is too small, or filled up on the way."""

    exit_code = 4


class DownloadFailed(VmbakeError):
    """The server did not deliver the file."""

    exit_code = 5


class VerificationFailed(VmbakeError):
    """The bytes are there and are not the ones that were promised."""

    exit_code = 6


class CommandFailed(VmbakeError):
    """A program that vmbake ran ended with an error.

    Args:
        status: its exit status; negative: the signal that ended it.
    """

    exit_code = 7

    def __init__(self, what: str, *, status: int = 1, **more: Any) -> None:
        super().__init__(what, **more)
        self.status = status


class MachineFailed(VmbakeError):
    """QEMU ended, or the guest died, before it was asked to."""

    exit_code = 8


class TimedOut(VmbakeError):
    """Something did not happen within the time it was given."""

    exit_code = 9


class Busy(VmbakeError):
    """Another process holds what this one needs: a port, a lock."""

    exit_code = 10


class CompileFailed(VmbakeError):
    """The user's source did not compile."""

    exit_code = 11


class CannotRun(VmbakeError):
    """This machine cannot do the job; `inv doctor` says why."""

    exit_code = 12


class ProvisionFailed(VmbakeError):
    """DSM's wizard did not take what it was told, or is not the wizard that we know."""

    exit_code = 13


class SeveralFailed(VmbakeError):
    """Stages that do not stand on each other failed in one run; the first decides the status."""

    def __init__(self, errors: Sequence[VmbakeError]) -> None:
        super().__init__(" ".join(map(str, errors)))
        self.errors = tuple(errors)
        self.exit_code = errors[0].exit_code


class ValidationFailed(VmbakeError):
    """An image is not what it should be, or could not be validated."""

    exit_code = 14


class PipelineFailed(VmbakeError):
    """An image was not built, or another part of the pipeline than an image failed."""

    exit_code = 15
