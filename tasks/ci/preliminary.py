"""What is checked before anything is built: the machine, the settings, the source, the scripts.

What isn't there is skipped with its reason, never passed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.artifacts.checks import Check, Outcome
from tasks.ci.rooms import Ended, Rooms
from tasks.core.errors import CommandFailed, TimedOut
from tasks.core.process import Runner

ENVIRONMENT, SOURCE, SCRIPTS = "environment", "source", "scripts"
OUTCOMES: dict[str, Outcome] = {"ok": "passed", "warning": "skipped", "broken": "failed"}
# Where scripts are that get into images or are run for them.
FOLDERS = ("scripts", "cloud-init", ".ci")
SHELLS = (b"sh", b"bash", b"dash")
SHELLCHECK_S = 300
# A script that is run in a guest may read a file that is only there.
ELSEWHERE = "--exclude=SC1091"
MOST_OUTPUT_LINES = 60


def examine(
    rooms: Rooms, variants: Sequence[str], flags: Sequence[str], say: Callable[[str], None]
) -> tuple[Check, ...]:
    """All checks, in the order in which one would mend what they find.

    Args:
        variants: that are to be built.
        flags: that the builds get, beside their variant.
    """
    say("looking at this machine")
    found = list(environment(rooms))
    for variant in variants:
        say(f"looking at the source and the settings of {variant}")
        found.append(settings(rooms, variant, flags))
    say("looking at the shell scripts")
    found.append(scripts(rooms))
    return tuple(found)


def environment(rooms: Rooms) -> Iterator[Check]:
    """What `inv doctor` finds: a check for all of it, and one for each row that isn't ok."""
    since = time.monotonic()
    ended = rooms.run("doctor", ("doctor", "--json"))
    outcome: Outcome = "passed"
    reason, found, said = "", [], list(ended.lines[-MOST_OUTPUT_LINES:])
    try:
        rows = json_in(ended)["checks"]
        found = [row_check(row) for row in rows if row["outcome"] != "ok"]
        said = [f"{row['outcome']}  {row['name']}: {row['detail']}" for row in rows]
    except (ValueError, KeyError, TypeError):
        outcome = "error"
        reason = ended.reason or "It said nothing that can be understood."
    yield Check(
        group=ENVIRONMENT,
        name="inv doctor",
        command="inv doctor --json",
        expected="It tells what this machine has.",
        outcome=outcome,
        reason=reason,
        output="\n".join(said),
        seconds=time.monotonic() - since,
    )
    yield from found


def json_in(ended: Ended) -> dict[str, Any]:
    """The JSON object among what a task said; warnings on stderr may stand around it.

    Raises:
        ValueError: there is none.
    """
    text = "\n".join(ended.lines)
    for start in re.finditer(r"^\{", text, re.MULTILINE):
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.JSONDecoder().raw_decode(text, start.start())[0]
            return found
    raise ValueError("no JSON")


def row_check(row: dict[str, Any]) -> Check:
    """A finding of the doctor; what a build can do without has not passed, but fails nothing."""
    outcome = OUTCOMES[row["outcome"]]
    return Check(
        group=ENVIRONMENT,
        name=str(row["name"]),
        command="inv doctor",
        expected=str(row["needs"]),
        outcome=outcome,
        reason=f"{row['detail']} {row['fix']}".strip() if outcome == "failed" else row["detail"],
    )


def settings(rooms: Rooms, variant: str, flags: Sequence[str]) -> Check:
    """Whether the options are valid and the source is recognised, as a build would find out."""
    words = ("check", "vexfs.image", "--variant", variant, *flags)
    since = time.monotonic()
    ended = rooms.run(f"check-{variant}", words)
    return Check(
        group=SOURCE,
        name=about(variant),
        command=" ".join(("inv", *words)),
        expected="Nothing is in the way of the build.",
        outcome="passed" if ended.status == 0 else "failed",
        reason=ended.reason,
        output="\n".join(ended.lines[-MOST_OUTPUT_LINES:]),
        seconds=time.monotonic() - since,
    )


def about(variant: str) -> str:
    """The name of the check of a variant's source and settings."""
    return f"source and settings of {variant}"


def scripts(rooms: Rooms) -> Check:
    """Whether shellcheck has something to say on the scripts of this checkout."""
    found = [path.relative_to(rooms.root) for path in shell_scripts(rooms.root)]
    tool = find_shellcheck()
    outcome: Outcome = "skipped"
    reason, output = "", ""
    since = time.monotonic()
    if tool is None:
        reason = "shellcheck is not installed: the scripts were not checked."
    elif not found:
        reason = f"There is no shell script in {', '.join(FOLDERS)}."
    else:
        outcome, reason, output = shellchecked(rooms, tool, found)
    return Check(
        group=SCRIPTS,
        name="shellcheck",
        command=f"shellcheck {' '.join(map(str, found))}".rstrip(),
        expected="No warning.",
        outcome=outcome,
        reason=reason,
        output=output,
        seconds=time.monotonic() - since,
    )


def shellchecked(rooms: Rooms, tool: str, found: Sequence[Path]) -> tuple[Outcome, str, str]:
    """Outcome, reason and output of shellcheck; its status 1 means that it has found something."""
    lines: list[str] = []
    runner = Runner(rooms.logs / "shellcheck.log", timeout_s=SHELLCHECK_S)
    try:
        runner.run([tool, "--format=gcc", ELSEWHERE, *found], on_line=lines.append, cwd=rooms.root)
    except CommandFailed as error:
        said = "".join(lines[:MOST_OUTPUT_LINES])
        if error.status == 1:
            return "failed", f"The first of {len(lines)}: {lines[0].strip()}", said
        return "error", error.what, said
    except TimedOut as error:
        return "error", error.what, ""
    return "passed", "", f"{len(found)} scripts"


def find_shellcheck() -> str | None:
    """shellcheck beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "shellcheck"
    return str(beside) if beside.is_file() else shutil.which("shellcheck")


def shell_scripts(root: Path) -> Iterable[Path]:
    """The files in FOLDERS that are called .sh or begin as a script for a shell, sorted."""
    found = []
    for folder in FOLDERS:
        for place, _, names in os.walk(root / folder):
            found += [path for name in names if is_shell(path := Path(place, name))]
    return sorted(found)


def is_shell(path: Path) -> bool:
    """Whether the name ends in .sh, or the first line is `#!` with a shell."""
    if not path.is_file() or path.suffix == ".sh":
        return path.is_file()
    with path.open("rb") as stream:
        words = stream.readline(100).split()
    return bool(words) and words[0].startswith(b"#!") and words[-1].rpartition(b"/")[2] in SHELLS
