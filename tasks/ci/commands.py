"""The CI tasks: the pipeline over all variants, reports, a matrix for jobs, and the check."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.tasks import task

from tasks.ci import handover, origin, pipelines, reporting, verifying
from tasks.ci import matrix as matrices
from tasks.ci.options import OPTIONS
from tasks.core import display
from tasks.core.options import words_of
from tasks.core.stage import Stage, Step

action = functools.partial(task, klass=Stage, options=OPTIONS, kind="action")


@action(default=True)
def pipeline(
    step: Step,
    variants: str,
    accel: str,
    into: str,
    keep: int,
    tag: str,
    build_number: str,
    commit_sha: str,
    sign_key: str,
    webhook_url: str,
    webhook_format: str,
) -> None:
    """Build all variants, validate them, hand them over."""
    order = handover.Order(
        variants=words_of(variants),
        accel=accel,
        origin=origin.find_origin(tag=tag, build_number=build_number, commit_sha=commit_sha),
        into=reporting.place(step.site, into),
        keep=keep,
        sign_key=sign_key,
        webhooks=webhook_url,
        webhook_form=webhook_format,
    )
    pipelines.perform(step, order)


@action()
def report(step: Step, into: str, tag: str, build_number: str, commit_sha: str) -> None:
    """Report on the images that are there and their validation."""
    source = origin.find_origin(tag=tag, build_number=build_number, commit_sha=commit_sha)
    for path in reporting.report(step, source, reporting.place(step.site, into)):
        step.show(display.shown(path))


@action()
def matrix(step: Step, variants: str, accels: str, runners: str) -> None:
    """Print the jobs that build all variants, as JSON."""
    text = matrices.matrix(variants, accels, runners)
    step.show(text)
    reporting.set_outputs({"matrix": text})


@task(
    positional=["directory"],
    help={
        "directory": "What inv ci.pipeline left",
        "key": "PEM file with the public key that must have signed it",
    },
)
def verify(context: Any, directory: str, key: str = "") -> None:
    """Check a pipeline's result: bytes, statements, signatures."""
    for line in verifying.check(Path(directory), Path(key) if key else None):
        print(line)


namespace = Collection(pipeline, report, matrix, verify)
