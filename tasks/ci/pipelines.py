"""The pipeline: look around, build all variants, validate them, hand the artifacts over, tell.

A variant that fails does not stop the others. What was made is kept by the stages, so that a run
that was killed is simply started again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tasks.artifacts.checks import Check
from tasks.attest import signing
from tasks.ci import notify, preliminary, reporting
from tasks.ci.building import Attempt, build, not_tried
from tasks.ci.data import ReportData
from tasks.ci.folder import being_made, remove_old
from tasks.ci.handover import Handover, Order
from tasks.ci.origin import commit_of_checkout
from tasks.ci.problems import problems
from tasks.ci.rooms import Rooms
from tasks.ci.validating import Validated, validate
from tasks.core.display import shown
from tasks.core.errors import CannotRun, PipelineFailed, ValidationFailed, VmbakeError
from tasks.core.events import Reporter
from tasks.core.stage import Params, Site, Step
from tasks.core.store import Store

# What may be said of every run, and means the runs that the pipeline starts.
SWITCHES = {"no_cache": "--no-cache", "no_cleanup": "--no-cleanup"}
NAMED = 5
BAD = ("failed", "error")


def perform(step: Step, order: Order) -> None:
    """Run the pipeline as a task.

    Raises:
        VmbakeError: something was not built or did not pass; the artifacts are there all the same.
    """
    commit = order.origin.commit or commit_of_checkout(step.runner, step.site.root)
    order = replace(
        order,
        origin=replace(order.origin, commit=commit),
        passed_on=passed_on(step.params),
    )
    rooms = Rooms(step.site.root, step.runner.log.parent, lambda: step.deadline.left_s)
    data = run(order, step.site, Store(step.site.state), rooms, step)
    if error := failure(data, order.target / reporting.PAGE):
        raise error
    step.show(shown(order.target))


def passed_on(params: Params) -> tuple[str, ...]:
    """The flags of every run that the pipeline was given, for the runs that it starts."""
    switches = tuple(flag for name, flag in SWITCHES.items() if params[name])
    jobs = params["jobs"]
    return (*switches, "--jobs", str(jobs)) if jobs else switches


def run(
    order: Order,
    site: Site,
    store: Store,
    rooms: Rooms,
    watcher: Reporter,
    env: Mapping[str, str] = os.environ,
) -> ReportData:
    """Do all of it; the artifacts are in `order.target` afterwards, whatever failed.

    Raises:
        BadInput: there is no such key.
        OSError: the artifacts can't be put where they shall be.
    """
    started = datetime.now(UTC)
    key = signing.load_private(Path(order.sign_key), env) if order.sign_key else None
    around = preliminary.examine(rooms, order.variants, order.build_flags, watcher.say)
    attempts = build_all(order, rooms, around, watcher.say)
    images = [attempt.image for attempt in attempts if attempt.image]
    validated = validate(rooms, images, site.output, order.common_flags, watcher.say)
    around += judge_validator(validated)
    with being_made(order.target) as folder:
        handover = Handover(
            order=order,
            site=site,
            store=store,
            logs=rooms.logs,
            started=started,
            folder=folder,
            key=key,
            watcher=watcher,
        )
        data = handover.fill(attempts, validated.records, around)
    for old in remove_old(order.into, order.keep):
        watcher.tell(f"removed the old build {old.name}")
    tell(order, data, watcher, env)
    return data


def build_all(
    order: Order, rooms: Rooms, around: Sequence[Check], say: Callable[[str], None]
) -> list[Attempt]:
    """Build each variant that can be built at all."""
    if broken := hindrance(around, preliminary.ENVIRONMENT):
        return [not_tried(variant, f"This machine can't: {broken}") for variant in order.variants]
    return [
        not_tried(variant, wrong)
        if (wrong := hindrance(around, preliminary.SOURCE, preliminary.about(variant)))
        else build(rooms, variant, order.build_flags, say)
        for variant in order.variants
    ]


def hindrance(around: Sequence[Check], group: str, name: str = "") -> str:
    """Why the first bad check of a group (with that name) is bad; "" if there is none."""
    found = (
        check.reason
        for check in around
        if check.group == group and check.outcome == "failed" and name in ("", check.name)
    )
    return next(found, "")


def judge_validator(validated: Validated) -> tuple[Check, ...]:
    """A check that says whether the validator did its work."""
    if not validated.trouble:
        return ()
    return (
        Check(
            group="validator",
            name="inv validate.image",
            command="inv validate.image",
            expected="It looks at every image and leaves a record of each.",
            outcome="error",
            reason=validated.trouble,
        ),
    )


def tell(order: Order, data: ReportData, watcher: Reporter, env: Mapping[str, str]) -> None:
    """Tell GitHub and the webhooks; neither can change how the run ends."""
    outputs = {"directory": str(order.target), "passed": str(data.passed).lower()}
    try:
        reporting.announce(data, env)
        reporting.set_outputs(outputs, env)
    except OSError as error:
        watcher.tell(f"GitHub was not told: {error}")
    if order.webhooks:
        watcher.say("telling the webhooks")
        body = notify.message(data, order.origin, order.webhook_form)
        notify.notify(order.webhooks, body, watcher.tell)


def failure(data: ReportData, page: Path) -> VmbakeError | None:
    """The error that a run ends with; None if all is well."""
    if data.passed:
        return None
    wrong = [f"{each.group}: {each.name}: {each.reason}" for each in problems(data.everything)]
    kind, what = cause(data)
    return kind(what, hint=f"All of it is in {shown(page)}.", tail=tuple(wrong[:NAMED]))


def cause(data: ReportData) -> tuple[type[VmbakeError], str]:
    """Which error tells best what went wrong, and its text: what comes first in a run."""
    validated = {item.image for item in data.validations}
    bad = [check for check in data.around if check.outcome in BAD]
    lost = [item for item in data.judged if item.image not in validated]
    failed = [item for item in data.judged if not item.passed]
    total = len(data.judged)
    if hindrance(data.around, preliminary.ENVIRONMENT):
        return CannotRun, "This machine can't build the images."
    if lost:
        return PipelineFailed, f"{len(lost)} of {total} images were not built."
    if bad:
        return PipelineFailed, "The images were built; another part of the run failed."
    return ValidationFailed, f"{len(failed)} of {total} images did not pass their checks."
