"""What this machine can do."""

from __future__ import annotations

import json as jsonlib
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.tasks import task

from tasks.core import errors, executor, process
from tasks.host import doctor as checks


@task(help={"json": "Print JSON", "again": "Try the accelerators again"})
def doctor(context: Any, json: bool = False, again: bool = False) -> None:
    """Say whether this machine can bake images, and what to fix."""
    site = executor.site_of(context.config)
    needs = checks.Needs(store=site.state, output=site.output, cache_dir=site.cache)
    report = checks.examine(needs, process.Runner(site.cache / "doctor.log"), again=again)
    print(jsonlib.dumps(report.to_json(), indent=1) if json else "\n".join(report.lines()))
    if not report.ok:
        raise Exit(code=errors.CannotRun.exit_code)


namespace = Collection(doctor)
