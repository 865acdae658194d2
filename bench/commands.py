"""What `inv` itself costs, and copies of this checkout to run it in."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from bench.measure import Comparison, Finding, Omission, Way, compare
from tasks.core.process import Runner

ROOT = Path(__file__).parents[1]
LIST = "list the tasks"
UP_TO_DATE = "inv vexfs.image, up to date"
# An up-to-date run ends at once. One that began to build instead is stopped, not waited for.
UP_TO_DATE_TIMEOUT_S = 60


def inv(*words: str) -> list[str]:
    """The command line of `inv` in the environment that this runs in."""
    return [sys.executable, "-m", "invoke", *words]


def starting(work: Path, runner: Runner, rounds: int) -> list[Comparison]:
    """`inv --list`, against Python doing nothing and against Invoke with no tasks."""
    empty = work / "empty"
    empty.mkdir()
    (empty / "tasks.py").write_text("")
    ours = Way(name="inv --list", run=lambda: runner.run(inv("--list"), cwd=ROOT))
    nothing = Way(
        name="python -c pass", run=lambda: runner.run([sys.executable, "-c", "pass"], cwd=ROOT)
    )
    # Without a task there is nothing to list, which Invoke reports as an error.
    bare = ["sh", "-c", '"$@" >/dev/null 2>&1 || true', "sh", *inv("--list")]
    bare_invoke = Way(name="invoke, no tasks", run=lambda: runner.run(bare, cwd=empty))
    return [
        compare(LIST, ours, nothing, rounds=rounds),
        compare(LIST, ours, bare_invoke, rounds=rounds),
    ]


def up_to_date(manifest: Path, runner: Runner, rounds: int) -> Finding:
    """The image of a manifest, which is there already, against Python doing nothing."""
    made = json.loads(manifest.read_text())
    words = ["--variant", made["variant"], "--version", made["version"]]
    words += ["--base", made["base"]["name"]]
    explained = json.loads(runner.output(inv("explain", "--json", "vexfs.image", *words), cwd=ROOT))
    if stale := [entry["stage"] for entry in explained if entry["state"] == "stale"]:
        return Omission(what=UP_TO_DATE, why=f"stale: {', '.join(stale)}. Bake the image first")
    command = inv("vexfs.image", *words)
    return compare(
        UP_TO_DATE,
        Way(
            name="inv vexfs.image",
            run=lambda: runner.run(command, cwd=ROOT, timeout_s=UP_TO_DATE_TIMEOUT_S),
        ),
        Way(name="python -c pass", run=lambda: runner.run([sys.executable, "-c", "pass"])),
        rounds=rounds,
        goal_s=1,
    )


def copy_checkout(target: Path, runner: Runner) -> None:
    """Copy the project's own files, committed or not; neither store, output nor .venv."""
    listed = runner.output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT
    )
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
