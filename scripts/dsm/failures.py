"""What a step can fail with, one class and one exit status per cause."""

from __future__ import annotations

import signal


class Failed(Exception):
    """Base of what a step fails with; the docstrings of the causes are shown by --help."""

    status = 1


class Usage(Failed):
    """The command line, the environment or the state file is wrong."""

    status = 2


class Refused(Failed):
    """DSM refused a value, such as the password or the server name; its message is shown."""

    status = 3


class UnknownScreen(Failed):
    """DSM shows a screen that this program does not know."""

    status = 4


class TimedOut(Failed):
    """It took too long; what was on screen is shown."""

    status = 5


class LoginFailed(Failed):
    """DSM does not accept the account and the password."""

    status = 6


class NoBrowser(Failed):
    """There is no browser that works, or no ffmpeg for its videos."""

    status = 7


class Gone(Failed):
    """DSM does not answer, or no longer."""

    status = 8


class Interrupted(BaseException):
    """A signal asked for the end. No Exception: it must pass whatever handles failures."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number
