"""Runs checks, one after the other, whatever becomes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.artifacts.checks import Check, Outcome
from tasks.core.errors import CommandFailed, MachineFailed, TimedOut, VmbakeError
from tasks.validate.catalogue import Spec, fill
from tasks.validate.facts import Facts
from tasks.validate.judging import complaint, difference, kept

if TYPE_CHECKING:
    from tasks.guest.shell import Shell
    from tasks.validate.asking import Asked
    from tasks.validate.sealed import SealedDisk

# What testinfra raises where it makes no sense of a guest: a file or a mount that isn't there.
UNKNOWABLE = (AssertionError, LookupError, RuntimeError, TypeError, ValueError)
Done = Callable[[Check], None]


def check_of(spec: Spec, outcome: Outcome, *, reason: str = "", output: str = "",
             seconds: float = 0.0) -> Check:  # fmt: skip
    """The record of a check."""
    return Check(
        group=spec.group,
        name=spec.name,
        command=spec.command or " ".join(spec.ask),
        expected=spec.expected,
        outcome=outcome,
        reason=reason,
        output=kept(output),
        seconds=round(seconds, 3),
    )


def prepared(spec: Spec, facts: Facts) -> Spec | Check:
    """The check with its values; or its record, if it does not apply."""
    if reason := facts.reason_to_skip(spec):
        return check_of(spec, "skipped", reason=reason)
    try:
        return fill(spec, facts.values)
    except KeyError as error:
        return check_of(spec, "skipped", reason=f"The image does not say its {error.args[0]}.")


def judged(spec: Spec, status: int, output: str, said: str, seconds: float) -> Check:
    """The record of a check that has an answer."""
    reason = complaint(spec, status, output)
    outcome: Outcome = "failed" if reason else "passed"
    return check_of(spec, outcome, reason=reason, output=said, seconds=seconds)


def unanswered(spec: Spec, error: VmbakeError) -> Check:
    """The record of a check that could not be made."""
    return check_of(spec, "error", reason=error.what, output="\n".join(error.tail))


def check_disk(specs: Iterable[Spec], disk: SealedDisk | str, facts: Facts, done: Done) -> None:
    """Ask the sealed disk; what it can't be asked is skipped."""
    for spec in specs:
        ready = prepared(spec, facts)
        if isinstance(ready, Check):
            done(ready)
        elif isinstance(disk, str):
            done(check_of(ready, "skipped", reason=disk))
        else:
            since = time.monotonic()
            try:
                said = disk.ask(ready.command)
            except VmbakeError as error:
                done(unanswered(ready, error))
                continue
            asked = replace(ready, command=said.command)
            done(judged(asked, 0, said.stdout, said.stdout, time.monotonic() - since))


class GuestChecks:
    """Asks one guest.

    Args:
        done: told each check's record.
    """

    def __init__(self, shell: Shell, facts: Facts, done: Done) -> None:
        self._shell = shell
        self._facts = facts
        self._done = done
        self._asked: Asked | None = None
        self.lost: VmbakeError | None = None

    def run(self, specs: Iterable[Spec]) -> None:
        """Make each check. When the guest does not answer any more, the rest are errors."""
        for spec in specs:
            ready = prepared(spec, self._facts)
            if isinstance(ready, Check):
                self._done(ready)
            elif self.lost is not None:
                self._done(unanswered(ready, self.lost))
            else:
                self._done(self._check(ready))

    def _check(self, spec: Spec) -> Check:
        try:
            return self._ask(spec) if spec.ask else self._run(spec)
        except (CommandFailed, MachineFailed, TimedOut) as error:
            self.lost = error
            return unanswered(spec, error)

    def _run(self, spec: Spec) -> Check:
        answer = self._shell.run(spec.command, timeout_s=spec.timeout_s)
        # Where the output is judged, complaints of the program are not part of it.
        judged_text = answer.stdout if answer.status == spec.status else answer.said
        return judged(spec, answer.status, judged_text, answer.said, answer.seconds)

    def _ask(self, spec: Spec) -> Check:
        asked = self._library(spec)
        module, argument, name = spec.ask
        since = time.monotonic()
        label = f"{module}({argument!r}).{name}"
        try:
            value, ran, said = asked.ask(module, argument, name)
        except UNKNOWABLE as error:
            shown = replace(spec, command=label)
            reason = f"{label} could not be found out: {error!r}"
            return check_of(shown, "failed", reason=reason, seconds=time.monotonic() - since)
        shown = replace(spec, command=ran or label)
        text, wanted = (f"{v:04o}" if name == "mode" else str(v) for v in (value, spec.equals))
        reason = difference(wanted, text)
        outcome: Outcome = "failed" if reason else "passed"
        reason = reason and f"{label}: {reason}"
        seconds = time.monotonic() - since
        return check_of(shown, outcome, reason=reason, output=said, seconds=seconds)

    def _library(self, spec: Spec) -> Asked:
        if self._asked is None:
            from tasks.validate.asking import Asked

            self._asked = Asked(self._shell, spec.timeout_s)
        return self._asked
