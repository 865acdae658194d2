"""The builds of the bench: the order of the cases, what each begins with, what a failure costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from bench import builds, house, mkosi
from bench.builds import (
    AFRESH,
    CHANGED,
    COLD,
    NOTHING,
    PACKAGE,
    THREE,
    VARIANTS,
    classic,
    measured,
)
from bench.commands import ROOT
from bench.house import SOURCE, USER_DATA, House
from bench.measure import Comparison, Finding, Omission
from bench.times import Times
from tasks.core.errors import CommandFailed
from tasks.core.process import Runner
from tasks.qemu.accel import Accel

BASE = "vexfs.build-cloudimg"


class Builder:
    """Runs nothing; leaves files as the tasks and programs would, and notes what it found.

    Args:
        failing: words of a command line that fails, and how often it works before.
    """

    def __init__(self, failing: str = "", works: int = 0) -> None:
        self.failing, self.works = failing, works
        self.turns: list[tuple[str, ...]] = []
        self.folders: list[Path] = []
        self.found: list[dict[str, Any]] = []

    def run(self, argv: Sequence[str | Path], **how: Any) -> None:
        self._turn("classic" if argv[0] == "bash" else "mkosi", how.get("cwd"))
        self.argv = [str(word) for word in argv]
        self.how = how

    def output(self, argv: Sequence[str], *, cwd: Path, timeout_s: float) -> str:
        task, *words = argv[3:]
        state = cwd / ".vmbake"
        self.found.append(
            {
                "results": {path.parent.name for path in state.glob("results/*/*")},
                "cache": {path.name: path.read_text() for path in state.glob("cache/*.json")},
                "compiled": (state / "cache" / "compile").exists(),
                "output": (cwd / "output").exists(),
                "source": (cwd / SOURCE).read_text(),
                "packages": (cwd / USER_DATA).read_text(),
            }
        )
        self._turn(" ".join([task, *words]), cwd)
        result = state / "results" / task / f"{len(self.turns)}"
        result.mkdir(parents=True)
        (state / "cache").mkdir(exist_ok=True)
        (state / "cache" / "digests.json").write_text(task)
        if task == BASE:
            (result / "base.qcow2").touch()
            return f"{result.relative_to(cwd)}/base.qcow2\n"
        (state / "cache" / "versions.json").write_text(task)
        (state / "cache" / "compile").mkdir(exist_ok=True)
        (cwd / "output").mkdir(exist_ok=True)
        return "output/vexfs.qcow2\n"

    def _turn(self, command: str, cwd: Path | None) -> None:
        place = "" if cwd is None or cwd.name == builds.CHECKOUT else " elsewhere"
        self.turns.append((command, place))
        if cwd:
            self.folders.append(cwd)
        if self.failing and self.failing in command + place:
            if not self.works:
                raise CommandFailed(f"{command} failed.")
            self.works -= 1


@pytest.fixture(autouse=True)
def small_house(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(target: Path, runner: Runner) -> None:
        for path, text in ((SOURCE, "int x;\n"), (USER_DATA, "packages: []\n")):
            (target / path).parent.mkdir(parents=True)
            (target / path).write_text(text)

    monkeypatch.setattr(house, "copy_checkout", copy)
    monkeypatch.setattr(builds, "find_tool", Path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(builds, "packages_of", lambda folder, variant: (f"for-{variant}",))
    accel = Accel(name="tcg", cpu="max", reason="fake")
    monkeypatch.setattr(builds, "choose", lambda *words: accel)


def findings(work: Path, builder: Builder, rounds: int = 2) -> dict[str, Finding]:
    found = list(measured(work, cast("Runner", builder), rounds))
    names = [finding.what for finding in found]
    assert len(set(names)) == len(names)
    return {finding.what: finding for finding in found}


def test_ours_and_mkosi_take_turns_and_the_classic_way_comes_last(tmp_path: Path) -> None:
    builder = Builder()
    findings(tmp_path, builder)
    minimal = ("vexfs.image --variant minimal", "")
    a_round = [
        ("vexfs.image --variant minimal", " elsewhere"),
        ("mkosi", " elsewhere"),
        # cold, twice nothing, a changed source, a package
        *[minimal] * 5,
        ("vexfs.images --variants minimal,development,production", ""),
    ]
    assert builder.turns == [
        *[(f"{BASE} --variant {variant}", "") for variant in VARIANTS],
        *a_round * 2,
        *[("classic", "")] * 3,
    ]


def test_a_cold_build_begins_with_the_base_alone(tmp_path: Path) -> None:
    builder = Builder()
    findings(tmp_path, builder)
    # Without mkosi and the classic pipeline: of each round the first is from nothing.
    assert builder.found[0]["results"] == set()
    rounds = [builder.found[3:10], builder.found[10:]]
    for number, (afresh, cold, *_, changed, package, three) in enumerate(rounds):
        assert afresh["results"] == set()
        for found in (cold, three):
            assert found["results"] == {BASE}
            # Neither a memory nor the compilers' cache of an earlier round.
            assert found["cache"] == {"digests.json": BASE}
            assert not found["compiled"]
            assert not found["output"]
            assert (found["source"], found["packages"]) == ("int x;\n", "packages: []\n")
        assert changed["source"] == f'int x;\nMODULE_INFO(bench, "{number}");\n'
        assert changed["results"] == {BASE, "vexfs.image"}
        assert package["packages"] == "packages: [tree]\n"


def test_every_case_is_compared_with_its_rounds_and_goal(tmp_path: Path) -> None:
    found = findings(tmp_path, Builder())
    rounds = {
        what: (len(each.our_seconds), len(each.their_seconds), each.goal, each.goal_s)
        for what, each in found.items()
        if isinstance(each, Comparison)
    }
    assert rounds == {
        AFRESH: (2, 2, 1, None),
        COLD: (2, 1, 1 / 12, None),
        CHANGED: (2, 1, 1 / 40, None),
        PACKAGE: (2, 1, None, None),
        NOTHING: (4, 1, None, 1),
        THREE: (2, 1, 1 / 12, None),
    }


def test_nothing_but_the_checkout_is_left_in_the_work_folder(tmp_path: Path) -> None:
    findings(tmp_path, Builder())
    assert [path.name for path in tmp_path.iterdir()] == [builds.CHECKOUT]


def test_a_cold_build_that_fails_costs_what_begins_with_it(tmp_path: Path) -> None:
    builder = Builder(failing="vexfs.image --variant minimal")
    found = findings(tmp_path, builder)
    assert isinstance(found[THREE], Comparison)
    for what in (AFRESH, COLD, NOTHING, CHANGED, PACKAGE):
        missing = found[what]
        assert isinstance(missing, Omission)
        assert (missing.why, missing.failed) == ("vexfs.image --variant minimal failed.", True)
    # It is not tried in every round: it may take an hour to fail.
    assert len([turn for turn, _ in builder.turns if turn.startswith("vexfs.image ")]) == 2


def test_a_case_that_fails_later_has_its_first_figures_and_the_failure(tmp_path: Path) -> None:
    found = findings(tmp_path, Builder(failing="vexfs.images", works=1))
    three = found[THREE]
    assert isinstance(three, Comparison)
    assert len(three.our_seconds) == 1
    missing = found[f"{THREE}, round 2"]
    assert isinstance(missing, Omission)
    assert missing.failed


@pytest.mark.parametrize(
    ("failing", "lost"),
    [("mkosi", {AFRESH}), ("classic", {COLD, NOTHING, CHANGED, PACKAGE, THREE})],
)
def test_the_other_way_may_fail_alone(tmp_path: Path, failing: str, lost: set[str]) -> None:
    found = findings(tmp_path, Builder(failing=failing))
    omitted = [each for each in found.values() if isinstance(each, Omission)]
    assert {each.what for each in omitted} == lost
    assert all(each.failed for each in omitted)


@pytest.mark.parametrize(
    ("absent", "user", "lost", "why"),
    [
        ("mkosi", 0, {AFRESH}, "it needs mkosi 14 and root"),
        ("", 1000, {AFRESH}, "it needs mkosi 14 and root"),
        (
            "genisoimage",
            0,
            {COLD, NOTHING, CHANGED, PACKAGE, THREE},
            "not installed: genisoimage",
        ),
    ],
)
def test_what_is_not_installed_is_said_and_is_no_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    absent: str,
    user: int,
    lost: set[str],
    why: str,
) -> None:
    monkeypatch.setattr(builds, "find_tool", lambda name: None if name == absent else Path(name))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    found = findings(tmp_path, Builder())
    omitted = [each for each in found.values() if isinstance(each, Omission)]
    assert {each.what for each in omitted} == lost
    assert {(each.why, each.failed) for each in omitted} == {(why, False)}


def test_the_classic_pipeline_gets_base_source_and_packages(tmp_path: Path) -> None:
    builder, times = Builder(), Times()
    place = House(tmp_path / builds.CHECKOUT, cast("Runner", builder))
    builds.build_classic("development", Path("/base.qcow2"), place, times)
    program, script, base, source, variant, *folders, package = builder.argv
    assert (program, Path(script).name, base) == ("bash", "build.sh", "/base.qcow2")
    assert source == str(place.checkout / "samples" / "vexfs")
    assert (variant, package) == ("development", "for-development")
    assert [Path(folder).name for folder in folders] == ["work", "output"]
    assert builder.how["env"] == {"CLASSIC_ACCEL": "tcg"}
    assert len(times.of(classic("development"))) == 1


def test_mkosi_gets_the_packages_and_its_own_folder(tmp_path: Path) -> None:
    builder = Builder()
    mkosi.build("trixie", ["systemd", "ssh"], tmp_path, cast("Runner", builder))
    words = builder.argv
    assert (words[0], words[-1]) == ("mkosi", "build")
    pairs = list(zip(words[1:-1:2], words[2:-1:2], strict=True))
    assert [value for option, value in pairs if option == "--package"] == ["systemd", "ssh"]
    assert ("--release", "trixie") in pairs
    assert ("--output", str(tmp_path / "image.raw")) in pairs
    assert builder.how["cwd"] == tmp_path


def test_what_several_took_together_is_summed_by_round() -> None:
    times = Times()
    for variant in VARIANTS:
        times.take(variant, lambda: None)
    (total,) = times.of(*VARIANTS)
    assert total == sum(times.of(variant)[0] for variant in VARIANTS)
    missing = times.why_not("all", *VARIANTS, "other")
    assert missing is not None
    assert missing.why == "it was not tried"
    assert times.why_not("all", *VARIANTS) is None


def test_a_variant_with_packages_of_its_own_is_no_ground_for_one_more(tmp_path: Path) -> None:
    place = House(tmp_path, cast("Runner", Builder()))
    place.add_package()
    with pytest.raises(ValueError, match="has no empty list of packages any more"):
        place.add_package()


def test_the_files_that_are_changed_are_there() -> None:
    """And the list of packages is as `add_package` expects it."""
    assert (ROOT / SOURCE).is_file()
    assert "\npackages: []\n" in (ROOT / USER_DATA).read_text()
