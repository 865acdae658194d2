"""What is wrong with a set of images, the worst first; a check counts once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.artifacts.checks import Outcome, Validation

# The groups in the order in which an image comes to life; what else there is follows.
GROUPS = (
    "boot",
    "module",
    "filesystem",
    "vexctl",
    "configuration",
    "system",
    "seal",
    "hardening",
)
# The group of what is wrong with the validation as a whole.
WHOLE = "validation"
NOT_VALIDATED = "Could not be validated"
NO_CHECKS = "No check was made."
WORST_FIRST: tuple[Outcome, ...] = ("failed", "error", "skipped", "passed")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a problem was met: positions in the validations and in the checks of that one.

    Args:
        check: None: the image could not be validated.
    """

    image: int
    check: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A check that failed or could not be done, in one or more images."""

    outcome: Literal["failed", "error"]
    group: str
    name: str
    places: tuple[Place, ...]

    @property
    def reason(self) -> str:
        """Why; of several reasons the first, and that there are others."""
        reasons = list(dict.fromkeys(place.reason for place in self.places))
        more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
        return f"{reasons[0]}{more}"


def problems(validations: Sequence[Validation]) -> list[Problem]:
    """Everything that did not pass and was not skipped.

    First images that could not be validated, then failed checks, then those that could not be
    done; among equals, what concerns more images comes first.
    """
    found: dict[tuple[Literal["failed", "error"], str, str], list[Place]] = {}
    for number, validation in enumerate(validations):
        if why := trouble(validation):
            place = Place(image=number, check=None, reason=why)
            found.setdefault(("error", WHOLE, why), []).append(place)
        for position, check in enumerate(validation.checks):
            if check.outcome == "failed" or check.outcome == "error":
                place = Place(image=number, check=position, reason=check.reason or check.expected)
                found.setdefault((check.outcome, check.group, check.name), []).append(place)
    listed = [
        Problem(
            outcome=outcome,
            group=group,
            name=NOT_VALIDATED if group == WHOLE else name,
            places=tuple(places),
        )
        for (outcome, group, name), places in found.items()
    ]
    return sorted(listed, key=severity)


def trouble(validation: Validation) -> str:
    """Why an image could not be validated as a whole; "" if it could."""
    return validation.error or ("" if validation.checks else NO_CHECKS)


def severity(problem: Problem) -> tuple[int, int, int, str, str]:
    """The sort key of problems, the worst first."""
    kind = 0 if problem.group == WHOLE else 1 + WORST_FIRST.index(problem.outcome)
    order = GROUPS.index(problem.group) if problem.group in GROUPS else len(GROUPS)
    return kind, -len(problem.places), order, problem.group, problem.name


def ordered_groups(validations: Iterable[Validation]) -> list[str]:
    """The groups of all checks: the known ones in their order, then the others as they come."""
    met = dict.fromkeys(check.group for item in validations for check in item.checks)
    return [*(group for group in GROUPS if group in met), *(g for g in met if g not in GROUPS)]


def worst(outcomes: Iterable[Outcome]) -> Outcome | None:
    """The worst of some outcomes; None if there are none."""
    met = set(outcomes)
    return next((outcome for outcome in WORST_FIRST if outcome in met), None)


def labels(validations: Sequence[Validation]) -> list[str]:
    """A short name for each image, as short as tells them apart: `minimal`, `minimal uefi`."""
    for shape in ("{name}", "{name} {firmware}", "{name} {firmware} {accel}", "{name} {version}"):
        made = [shape.format(name=short_name(item), **vars(item)) for item in validations]
        if len(set(made)) == len(made):
            return made
    return [f"{number} {short_name(item)}" for number, item in enumerate(validations, start=1)]


def short_name(validation: Validation) -> str:
    """The variant, or the file name without its endings for a foreign image."""
    if validation.variant:
        return validation.variant
    parts = validation.image.rpartition("/")[2].split(".")
    endings = {"qcow2", "raw", "img", "zst", "gz", "xz", "bz2"}
    while len(parts) > 1 and parts[-1] in endings:
        parts.pop()
    return ".".join(parts) or "image"


def bad_checks(validation: Validation) -> Iterator[int]:
    """The positions of the checks that failed or could not be done."""
    for position, check in enumerate(validation.checks):
        if check.outcome in ("failed", "error"):
            yield position
