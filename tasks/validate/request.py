"""From the options of `inv validate.image` to the images, and from their records to an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks.core import display, errors, process
from tasks.qemu import accel as accelerators
from tasks.validate import clone, several, subject, summary

if TYPE_CHECKING:
    from tasks.core.stage import Site, Step


def named(images: str, site: Site) -> list[str]:
    """The images that are meant.

    Raises:
        BadInput: there is none, or two have one name.
    """
    given = [line for line in images.splitlines() if line] or subject.find_all(site.output)
    subject.require_distinct(given)
    return list(dict.fromkeys(given))


def problems(site: Site, images: str, **_: Any) -> Iterator[errors.VmbakeError]:
    """What is wrong with the request, before anything is done."""
    try:
        named(images, site)
    except errors.BadInput as error:
        yield error


def settings(
    step: Step,
    accel: Any,
    firmware: Any,
    memory: int,
    boot_timeout: int,
    ssh_timeout: int,
    quick: bool,
) -> clone.Settings:
    """How the guests are run.

    Raises:
        CannotRun: the accelerator that was asked for does not work here.
    """
    runner = process.Runner(step.site.cache / "accel.log")
    return clone.Settings(
        accel=accelerators.choose(accel, runner, step.site.cache),
        firmware=firmware,
        memory_mb=memory,
        boot_timeout_s=boot_timeout,
        ssh_timeout_s=ssh_timeout,
        quick=quick,
    )


def carry_out(step: Step, images: str, chosen: clone.Settings, *, verbose: bool) -> None:
    """Validate, and tell how it went.

    Raises:
        ValidationFailed: an image did not pass.
    """
    given = named(images, step.site)
    step.tell(str(chosen.accel))
    done = several.validate_all(given, chosen, step, verbose=verbose)
    step.tell(f"the checks\n{summary.table(done)}")
    failed = [validation for validation in done if not validation.passed]
    if failed:
        names = ", ".join(validation.image for validation in failed)
        raise errors.ValidationFailed(
            f"{len(failed)} of {len(done)} images did not pass: {names}.",
            hint=f"The records are in {display.shown(step.site.output / several.RECORDS)}.",
        )
