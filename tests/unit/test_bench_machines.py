"""Boot against restore: how often each, and what is not counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import machines
from bench.measure import Comparison
from tasks.core.process import Runner
from tasks.qemu import accel


def test_boots_come_first_and_one_restore_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []

    class Bench:
        saved = SimpleNamespace(ram=tmp_path / "ram")

        def __init__(self, folder: Path, runner: Runner, image: Path, *words: Any) -> None:
            turns.append(image.name)
            assert words[-1] == 7

        def boot(self, number: int) -> float:
            turns.append(f"boot {number}")
            return 60.0 + number

        def freeze(self) -> None:
            turns.append("freeze")
            self.saved.ram.write_bytes(b"ram")

        def restore(self) -> None:
            turns.append("restore")

    monkeypatch.setattr(machines, "Bench", Bench)
    chosen = accel.Accel(name="tcg", cpu="max", reason="fake")
    monkeypatch.setattr(accel, "choose", lambda *words: chosen)
    rounds = machines.Rounds(boots=2, boot_s=7, restores=3)
    (found,) = machines.measured(Path("a.qcow2"), tmp_path, Runner(tmp_path / "log"), rounds)
    assert turns == ["a.qcow2", "boot 0", "boot 1", "freeze", *["restore"] * 4]
    assert isinstance(found, Comparison)
    assert found.their_seconds == (60.0, 61.0)
    assert len(found.our_seconds) == 3
    assert (found.goal, found.reached) == (1 / 12, True)
    assert found.sizes == {"RAM, compressed": 3}
