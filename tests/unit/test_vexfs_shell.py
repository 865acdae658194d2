"""The session in a copy of the image: whose streams, whose status, and how it ends."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.core.errors import CommandFailed, MachineFailed
from tasks.core.events import Silent
from tasks.core.process import Runner
from tasks.qemu.accel import Accel
from tasks.qemu.checkpoint import CannotGoOn
from tasks.vexfs import building, copies, shell

SIZE = shell.Size(accel=Accel(name="tcg", cpu="max", reason=""), memory_mb=1024, cpus=1)


class Step:
    """As much of a step as a session uses."""

    def __init__(self, folder: Path) -> None:
        self.runner = Runner(folder / "log")
        self.reporter = Silent()
        self.work = folder
        self.deadline = self
        self.lifted_times = 0
        self.told: list[str] = []

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        self.lifted_times += 1
        yield

    def say(self, text: str) -> None:
        pass

    def tell(self, text: str) -> None:
        self.told.append(text)


class Vm:
    """A machine that is well, or not."""

    def __init__(self, trouble: str = "") -> None:
        self.trouble = trouble
        self.waited = False

    def pause(self, seconds: float) -> None:
        if self.trouble:
            raise MachineFailed(self.trouble)

    def wait_shutdown(self, timeout_s: float) -> None:
        self.waited = True
        if self.trouble != "The guest shut down (guest-shutdown).":
            raise MachineFailed(self.trouble)


class Here:
    """An Ssh whose guest is this machine."""

    def session(self, command: str, *, terminal: bool) -> tuple[str, ...]:
        assert not terminal
        return ("sh", "-c", command or "exit 255")


def talk(step: Step, vm: Vm, command: str) -> None:
    shell.talk(cast("Any", step), cast("Any", vm), cast("Any", Here()), command)


def test_a_commands_output_and_status_are_ours(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    step = Step(tmp_path)
    talk(step, Vm(), "echo hello")
    assert capfd.readouterr().out == "hello\n"
    with pytest.raises(CommandFailed, match="exit status 3") as caught:
        talk(step, Vm(), "exit 3")
    assert caught.value.exit_code == 3
    assert CommandFailed.exit_code == 7
    assert step.lifted_times == 0


def test_a_session_takes_as_long_as_it_takes(tmp_path: Path) -> None:
    step = Step(tmp_path)
    talk(step, Vm(), "")
    assert step.lifted_times == 1


def test_a_guest_that_shut_down_is_no_failure(tmp_path: Path) -> None:
    vm = Vm("The guest shut down (guest-shutdown).")
    talk(Step(tmp_path), vm, "")
    assert vm.waited


def test_a_guest_that_died_is_one(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed, match="killed by SIGKILL"):
        talk(Step(tmp_path), Vm("QEMU ended (killed by SIGKILL)."), "")


def test_each_copy_becomes_another_machine(tmp_path: Path) -> None:
    scripts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        scripts.append(assignments(shell.renewal(cast("Any", Step(tmp_path / name)))))
    first, second = scripts
    assert first.keys() == {"NOW", "ENTROPY", "MACHINE_ID", "NAME", "HOST_KEY", "HOST_KEY_PUBLIC"}
    for name in first.keys() - {"NOW"}:
        assert first[name] != second[name], name
    assert len(first["MACHINE_ID"]) == 32
    assert first["NAME"] == f"vexfs-{first['MACHINE_ID'][:6]}"
    assert first["HOST_KEY"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


def assignments(script: str) -> dict[str, str]:
    """The variables that are set before the parts of a script."""
    words = (word for word in shlex.split(script, comments=True) if "=" in word)
    pairs = (word.split("=", 1) for word in words)
    return {name: value for name, value in pairs if name.isupper()}


def test_what_does_not_fit_is_booted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise CannotGoOn("qemu was 7.2 and is 9.0")

    @contextlib.contextmanager
    def booted(*_: object) -> Iterator[str]:
        yield "a machine that booted"

    monkeypatch.setattr(copies, "going_on", refused)
    monkeypatch.setattr(building, "trying_again", booted)
    step = Step(tmp_path)
    spec = shell.spec_of(tmp_path / "root", tmp_path / "seed", SIZE)
    with ExitStack() as stack:
        vm = shell.start(stack, cast("Any", step), tmp_path, spec)
    assert cast("str", vm) == "a machine that booted"
    assert step.told == ["not restored, but booted: qemu was 7.2 and is 9.0"]
