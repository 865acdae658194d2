"""Annotations: ten at most, the worst first, and nothing in them that GitHub would obey."""

from __future__ import annotations

import io
import re

from tasks.ci.annotations import announce, workflow_commands
from tests.standins.validations import HOSTILE, check, run, validation

COMMAND = re.compile(r"::error title=(?P<title>[^:,\r\n]*)::(?P<message>[^\r\n]*)")


def test_each_problem_is_one_line_worst_first() -> None:
    lines = workflow_commands(run().validations)
    assert len(lines) == 4
    assert lines[0] == (
        "::error title=production debian-12%3A could not be validated::The kernel panicked 4.1 s"
        " after the start: Unable to mount root fs."
    )
    assert lines[1] == (
        "::error title=development debian-12%2C development debian-13%3A module%3A modprobe loads"
        " it failed::modprobe ended with status 1."
    )


def test_there_are_never_more_than_ten() -> None:
    bad = [check(name=f"check {n}", outcome="failed", reason="no") for n in range(25)]
    lines = workflow_commands([validation(*bad)])
    assert len(lines) == 10
    assert lines[-1] == "::error title=16 more problems::See the summary of this run."
    assert len(workflow_commands([validation(*bad[:10])])) == 10
    assert "more" not in workflow_commands([validation(*bad[:10])])[-1]


def test_many_images_don_t_make_a_long_title() -> None:
    bad = [validation(check(outcome="failed"), variant=f"v{n}") for n in range(40)]
    assert workflow_commands(bad)[0].startswith("::error title=v0%2C v1%2C v2 and 37 more%3A boot")


def test_hostile_text_stays_in_its_line_and_place() -> None:
    hostile = check("a,b:c", HOSTILE, outcome="failed", reason=f"100%\n::error::{HOSTILE}")
    lines = workflow_commands([validation(hostile, variant="x\r\n::stop-commands::y")])
    found = COMMAND.fullmatch(lines[0])
    assert found
    assert "100%25 ::error::" in found["message"]
    assert "a%2Cb%3Ac%3A" in found["title"]


def test_nothing_is_printed_outside_github() -> None:
    stream = io.StringIO()
    assert announce(run().validations, stream, {}) == 0
    assert announce(run().validations, stream, {"GITHUB_ACTIONS": "false"}) == 0
    assert stream.getvalue() == ""


def test_on_github_all_lines_are_printed() -> None:
    stream = io.StringIO()
    assert announce(run().validations, stream, {"GITHUB_ACTIONS": "true"}) == 4
    assert stream.getvalue().splitlines() == workflow_commands(run().validations)


def test_a_good_run_says_nothing() -> None:
    assert workflow_commands([validation(check())]) == []
