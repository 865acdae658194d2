"""Virtual-DSM in the bench: what is built and started in turn, and what is left in the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest

from bench import virtual_dsm
from bench.measure import Comparison
from tasks.core import display
from tasks.core.errors import CannotRun, CommandFailed
from tasks.core.process import Runner
from tasks.vdsm import probes
from tests.standins.vdsm import image as standin


def test_without_an_engine_no_virtual_dsm_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> None:
        raise CannotRun("There is no Docker engine.")

    monkeypatch.setattr(virtual_dsm, "connect", nobody)
    with pytest.raises(CannotRun):
        list(virtual_dsm.measured(tmp_path, Runner(tmp_path / "log"), 2))
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_a_run_tells_what_its_stages_took() -> None:
    """The table is what the display prints, not what this test thinks of it."""
    rows = [
        display.Row(name="vdsm.savevm", outcome="done", seconds=0.9),
        display.Row(name="vdsm.boot", outcome="done", seconds=72.0),
        display.Row(name="vdsm.commit", outcome="done", seconds=0.2),
        display.Row(name="vdsm.fetch-pat", outcome="fresh", seconds=0.0),
    ]
    took = virtual_dsm.seconds_by_stage(f"vdsm.boot: done\n{display.table(rows)}\n")
    assert took == {"vdsm.savevm": 0.9, "vdsm.boot": 72.0, "vdsm.commit": 0.2}
    assert set(virtual_dsm.CHECKPOINT) <= set(took)


class Engine:
    """Builds and starts nothing, and notes in which order it was asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> None:
        self.failing = failing
        self.turns: list[str] = []
        took = dict.fromkeys(virtual_dsm.CHECKPOINT, 0.5)
        for name, result in {
            "copy_checkout": None,
            "build": took,
            "restore": 1.0,
            "install": 9.0,
            "layer_bytes": 10,
            "write_as_much": None,
            "remove_images": None,
        }.items():
            monkeypatch.setattr(virtual_dsm, name, self._noting(name, result))
        monkeypatch.setattr(virtual_dsm, "connect", contextlib.nullcontext)
        monkeypatch.setattr(virtual_dsm, "make_pat", lambda: Path("/stand-in.pat"))
        monkeypatch.setattr(standin, "build", lambda layout: f"stand-in:{layout}")

    def run(self, argv: Sequence[str], **how: Any) -> None:
        self.turns.append(argv[-1])

    def _noting(self, name: str, result: object) -> Callable[..., object]:
        def call(*words: object) -> object:
            self.turns.append(name)
            if name == self.failing:
                raise CommandFailed(f"{name} failed.")
            return result

        return call


def test_restores_and_installations_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(monkeypatch)
    found = list(virtual_dsm.measured(tmp_path, cast("Runner", engine), 1))
    assert engine.turns == [
        *("copy_checkout", "build"),
        *("restore", "install") * 3,
        *("layer_bytes", "write_as_much"),
        *("build.tcg", "images") * 2,
        "remove_images",
    ]
    started, checkpoint, _ = (each for each in found if isinstance(each, Comparison))
    assert (started.our_seconds, started.their_seconds) == ((1.0,) * 3, (9.0,) * 3)
    assert checkpoint.our_seconds == (1.0,)


@pytest.mark.parametrize("failing", ["build", "install"])
def test_a_failure_leaves_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    engine = Engine(monkeypatch, failing)
    with pytest.raises(CommandFailed, match=failing):
        list(virtual_dsm.measured(tmp_path, cast("Runner", engine), 1))
    assert engine.turns[-1] == "remove_images"


def test_a_start_that_has_failed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "is_dsm", lambda port: False)
    said: Future[str] = Future()
    said.set_exception(CommandFailed("The start failed."))
    with pytest.raises(CommandFailed, match="The start failed"):
        virtual_dsm.await_dsm(1, said)


def test_the_build_uses_the_engine_of_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_dsm, "make_pat", lambda: Path("/stand-in.pat"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    found = virtual_dsm.environment("stand-in:7.41")
    assert (found["DSM_BASE_IMAGE"], found["DSM_PAT_URL"]) == (
        "stand-in:7.41",
        "file:///stand-in.pat",
    )
    assert "DOCKER_HOST" not in found
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other.sock")
    assert virtual_dsm.environment("")["DOCKER_HOST"] == "unix:///run/other.sock"
