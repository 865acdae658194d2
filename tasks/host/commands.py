"""What this machine can do."""

from __future__ import annotations

import json as jsonlib
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.tasks import task

from tasks.core.errors import CannotRun
from tasks.core.executor import site_of
from tasks.core.process import Runner
from tasks.host import doctor as checks


@task(help={"json": "Print JSON", "again": "Try the accelerators again"})
def doctor(context: Any, json: bool = False, again: bool = False) -> None:
    """Say whether this machine can bake images, and what to fix."""
    site = site_of(context.config)
    needs = checks.Needs(store=site.state, output=site.output, cache_dir=site.cache)
    report = checks.examine(needs, Runner(site.cache / "doctor.log"), again=again)
    print(jsonlib.dumps(report.to_json(), indent=1) if json else "\n".join(report.lines()))
    if not report.ok:
        raise Exit(code=CannotRun.exit_code)


namespace = Collection(doctor)
