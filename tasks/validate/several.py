"""Several images at the same time, as many as the machine carries."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tasks.artifacts import checks
from tasks.artifacts.checks import Validation
from tasks.artifacts.publish import being_published
from tasks.core import display
from tasks.core.capacity import capacity_of_host
from tasks.core.crew import waking
from tasks.core.process import Runner
from tasks.core.stage import Step
from tasks.validate import summary
from tasks.validate.clone import Settings
from tasks.validate.subject import name_of
from tasks.validate.validating import Validating

# What a QEMU takes beyond its guest's memory, translated code included (measured: 480).
OVERHEAD_MB = 600
USABLE_SHARE = 0.8
RECORDS = "validation"


class Labelled:
    """A reporter for one of several images."""

    def __init__(self, step: Step, label: str) -> None:
        self._step = step
        self._label = label

    def say(self, text: str) -> None:
        self._step.say(f"{self._label}: {text}")

    def tell(self, text: str) -> None:
        self._step.tell(f"{self._label}: {text}")

    def progress(self, done: int, total: int | None) -> None:
        """Several bars would overwrite each other."""


def fitting(settings: Settings, jobs: int) -> int:
    """How many images can be validated at the same time, by their guests of one core each.

    Args:
        jobs: cores to count with; 0: those that there are.
    """
    guests = 1 if settings.quick else 2
    host = capacity_of_host(jobs)
    each_bytes = guests * (settings.memory_mb + OVERHEAD_MB) << 20
    room_bytes = USABLE_SHARE * host.memory_bytes
    return max(1, min(host.stages // guests, int(room_bytes // each_bytes)))


def validate_all(
    given: Sequence[str], settings: Settings, step: Step, *, verbose: bool
) -> list[Validation]:
    """Validate images and write the record of each as soon as it is there.

    Returns: the validations in the order of the images. An exception ends all machines.
    """
    records = step.site.output / RECORDS
    records.mkdir(parents=True, exist_ok=True)
    runs = [prepare(one, settings, step, verbose) for one in given]
    with ThreadPoolExecutor(fitting(settings, int(step.params["jobs"]))) as pool:
        running = {pool.submit(run.perform): run for run in runs}
        done: dict[str, Validation] = {}
        try:
            with waking(functools.partial(abort_all, runs)):
                for future in as_completed(running):
                    run = running[future]
                    done[run.given] = future.result()
                    record = publish(done[run.given], run, records)
                    print(display.shown(record), flush=True)
                    step.tell(summary.title(done[run.given]))
        except BaseException:
            abort_all(runs)
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [done[one] for one in given]


def abort_all(runs: Sequence[Validating]) -> None:
    """End all machines."""
    for run in runs:
        run.abort()


def prepare(given: str, settings: Settings, step: Step, verbose: bool) -> Validating:
    """One image with a folder and a log of its own."""
    name = name_of(given)
    work = step.work / name
    work.mkdir()
    reporter = Labelled(step, name)

    def heard(check: checks.Check) -> None:
        if verbose or check.outcome in summary.BAD:
            reporter.tell(summary.line_of(check))

    log = step.runner.log
    return Validating(
        given,
        settings,
        work=work,
        downloads=step.site.cache / "images",
        runner=Runner(log.with_name(f"{log.stem}.{name}.log"), timeout_s=step.deadline.left_s),
        reporter=reporter,
        heard=heard,
    )


def publish(validation: Validation, run: Validating, records: Path) -> Path:
    """Write the record, whose path is returned, and the consoles beside it."""
    stem = f"{validation.image}.{validation.accel}.{validation.firmware}"
    with (records / f"{stem}.console.log").open("wb") as log:
        for console in run.console_logs:
            if console.is_file():
                log.write(f"=== {console.parent.parent.name} {console.parent.name}\n".encode())
                with console.open("rb") as stream:
                    shutil.copyfileobj(stream, log)
    record = records / f"{stem}.json"
    with being_published(record) as aside:
        checks.write(validation, aside)
    return record
