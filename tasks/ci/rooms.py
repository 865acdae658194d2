"""Runs the tasks of the other rooms as programs, for a room never imports another."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import CommandFailed, TimedOut
from tasks.core.process import Runner, printable

INVOKE = (sys.executable, "-m", "invoke")
# The settings that these tasks read; nothing else of the environment, as it may hold secrets.
SETTINGS = ("VEXFS_", "VALIDATE_", "VMBAKE_", "DOCKER_HOST")
# What is kept of the time for the report, when a task takes all that is left.
REPORT_S = 60
STAGE_ENDED = re.compile(r"(?P<stage>[\w.-]+): (?:failed|interrupted) after (?P<seconds>[\d.]+) s")
ERROR = "error: "


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a task ended.

    Args:
        status: its exit status; negative: the signal that ended it.
        lines: what it said, stdout and stderr together.
        log: where all of it is, with the command.
    """

    status: int
    lines: tuple[str, ...]
    log: Path

    @property
    def reason(self) -> str:
        """Why it failed, in a sentence; "" if it didn't."""
        if self.status == 0:
            return ""
        said = [line for line in self.lines if line.strip()]
        errors = [line.removeprefix(ERROR) for line in said if line.startswith(ERROR)]
        if errors:
            return errors[0]
        last = f" Its last line: {said[-1].strip()}" if said else ""
        how = f"by signal {-self.status}" if self.status < 0 else f"with status {self.status}"
        return f"It ended {how} and gave no reason.{last}"

    @property
    def failed_stage(self) -> tuple[str, float]:
        """The stage that failed and the seconds that it took; ("", 0.0) if none did."""
        for line in reversed(self.lines):
            if match := STAGE_ENDED.fullmatch(line):
                return match["stage"], float(match["seconds"])
        return "", 0.0


class Rooms:
    """The tasks of this checkout.

    Args:
        root: of the checkout.
        logs: the folder for one log per task.
        left_s: how many seconds there are until the pipeline has to end.
        argv: what runs tasks.
    """

    def __init__(
        self,
        root: Path,
        logs: Path,
        left_s: Callable[[], float],
        *,
        argv: Sequence[str] = INVOKE,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        self.root = root
        self.logs = logs
        self.env = {name: value for name, value in env.items() if name.startswith(SETTINGS)}
        self._left_s = left_s
        self._argv = tuple(argv)

    @property
    def limit_s(self) -> int:
        """How many seconds a task may take, so that the report can still be made."""
        return max(int(self._left_s()) - REPORT_S, 1)

    def run(
        self, name: str, words: Sequence[str], on_line: Callable[[str], None] | None = None
    ) -> Ended:
        """Run a task to its end, whatever that is.

        Args:
            name: of its log.
            words: the task and its flags.
        """
        lines: list[str] = []

        def take(raw: str) -> None:
            lines.append(printable(raw))
            if on_line:
                on_line(lines[-1])

        runner = Runner(self.logs / f"{name}.log", env=self.env, timeout_s=self.limit_s + 15)
        status = 0
        try:
            runner.run([*self._argv, *words], on_line=take, cwd=self.root)
        except CommandFailed as error:
            status = error.status
        except TimedOut as error:
            status = error.exit_code
            lines.append(f"{ERROR}{error.what}")
        return Ended(status=status, lines=tuple(lines), log=runner.log)
