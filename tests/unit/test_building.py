"""The build VM's second chance."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from tasks.core.deadline import Deadline
from tasks.core.errors import MachineFailed
from tasks.qemu.accel import Accel
from tasks.qemu.checkpoint import CannotGoOn
from tasks.vexfs import building, copies
from tasks.vexfs.building import TRIES, trying_again

TCG = Accel(name="tcg", cpu="max", reason="")
KVM = Accel(name="kvm", cpu="host", reason="")
INT3 = MachineFailed("The kernel panicked.", tail=("[ 3.2] Oops: int3: 0000 [#1] SMP NOPTI",))
EARLY = "[    0.749600] Oops: general protection fault, maybe for address 0x10: 0000 [#1] SMP"
LATE = EARLY.replace("0.7", "9.7")
OTHER = MachineFailed("The kernel panicked.", tail=("VFS: Unable to mount root fs",))


class Booting:
    """A boot that fails with these errors, one after the other, and then succeeds."""

    def __init__(self, *errors: MachineFailed) -> None:
        self.errors = list(errors)
        self.told: list[str] = []
        self.open = 0

    def tell(self, text: str) -> None:
        self.told.append(text)

    def __call__(self, stack: contextlib.ExitStack) -> Any:
        self.open += 1
        stack.callback(setattr, self, "open", 0)
        if self.errors:
            raise self.errors.pop(0)
        return "machine"


@pytest.mark.parametrize("error", [INT3, MachineFailed(EARLY), MachineFailed("x", tail=(EARLY,))])
def test_a_guest_that_tcg_let_down_is_booted_again(error: MachineFailed) -> None:
    boot = Booting(error)
    with trying_again(cast("Any", boot), TCG, boot) as vm:
        assert (cast("str", vm), boot.open) == ("machine", 1)
    assert boot.open == 0
    assert len(boot.told) == 1


@pytest.mark.parametrize(
    ("accel", "errors"),
    [(TCG, [OTHER]), (TCG, [MachineFailed(LATE)]), (KVM, [INT3]), (TCG, [INT3] * TRIES)],
)
def test_other_failures_and_the_last_one_are_failures(
    accel: Accel, errors: list[MachineFailed]
) -> None:
    boot = Booting(*errors)
    with pytest.raises(MachineFailed), trying_again(cast("Any", boot), accel, boot):
        raise AssertionError("not reached")
    assert (boot.errors, boot.open) == ([], 0)


class Copying:
    """A step, a result and a guest: as much of each as a copy of the build VM takes."""

    facts: ClassVar = {
        "accelerator": {"name": "tcg", "cpu": "max"},
        "memory_mb": 512,
        "cpus": 1,
        "kernel": "",
        "packages": {"init": "1"},
    }
    directory = work = Path("/nowhere")
    params: ClassVar = {"ssh_port": 0, "keep_vm": False}

    def __init__(self) -> None:
        self.told: list[str] = []
        self.woken = 0

    @property
    def deadline(self) -> Deadline:
        return Deadline(60)

    def say(self, text: str) -> None:
        pass

    def tell(self, text: str) -> None:
        self.told.append(text)

    def wait(self, timeout_s: float) -> None:
        pass


@pytest.mark.parametrize(
    ("why", "vm", "told"),
    [
        ("", "it goes on", []),
        ("cores was 2 and is 1", "it booted", ["not restored, but booted: cores was 2 and is 1"]),
    ],
)
def test_a_copy_of_the_build_vm_goes_on_or_boots(
    monkeypatch: pytest.MonkeyPatch, why: str, vm: str, told: list[str]
) -> None:
    step = Copying()

    def going_on(*_: object) -> str:
        if why:
            raise CannotGoOn(why)
        return "it goes on"

    def wake(ssh: object) -> None:
        step.woken += 1

    monkeypatch.setattr(copies, "going_on", going_on)
    monkeypatch.setattr(copies, "wake", wake)
    monkeypatch.setattr(building, "first_boot", lambda *_: contextlib.nullcontext("it booted"))
    monkeypatch.setattr(building, "way_in", lambda *_: contextlib.nullcontext(step))
    anything = cast("Any", step)
    parts = building.Parts(base=anything, keys=Path("/keys"), seed=Path("/seed.iso"))
    with building.restored(anything, parts, anything) as guest:
        assert cast("str", guest.vm) == vm
    assert step.told == told
    assert step.woken == 1
