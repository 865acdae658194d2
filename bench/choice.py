"""Which parts a run has, with how many rounds each, and the image that some of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import builds, commands, machines, packing, virtual_dsm
from bench.commands import ROOT
from bench.measure import Finding, Omission
from bench.parts import Part, left_out
from tasks.core.process import Runner

QUICK = "--quick leaves it out"
NO_IMAGE = "there is no image in output/: inv vexfs.image makes one"
COMPRESS = "compress + checksum an image"
# Two rounds of gzip with a larger one take more than minutes.
QUICK_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How often each is done. A median means something from three on; but it is to end today.

    Args:
        builds: minutes each, and as long again for the others'.
        much: minutes each for gzip.
    """

    starts: int = 11
    seeds: int = 30
    packing: int
    much: int
    builds: int
    machines: machines.Rounds


FULL = Rounds(
    packing=3,
    much=2,
    builds=3,
    machines=machines.Rounds(boots=2, boot_s=900, restores=5),
)
SHORT = Rounds(
    packing=2,
    much=0,
    builds=0,
    machines=machines.Rounds(boots=1, boot_s=180, restores=3),
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the command line asks for.

    Args:
        image: to compress and to boot; None: what is there.
    """

    quick: bool
    image: Path | None

    @property
    def rounds(self) -> Rounds:
        """How often."""
        return SHORT if self.quick else FULL


def parts(choice: Choice, work: Path, runner: Runner) -> list[Part]:
    """The parts in their order: the cheap ones first; those that need an image after the builds,
    which make some; and last what needs a Docker engine.
    """
    rounds = choice.rounds

    def seeded() -> list[Finding]:
        return [packing.seeding(work, runner, rounds.seeds)]

    def packed(image: Path) -> Iterator[Finding]:
        if choice.quick and image.stat().st_size > QUICK_BYTES:
            yield Omission(what=COMPRESS, why=f"{image.name} is large, and {QUICK}")
        else:
            yield packing.packing(image, work, runner, rounds.packing)

    def booted(image: Path) -> Iterator[Finding]:
        return machines.measured(image, work, runner, rounds.machines)

    def much_packed() -> list[Finding]:
        return [packing.packing_much(work, runner, rounds.much)]

    def unless_quick(what: str, measure: Callable[[], Iterable[Finding]]) -> Part:
        return left_out(what, QUICK) if choice.quick else Part(what=what, measure=measure)

    return [
        Part(what=commands.LIST, measure=lambda: commands.starting(work, runner, rounds.starts)),
        Part(what=packing.SEED, measure=seeded),
        Part(what=commands.UP_TO_DATE, measure=lambda: up_to_date(runner, rounds.starts)),
        unless_quick(builds.WHAT, lambda: builds.measured(work, runner, rounds.builds)),
        Part(what=COMPRESS, measure=with_image(COMPRESS, choice, work, packed)),
        Part(what=machines.WHAT, measure=with_image(machines.WHAT, choice, work, booted)),
        unless_quick(packing.MUCH, much_packed),
        unless_quick(virtual_dsm.WHAT, lambda: virtual_dsm.measured(work, runner, rounds.starts)),
    ]


def up_to_date(runner: Runner, rounds: int) -> Iterator[Finding]:
    """The newest image in output/ and its store; nothing, if there is none."""
    manifest = newest(ROOT.glob("output/vexfs-*.manifest.json"))
    if manifest is None:
        yield Omission(what=commands.UP_TO_DATE, why=NO_IMAGE)
    else:
        yield commands.up_to_date(manifest, runner, rounds)


def with_image(
    what: str, choice: Choice, work: Path, measure: Callable[[Path], Iterator[Finding]]
) -> Callable[[], Iterator[Finding]]:
    """A measuring of the image that is there when its turn comes."""

    def measured() -> Iterator[Finding]:
        image = image_for(choice, work)
        if image is None:
            yield Omission(what=what, why=NO_IMAGE)
        else:
            yield from measure(image)

    return measured


def image_for(choice: Choice, work: Path) -> Path | None:
    """The image that was named, the newest in output/, or one that this run has baked."""
    return (
        choice.image
        or newest(ROOT.glob("output/vexfs-*.qcow2"))
        or newest((work / builds.CHECKOUT).glob("output/vexfs-minimal-*.qcow2"))
    )


def newest(paths: Iterable[Path]) -> Path | None:
    """The file that was written last."""
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)
