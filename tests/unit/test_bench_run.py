"""A run of the bench as a whole: which parts it has, what fails alone, what is kept when."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as bench
from bench import builds, choice, commands, machines, packing, picture, record, virtual_dsm
from bench.choice import FULL, QUICK, SHORT, Choice, image_for, parts
from bench.measure import Comparison, Finding, Omission
from bench.parts import Part, findings_of, left_out
from tasks.core.errors import CannotRun, CommandFailed, MissingTool
from tasks.core.process import Runner

FOUND = Comparison(what="walk", ours="a", theirs="b", our_seconds=(1.0,), their_seconds=(2.0,))


def failing(error: Exception) -> Callable[[], Iterator[Finding]]:
    """A part that fails after it has found something."""

    def measure() -> Iterator[Finding]:
        yield FOUND
        raise error

    return measure


@pytest.mark.parametrize(
    ("error", "why", "failed"),
    [
        (MissingTool("The program gzip is not installed."), "gzip is not installed", False),
        (CannotRun("There is no Docker engine.", hint="Start it."), "engine. Start it.", False),
        (CommandFailed("make failed.", log=Path("/logs/make")), "failed. Log: /logs/make", True),
        (ZeroDivisionError("oops"), "ZeroDivisionError: oops", True),
        (OSError(28, "No space left on device"), "No space left", True),
    ],
)
def test_a_part_that_ends_early_keeps_no_other_from_its_turn(
    error: Exception, why: str, failed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    first, missing, last = findings_of(
        [Part(what="walk", measure=failing(error)), left_out("run", "too fast")]
    )
    assert first is FOUND
    assert isinstance(missing, Omission)
    assert (missing.what, missing.failed) == ("walk", failed)
    assert why in missing.why
    assert last == Omission(what="run", why="too fast")
    # What may be a bug keeps its traceback.
    is_bug = isinstance(error, ZeroDivisionError | OSError)
    assert ("Traceback" in capsys.readouterr().err) == is_bug


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(record, "accelerator", lambda runner: "tcg")
    return Runner(tmp_path / "log")


def test_what_was_found_is_kept_at_once(runner: Runner, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    seen: list[dict[str, Any]] = []

    def look() -> list[Finding]:
        seen.append(json.loads(path.read_text()))
        raise KeyboardInterrupt

    chosen = [
        Part(what="walk", measure=lambda: [FOUND]),
        left_out("run", "no legs"),
        Part(what="look", measure=look),
    ]
    with pytest.raises(KeyboardInterrupt):
        bench.measure(chosen, runner, [path.with_suffix(""), tmp_path / "published"])
    data = json.loads(path.read_text())
    assert seen == [data]
    assert [found["what"] for found in data["findings"]] == ["walk", "run"]
    assert data["whole"] is False
    # The published figures are those of a run that has come to its end.
    assert not list(tmp_path.glob("published*"))
    assert not (tmp_path / "run.svg").exists()


@pytest.mark.parametrize(
    ("error", "status"), [(CommandFailed("make failed."), 1), (CannotRun("No engine."), 0)]
)
def test_a_failed_part_decides_the_status_at_the_end(
    runner: Runner,
    tmp_path: Path,
    error: Exception,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = [
        Part(what="walk", measure=failing(error)),
        Part(what="run", measure=lambda: [FOUND]),
    ]
    stems = [tmp_path / "run", tmp_path / "published"]
    assert bench.measure(chosen, runner, stems) == status
    data = json.loads((tmp_path / "published.json").read_text())
    assert data == json.loads((tmp_path / "run.json").read_text())
    assert data["whole"] is True
    assert [found.get("failed") for found in data["findings"]] == [None, status == 1, None]
    assert data["findings"][0]["ratio"] == 0.5
    assert (tmp_path / "published.svg").read_text() == picture.draw(data)
    assert ("bench: failed: walk" in capsys.readouterr().err) == bool(status)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without image, and parts that only say which they are."""
    for module in (choice, commands):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for module, names in (
        (commands, ("starting",)),
        (packing, ("seeding", "packing", "packing_much")),
        (builds, ("measured",)),
        (machines, ("measured",)),
        (virtual_dsm, ("measured",)),
    ):
        for name in names:
            said = f"{module.__name__}.{name}"
            monkeypatch.setattr(module, name, Saying(said, alone=module is packing))
    return tmp_path


class Saying:
    """In the place of a measuring: finds its own name and what it was called with."""

    def __init__(self, name: str, *, alone: bool) -> None:
        self.name, self.alone = name, alone

    def __call__(self, *words: Any) -> Finding | list[Finding]:
        found = Omission(what=self.name, why=str(words))
        return found if self.alone else [found]


def found_by(house: Path, *, quick: bool, image: Path | None = None) -> dict[str, str]:
    chosen = Choice(quick=quick, image=image)
    findings = findings_of(parts(chosen, house / "work", Runner(house / "log")))
    return {found.what: found.why for found in findings if isinstance(found, Omission)}


def test_builds_come_before_what_needs_images_or_an_engine(house: Path) -> None:
    (house / "output").mkdir()
    (house / "output" / "vexfs-minimal-1.0.0.qcow2").touch()
    assert list(found_by(house, quick=False)) == [
        "bench.commands.starting",
        "bench.packing.seeding",
        commands.UP_TO_DATE,
        "bench.builds.measured",
        "bench.packing.packing",
        "bench.machines.measured",
        "bench.packing.packing_much",
        "bench.virtual_dsm.measured",
    ]


def test_what_quick_leaves_out_is_said(house: Path) -> None:
    image = house / "image.qcow2"
    image.touch()
    found = found_by(house, quick=True, image=image)
    assert {what for what, why in found.items() if why == QUICK} == {
        *(builds.WHAT, packing.MUCH, virtual_dsm.WHAT)
    }
    assert str(SHORT.machines) in found["bench.machines.measured"]
    assert "bench.packing.packing" in found
    with image.open("wb") as stream:
        stream.truncate(choice.QUICK_BYTES + 1)
    found = found_by(house, quick=True, image=image)
    assert "bench.packing.packing" not in found
    assert found[choice.COMPRESS] == f"image.qcow2 is large, and {QUICK}"
    assert "bench.packing.packing" in found_by(house, quick=False, image=image)


def test_without_an_image_what_needs_one_is_said_not_to_be_measured(house: Path) -> None:
    found = found_by(house, quick=True)
    cases = (commands.UP_TO_DATE, choice.COMPRESS, machines.WHAT)
    assert [found[what] for what in cases] == [choice.NO_IMAGE] * 3


def test_an_image_that_the_builds_made_will_do(house: Path) -> None:
    chosen = Choice(quick=False, image=None)
    assert image_for(chosen, house / "work") is None
    images = [
        house / "work" / builds.CHECKOUT / "output" / "vexfs-minimal-1.0.0.qcow2",
        house / "output" / "vexfs-production-1.0.0.qcow2",
        house / "named.qcow2",
    ]
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    assert image_for(Choice(quick=False, image=images[2]), house / "work") == images[2]
    assert image_for(chosen, house / "work") == images[1]
    images[1].unlink()
    assert image_for(chosen, house / "work") == images[0]


def test_the_full_run_has_medians(house: Path) -> None:
    assert FULL.builds >= 3
    assert f", {FULL.builds})" in found_by(house, quick=False)["bench.builds.measured"]
