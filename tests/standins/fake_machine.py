"""Machines whose QEMU is the fake one, which behaves as it is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.process import Runner
from tasks.qemu.accel import Accel
from tasks.qemu.machine import Machine
from tasks.qemu.spec import Disk, MachineSpec

FAKE = Path(__file__).with_name("fake_qemu.py")
ACCEL = Accel(name="tcg", cpu="max", reason="the test wants it")


def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """Put the fake first on PATH; returns a function from its behaviour to a machine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {FAKE} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def make(behaviour: str, **changes: object) -> Machine:
        settings: dict[str, object] = {
            "name": "fake",
            "accel": ACCEL,
            "memory_mb": 64,
            "cpus": 1,
            "disks": (Disk(id="root", path=tmp_path / "root.qcow2", format="qcow2"),),
        }
        own = {name: changes.pop(name) for name in ("keep", "reporter") if name in changes}
        spec = MachineSpec(**{**settings, **changes})  # type: ignore[arg-type]
        return Machine(spec, tmp_path / "vm", runner(tmp_path, behaviour), **own)  # type: ignore[arg-type]

    return make


def runner(tmp_path: Path, behaviour: str) -> Runner:
    """What starts the fake, telling it how to behave."""
    env = {
        "FAKE_QEMU": behaviour,
        "FAKE_QEMU_ARGV": str(tmp_path / "argv.json"),
        "FAKE_QEMU_DATA": str(tmp_path / "data"),
    }
    return Runner(tmp_path / "stage.log", env=env)
