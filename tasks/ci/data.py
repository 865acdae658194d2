"""What a report is made from: everything that is known of one run of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.artifacts.checks import Check, Validation

PIPELINE = "pipeline"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage that an image stands on.

    Args:
        state: made: in this run. reused: an earlier run's result was fresh.
        start_s: seconds since the run began; of no meaning for a reused stage.
        seconds: how long making it took, in whichever run that was.
        reason: why it failed.
        size_bytes: of all its files together.
        log: relative link to its log; "": there is none.
    """

    name: str
    state: Literal["made", "reused", "failed"]
    start_s: float
    seconds: float
    reason: str = ""
    size_bytes: int = 0
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The stages of one image, in the order in which they were made.

    Args:
        image: as in its Validation, so that both are shown together.
    """

    image: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of an artifact in this run and in the last one; None: it wasn't there."""

    name: str
    now_bytes: int | None
    last_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Video:
    """A recording of the DSM wizard.

    Args:
        href: relative link to the file.
        content: the WebM file itself, if it shall be part of the page.
    """

    title: str
    href: str
    content: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Link:
    """An artifact beside the report."""

    title: str
    href: str
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """One run.

    Args:
        build: the number that CI gave it; "" on a desk.
        started: ISO 8601, UTC.
        seconds: how long the run took.
        host: what to know of the machine, name and value.
        around: what was checked beside the images: the machine, the source, the artifacts.
    """

    title: str
    commit: str = ""
    build: str = ""
    started: str
    seconds: float
    host: tuple[tuple[str, str], ...] = ()
    around: tuple[Check, ...] = ()
    validations: tuple[Validation, ...] = ()
    timelines: tuple[Timeline, ...] = ()
    sizes: tuple[Size, ...] = ()
    videos: tuple[Video, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def judged(self) -> tuple[Validation, ...]:
        """All validations, and one for each image that could not be built."""
        validated = {item.image for item in self.validations}
        failed = [
            not_built(timeline, stage, self.started)
            for timeline in self.timelines
            for stage in timeline.stages
            if stage.state == "failed" and timeline.image not in validated
        ]
        return (*self.validations, *failed)

    @property
    def everything(self) -> tuple[Validation, ...]:
        """What was checked around the images as if it were one, then the images.

        JUnit and annotations are to be made from these, so that nothing that failed gets lost.
        """
        if not self.around:
            return self.judged
        run = Validation(
            image=PIPELINE,
            sha256="",
            size_bytes=0,
            variant=PIPELINE,
            version="",
            accel="",
            firmware="",
            started=self.started,
            seconds=sum(check.seconds for check in self.around),
            checks=self.around,
        )
        return (run, *self.judged)

    @property
    def passed(self) -> bool:
        """Whether there are images, all of them passed, and nothing failed around them."""
        return bool(self.judged) and all(item.passed for item in self.everything)


def not_built(timeline: Timeline, stage: Stage, started: str) -> Validation:
    """The validation of an image that isn't there, because a stage failed."""
    return Validation(
        image=timeline.image,
        sha256="",
        size_bytes=0,
        variant="",
        version="",
        accel="",
        firmware="",
        started=started,
        seconds=0.0,
        error=f"It was not built: {stage.name} failed. {stage.reason}".rstrip(),
    )
