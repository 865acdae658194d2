"""The build VM's second chance."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import pytest

from tasks.core.errors import MachineFailed
from tasks.qemu.accel import Accel
from tasks.vexfs.building import TRIES, trying_again

TCG = Accel(name="tcg", cpu="max", reason="")
KVM = Accel(name="kvm", cpu="host", reason="")
INT3 = MachineFailed("The kernel panicked.", tail=("[ 3.2] Oops: int3: 0000 [#1] SMP NOPTI",))
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


def test_a_guest_that_tcg_let_down_is_booted_again() -> None:
    boot = Booting(INT3)
    with trying_again(cast("Any", boot), TCG, boot) as vm:
        assert (cast("str", vm), boot.open) == ("machine", 1)
    assert boot.open == 0
    assert len(boot.told) == 1


@pytest.mark.parametrize(
    ("accel", "errors"), [(TCG, [OTHER]), (KVM, [INT3]), (TCG, [INT3] * TRIES)]
)
def test_other_failures_and_the_last_one_are_failures(
    accel: Accel, errors: list[MachineFailed]
) -> None:
    boot = Booting(*errors)
    with pytest.raises(MachineFailed), trying_again(cast("Any", boot), accel, boot):
        raise AssertionError("not reached")
    assert (boot.errors, boot.open) == ([], 0)
