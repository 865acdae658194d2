"""GitHub annotations: the worst problems of a run where its readers look first.

GitHub shows ten of a kind per step and drops the others without a word, so there are never more
(https://github.com/orgs/community/discussions/26680).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from tasks.artifacts.checks import Validation
from tasks.ci.problems import WHOLE, Problem, labels, problems
from tasks.ci.text import one_line

MOST = 10
NAMED = 3


def announce(
    validations: Sequence[Validation],
    stream: TextIO | None = None,
    env: Mapping[str, str] = os.environ,
) -> int:
    """Print the annotations where GitHub reads them; elsewhere nothing. Returns how many.

    Args:
        stream: stdout if None; GitHub reads both, stdout is the documented one.
    """
    if env.get("GITHUB_ACTIONS") != "true":
        return 0
    lines = workflow_commands(validations)
    for line in lines:
        print(line, file=stream or sys.stdout, flush=True)
    return len(lines)


def workflow_commands(validations: Sequence[Validation]) -> list[str]:
    """At most ten workflow commands, the worst problem first."""
    found = problems(validations)
    names = labels(validations)
    # Ten fit; if there are more, the tenth says so.
    shown = found if len(found) <= MOST else found[: MOST - 1]
    lines = [annotation(problem, names) for problem in shown]
    if left := len(found) - len(shown):
        lines.append(command("error", f"{left} more problems", "See the summary of this run."))
    return lines


def annotation(problem: Problem, names: Sequence[str]) -> str:
    """One problem as a workflow command."""
    images = [names[place.image] for place in problem.places]
    named = ", ".join(images[:NAMED])
    if len(images) > NAMED:
        named += f" and {len(images) - NAMED} more"
    verb = "failed" if problem.outcome == "failed" else "could not be done"
    title = f"{named}: {problem.group}: {problem.name} {verb}"
    if problem.group == WHOLE:
        title = f"{named}: {problem.name.lower()}"
    return command("error", one_line(title), one_line(problem.reason))


def command(kind: str, title: str, message: str) -> str:
    """A workflow command of GitHub Actions, escaped as its toolkit does.

    Source: actions/toolkit, packages/core/src/command.ts: `%`, CR and LF everywhere, `:` and `,`
    in properties.
    """
    return f"::{kind} title={in_property(title)}::{in_message(message)}"


def in_message(text: str) -> str:
    """Escaped for what stands after the second `::`."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def in_property(text: str) -> str:
    """Escaped for the value of a property."""
    return in_message(text).replace(":", "%3A").replace(",", "%2C")
