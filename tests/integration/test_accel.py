"""The real probe on this machine: it ends soon, tells the truth and leaves nothing behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks.core.process import Runner
from tasks.qemu.accel import TCG, TCG_CPU, choose, survey
from tasks.qemu.probe import STEPS, Verdict, try_guest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("cpu", [TCG_CPU, "qemu64"])
def test_the_guest_runs_through_under_tcg(tmp_path: Path, cpu: str) -> None:
    attempt = try_guest(Runner(tmp_path / "log"), TCG, cpu, limit_s=30)
    assert attempt.verdict is Verdict.WORKS, attempt
    assert attempt.reached == STEPS["n"]


def test_a_guest_without_long_mode_does_not_pass(tmp_path: Path) -> None:
    # A 32-bit processor cannot set EFER.LME: the guest must fault, and QEMU end with its reset.
    attempt = try_guest(Runner(tmp_path / "log"), TCG, "qemu32", limit_s=30)
    assert attempt.verdict is Verdict.CRASHES
    assert attempt.reached == STEPS["p"]


def test_this_machine_gets_a_truthful_answer_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    runner = Runner(tmp_path / "log")
    began = time.monotonic()
    found = survey(runner, tmp_path / "cache")
    assert time.monotonic() - began < 60
    assert found.finding
    works = found.kvm is Verdict.WORKS
    assert bool(found.fix) is not works
    assert found.best.name == ("kvm" if works else "tcg")
    if works:
        # What was promised holds a second time.
        again = try_guest(runner, "kvm", found.best.cpu, limit_s=30)
        assert again.verdict is Verdict.WORKS
    assert choose("auto", runner, tmp_path / "cache") == found.best
    # Every guest had its disk here, and `no_process_left` in conftest sees those that still run.
    assert list(scratch.iterdir()) == []
