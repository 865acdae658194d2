"""The workflows of GitHub Actions: of the right form, pinned, with few rights, without injection.

The form is checked by check-jsonschema with the schema that it ships, the scripts by shellcheck.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.ci.matrix import matrix
from tasks.ci.options import OPTIONS
from tasks.ci.preliminary import find_shellcheck
from tasks.core.stage import Site
from tasks.vexfs import compiling
from tasks.vexfs.commands import namespace

WORKFLOWS = sorted((Path(__file__).parents[2] / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# What somebody outside can choose; in a script it would be code.
EXPRESSION = "${{"


def complaints(text: str) -> Iterator[str]:
    """What is wrong with a workflow beyond its form."""
    document: dict[Any, Any] = yaml.safe_load(text)
    for line in text.splitlines():
        if "uses:" in line and not PINNED.fullmatch(line.strip().removeprefix("- ")):
            yield f"not pinned: {line.strip()}"
    # YAML reads the key `on` as true.
    if "pull_request_target" in document[True]:
        yield "pull_request_target runs with rights for what others wrote"
    if document.get("permissions") != {}:
        yield "the workflow has rights that no job asked for"
    for name, job in document["jobs"].items():
        yield from (f"{name}: {wrong}" for wrong in job_complaints(job))


def job_complaints(job: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one job."""
    if set(job.get("permissions", {}).items()) != {("contents", "read")}:
        yield "more rights than reading"
    if "timeout-minutes" not in job:
        yield "no time limit"
    for step in job["steps"]:
        if EXPRESSION in step.get("run", ""):
            yield f"an expression in a script: {step['run']}"
        if "actions/checkout@" in step.get("uses", "") and (
            step.get("with", {}).get("persist-credentials") is not False
        ):
            yield "the checkout leaves its token behind"


def schema_check(*paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.github-workflows"),
            *map(str, paths),
        ],
        check=False,
        capture_output=True,
        text=True,
    )


def test_there_are_workflows() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "images.yml"]


def test_their_form_is_right() -> None:
    checked = schema_check(*WORKFLOWS)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_nothing_is_to_be_said_against_them(path: Path) -> None:
    assert list(complaints(path.read_text())) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_their_scripts_are_sound(path: Path, tmp_path: Path) -> None:
    shellcheck = find_shellcheck()
    assert shellcheck
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        for number, step in enumerate(job["steps"]):
            if script := step.get("run"):
                file = tmp_path / f"{number}.sh"
                file.write_text(f"#!/bin/bash\nset -eo pipefail\n{script}")
                checked = subprocess.run(
                    [shellcheck, file], check=False, capture_output=True, text=True
                )
                assert checked.returncode == 0, checked.stdout


BAD = """
on: [pull_request_target]
jobs:
  a:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@v5
      - run: echo ${{ github.event.pull_request.title }}
"""


def test_a_bad_workflow_is_found_out(tmp_path: Path) -> None:
    assert set(complaints(BAD)) == {
        "not pinned: - uses: actions/checkout@v5",
        "pull_request_target runs with rights for what others wrote",
        "the workflow has rights that no job asked for",
        "a: more rights than reading",
        "a: no time limit",
        "a: an expression in a script: echo ${{ github.event.pull_request.title }}",
        "a: the checkout leaves its token behind",
    }
    path = tmp_path / "bad.yml"
    path.write_text(BAD.replace("steps:", "stepps:"))
    assert schema_check(path).returncode == 1


def test_the_matrix_is_the_one_that_the_jobs_read() -> None:
    """The names in the workflow are those of `inv ci.matrix`, and its variables are options."""
    document = yaml.safe_load(WORKFLOWS[1].read_text())
    text = WORKFLOWS[1].read_text()
    (job,) = yaml.safe_load(matrix("minimal", "kvm", "kvm=ubuntu-24.04"))["include"]
    assert set(re.findall(r"matrix\.(\w+)", text)) - {"outputs"} == set(job)
    known = {option.env for option in OPTIONS.values()} | {"VMBAKE_TIMEOUT"}
    assert set(document["jobs"]["image"]["env"]) <= known


def test_releases_are_built_from_nothing_and_all_else_from_what_is_kept() -> None:
    caches = [
        step
        for step in yaml.safe_load(WORKFLOWS[1].read_text())["jobs"]["image"]["steps"]
        if step.get("uses", "").startswith("actions/cache@")
    ]
    assert {step["if"] for step in caches} == {"github.ref_type != 'tag'"}
    paths = {path for step in caches for path in step["with"]["path"].split()}
    site = Site(root=Path(), state=Path(".vmbake"), output=Path())
    assert str(site.cache / compiling.CACHE) in paths
    stages = {f"{site.state}/results/vexfs.{name}" for name in namespace.task_names}
    assert paths - {str(site.cache / compiling.CACHE)} < stages
    # A cache on GitHub never changes: what grows has a new name each time.
    (growing,) = (step["with"] for step in caches if "restore-keys" in step["with"])
    assert growing["key"].startswith(growing["restore-keys"])
    assert "github.run_id" in growing["key"].removeprefix(growing["restore-keys"])
