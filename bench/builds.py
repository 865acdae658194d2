"""Whole builds of VexFS images, against the classic pipeline on the same base in the same run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import mkosi
from bench.commands import ROOT
from bench.house import SOURCE, House
from bench.measure import Comparison, Finding
from bench.times import Times
from tasks.core.process import Runner
from tasks.core.tools import find_tool
from tasks.guest import debian
from tasks.guest.cloudconfig import packages_of
from tasks.qemu.accel import choose

CLASSIC = Path(__file__).parent / "classic" / "build.sh"
CLASSIC_TOOLS = ("cloud-localds", "genisoimage")
CLASSIC_TIMEOUT_S = 3600
CHECKOUT = "checkout"
WHAT = "bake an image"
VARIANTS = ("minimal", "development", "production")
MINIMAL = ("vexfs.image", "--variant", "minimal")
CLOUD_INIT = Path("cloud-init")
# In each round; it takes a third of a second.
NOTHINGS = 2
NO_CACHE = "it keeps nothing between runs, so its cold run is what it takes each time"
BASE = "the base is there for both"

# The cases, as they are called where they are shown, and what they are compared with.
AFRESH = "cold, from nothing, base included"
COLD = "cold, base in place"
NOTHING = "nothing changed"
CHANGED = "one source file changed"
PACKAGE = "one package added"
THREE = "three variants, cold"
MKOSI = "mkosi"


def measured(work: Path, runner: Runner, rounds: int) -> Iterator[Finding]:
    """Build in copies of this checkout, `rounds` times; then the classic way, once a variant."""
    times = Times()
    for case, why in obstacles():
        times.leave_out(case, why)
    house = House(work / CHECKOUT, runner)
    base = house.base(VARIANTS)
    for number in range(rounds):
        from_nothing(work, runner, times)
        one_round(house, times, number)
    yield against_mkosi(times)
    for variant in VARIANTS:
        build_classic(variant, base, house, times)
        if variant == "minimal":
            yield from beside(times)
    yield against(times, THREE, *map(classic, VARIANTS), goal=1 / 12, note=BASE)
    yield from times.broken_off()


def obstacles() -> Iterator[tuple[str, str]]:
    """The cases of others for which something is not here, and what."""
    if not find_tool("mkosi") or os.geteuid() != 0:
        yield MKOSI, "it needs mkosi 14 and root"
    if missing := [tool for tool in CLASSIC_TOOLS if not find_tool(tool)]:
        for variant in VARIANTS:
            yield classic(variant), f"not installed: {', '.join(missing)}"


def from_nothing(work: Path, runner: Runner, times: Times) -> None:
    """A build in one run, as a user's first one is, then the packages alone by mkosi."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        fresh = House(Path(folder), runner)
        times.take(AFRESH, lambda: fresh.inv(*MINIMAL))
    packages = (*debian.BASE_PACKAGES, *packages_of(ROOT / CLOUD_INIT, "minimal"))
    # What they leave mounted or protected ends no run of ours.
    with tempfile.TemporaryDirectory(dir=work, ignore_cleanup_errors=True) as folder:
        times.take(MKOSI, lambda: mkosi.build("trixie", packages, Path(folder), runner))


def one_round(house: House, times: Times, number: int) -> None:
    """The cases of one variant, each on what the one before left; then all variants at once."""

    def minimal() -> object:
        return house.inv(*MINIMAL)

    house.ground.restore()
    times.take(COLD, minimal)
    for _ in range(NOTHINGS):
        times.take(NOTHING, minimal, after=COLD)
    house.change_source(number)
    times.take(CHANGED, minimal, after=COLD)
    house.add_package()
    times.take(PACKAGE, minimal, after=COLD)
    house.ground.restore()
    times.take(THREE, lambda: house.inv("vexfs.images", "--variants", ",".join(VARIANTS)))


def classic(variant: str) -> str:
    """The case of one variant by the classic pipeline."""
    return f"classic pipeline, {variant}"


def build_classic(variant: str, base: Path, house: House, times: Times) -> None:
    """Run the classic pipeline once, on a copy of `base`."""
    accel = choose("auto", house.runner, house.checkout / ".vmbake" / "cache")
    packages = packages_of(house.checkout / CLOUD_INIT, variant)
    place = house.checkout.parent
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
        folders = (Path(folder, "work"), Path(folder, "output"))
        source = house.checkout / SOURCE.parent
        command: list[str | Path] = ["bash", CLASSIC, base, source, variant, *folders, *packages]
        env = {"CLASSIC_ACCEL": accel.name}
        times.take(
            classic(variant),
            lambda: house.runner.run(command, env=env, timeout_s=CLASSIC_TIMEOUT_S),
        )


def beside(times: Times) -> Iterator[Finding]:
    """The cases of one variant."""
    theirs = classic("minimal")
    yield against(times, COLD, theirs, goal=1 / 12, note=BASE)
    yield against(times, CHANGED, theirs, goal=1 / 40, note=NO_CACHE)
    yield against(times, PACKAGE, theirs, note=NO_CACHE)
    yield against(times, NOTHING, theirs, goal_s=1, note=NO_CACHE)


def against(
    times: Times,
    case: str,
    *theirs: str,
    goal: float | None = None,
    goal_s: float | None = None,
    note: str,
) -> Finding:
    """A case of building against the classic pipeline, of one variant or of several in turn."""
    return times.why_not(case, case, *theirs) or Comparison(
        what=case,
        ours="vmbake",
        theirs="classic pipeline",
        our_seconds=times.of(case),
        their_seconds=times.of(*theirs),
        goal=goal,
        goal_s=goal_s,
        note=note,
    )


def against_mkosi(times: Times) -> Finding:
    """Everything from nothing, against the packages alone by mkosi."""
    return times.why_not(AFRESH, AFRESH, MKOSI) or Comparison(
        what=AFRESH,
        ours="vmbake",
        theirs="mkosi",
        our_seconds=times.of(AFRESH),
        their_seconds=times.of(MKOSI),
        goal=1,
        note="mkosi's image has the same packages, no bootloader, no module, no compression",
    )
