"""Whole builds of VexFS images, against the classic pipeline on the same base in the same run."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import mkosi
from bench.commands import ROOT, copy_checkout, inv
from bench.measure import Comparison, Finding, Omission, seconds_of
from tasks.core.process import Runner
from tasks.core.tools import find_tool
from tasks.guest import debian
from tasks.guest.cloudconfig import packages_of
from tasks.qemu.accel import choose

CLASSIC = Path(__file__).parent / "classic" / "build.sh"
CLASSIC_TOOLS = ("cloud-localds", "genisoimage")
BUILD_TIMEOUT_S = 7200
VARIANTS = ("minimal", "development", "production")
MINIMAL = ("vexfs.image", "--variant", "minimal")
CLOUD_INIT = Path("cloud-init")
SAMPLE = Path("samples/vexfs")
# A change that survives the compiler, so that every later stage has new input, too.
CHANGE = 'MODULE_INFO(bench, "{number}");\n'
CHANGES = 3
NOTHINGS = 5
ONE_MORE_PACKAGE = "tree"
NO_CACHE = "it keeps nothing between runs, so its cold run is what it takes each time"
BASE = "the base is there for both"


@dataclass(frozen=True, kw_only=True)
class Ours:
    """The minimal variant's base, and the seconds that vmbake took, by case."""

    disk: Path
    afresh: float
    cold: float
    changed: tuple[float, ...]
    package: float
    nothing: tuple[float, ...]
    variants: float


def measured(work: Path, runner: Runner) -> Iterator[Finding]:
    """Build in a copy of this checkout with an empty store; then the classic way, thrice."""
    if missing := [tool for tool in CLASSIC_TOOLS if not find_tool(tool)]:
        yield Omission(what="bake an image", why=f"not installed: {', '.join(missing)}")
        return
    checkout = work / "checkout"
    copy_checkout(checkout, runner)
    house = House(checkout=checkout, runner=runner)
    ours = house.measure(afresh=seconds_afresh(work, runner))
    yield against_mkosi(ours, work, runner)
    classic = {}
    for variant in VARIANTS:
        classic[variant] = build_classic(variant, ours.disk, house, work / variant)
        if variant == "minimal":
            yield from beside(ours, classic[variant])
    total = sum(classic.values())
    yield against("three variants, cold", (ours.variants,), (total,), goal=1 / 12, note=BASE)


def beside(ours: Ours, classic_s: float) -> Iterator[Comparison]:
    """The cases of one variant."""
    theirs = (classic_s,)
    yield against("cold, base in place", (ours.cold,), theirs, goal=1 / 12, note=BASE)
    yield against("one source file changed", ours.changed, theirs, goal=1 / 40, note=NO_CACHE)
    yield against("one package added", (ours.package,), theirs, note=NO_CACHE)
    yield against("nothing changed", ours.nothing, theirs, note=NO_CACHE)


def against(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    goal: float | None = None,
    note: str = "",
) -> Comparison:
    """A case of building against the classic pipeline."""
    return Comparison(
        what=what,
        ours="vmbake",
        theirs="classic pipeline",
        our_seconds=tuple(ours),
        their_seconds=tuple(theirs),
        goal=goal,
        note=note,
    )


def against_mkosi(ours: Ours, work: Path, runner: Runner) -> Finding:
    """Everything from nothing, against the packages alone by mkosi."""
    what = "cold, from nothing, base included"
    if not find_tool("mkosi") or os.geteuid() != 0:
        return Omission(what=what, why="it needs mkosi 14 and root")
    packages = (*debian.BASE_PACKAGES, *packages_of(ROOT / CLOUD_INIT, "minimal"))
    return Comparison(
        what=what,
        ours="vmbake",
        theirs="mkosi",
        our_seconds=(ours.afresh,),
        their_seconds=(mkosi.build("trixie", packages, work / "mkosi", runner),),
        goal=1,
        note="mkosi's image has the same packages, no bootloader, no module, no compression",
    )


@dataclass(frozen=True, kw_only=True)
class House:
    """A copy of the checkout whose store begins empty."""

    checkout: Path
    runner: Runner

    def inv(self, *words: str) -> list[str]:
        """Run tasks there; returns the paths that they printed."""
        said = self.runner.output(inv(*words), cwd=self.checkout, timeout_s=BUILD_TIMEOUT_S)
        return said.split()

    def seconds(self, *words: str) -> float:
        """How long tasks take there."""
        return seconds_of(lambda: self.inv(*words))

    def base(self) -> Path:
        """The disk of the minimal variant's base."""
        printed = self.inv("vexfs.build-cloudimg", "--variant", "minimal")
        return next(self.checkout / path for path in printed if path.endswith(".qcow2"))

    def measure(self, *, afresh: float) -> Ours:
        """All cases, each on what the one before left.

        Args:
            afresh: seconds of the same build where there was nothing, not even the base.
        """
        disk = self.base()
        cold = self.seconds(*MINIMAL)
        nothing = tuple(self.seconds(*MINIMAL) for _ in range(NOTHINGS))
        changed = tuple(self.after_change(number, *MINIMAL) for number in range(CHANGES))
        # The others share what the minimal one has made, which is the point of stages.
        others = self.seconds("vexfs.images", "--variants", ",".join(VARIANTS[1:]))
        self.add_package()
        return Ours(
            disk=disk,
            afresh=afresh,
            cold=cold,
            changed=changed,
            package=self.seconds(*MINIMAL),
            nothing=nothing,
            variants=cold + others,
        )

    def after_change(self, number: int, *words: str) -> float:
        """Change the module's source, then build."""
        source = self.checkout / SAMPLE / "vexfs.c"
        source.write_text(source.read_text() + CHANGE.format(number=number))
        return self.seconds(*words)

    def add_package(self) -> None:
        """One more package in the minimal variant."""
        data = self.checkout / CLOUD_INIT / "minimal" / "user-data.yaml"
        text, count = re.subn(r"^packages: \[\]$", f"packages: [{ONE_MORE_PACKAGE}]",
                              data.read_text(), flags=re.M)  # fmt: skip
        if count != 1:
            raise ValueError(f"{data} has no empty list of packages any more")
        data.write_text(text)


def seconds_afresh(work: Path, runner: Runner) -> float:
    """Seconds of a build that begins with nothing, in one run, as a user's first one is."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        copy_checkout(Path(folder), runner)
        return House(checkout=Path(folder), runner=runner).seconds(*MINIMAL)


def build_classic(variant: str, base: Path, house: House, work: Path) -> float:
    """Seconds of one run of the classic pipeline on a copy of `base`."""
    accel = choose("auto", house.runner, house.checkout / ".vmbake" / "cache")
    packages = packages_of(house.checkout / CLOUD_INIT, variant)
    folders = (work / "work", work / "output")
    command: list[str | Path] = [
        "bash",
        CLASSIC,
        base,
        house.checkout / SAMPLE,
        variant,
        *folders,
        *packages,
    ]
    env = {"CLASSIC_ACCEL": accel.name}
    return seconds_of(lambda: house.runner.run(command, env=env, timeout_s=BUILD_TIMEOUT_S))
