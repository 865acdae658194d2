"""What counts as the guest's end, and how its bytes become lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.errors import MachineFailed
from tasks.core.events import Silent
from tasks.qemu.watch import LONGEST_LINE, TAIL_LINES, Lines, Trouble, Watch, clean


def make_watch() -> Watch:
    return Watch(Path("console.log"), Silent().say, lambda: Trouble(what="QEMU ended"))


@pytest.mark.parametrize(
    "line",
    [
        "[    1.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
        "[    1.2][    T1] Kernel panic - not syncing: no init",
        "Kernel panic - not syncing: without time stamps",
        "[    9.2] Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "[    9.2] Oops: general protection fault, maybe for address 0x6b: 0000 [#1] PREEMPT SMP",
        "[    9.2] invalid opcode: 0000 [#1] SMP",
        "[    9.2] Internal error: Oops: 0000000096000004 [#1] SMP",
        'You are in emergency mode. After logging in, type "journalctl -xb"',
        "ALERT!  UUID=1234 does not exist.  Dropping to a shell!",
        "Gave up waiting for root file system device.  Common problems:",
        "No bootable device.",
        "BdsDxe: No bootable option or device was found.",
    ],
)
def test_these_lines_end_the_guest(line: str) -> None:
    watch = make_watch()
    watch.console(f"{line}\r\n".encode())
    with pytest.raises(MachineFailed, match=r"^The (guest|firmware)"):
        watch.pause(0)


@pytest.mark.parametrize(
    "line",
    [
        "[    0.0] Command line: root=/dev/vda1 panic=1 oops=panic",
        "[   30.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:1]",
        "[   30.1] ------------[ cut here ]------------",
        "[   30.1] ---[ end trace 0000000000000000 ]---",
        "cc -c kernel_panic.c # Kernel panic - not syncing",
        "Oops, that did not work",
    ],
)
def test_these_lines_do_not(line: str) -> None:
    watch = make_watch()
    watch.console(f"{line}\r\n".encode())
    watch.pause(0)


def test_lines_are_put_together_from_any_pieces() -> None:
    lines = Lines()
    found = [line for byte in b"one\r\ntwo\nthr" for line in lines.split(bytes([byte]))]
    assert found == [b"one\r", b"two"]
    assert lines.rest == b"thr"


def test_a_guest_without_line_ends_costs_no_memory() -> None:
    lines = Lines()
    for _ in range(20):
        lines.split(b"x" * LONGEST_LINE)
    assert len(lines.rest) == LONGEST_LINE
    assert [len(line) for line in lines.split(b"y" * LONGEST_LINE + b"\n")] == [LONGEST_LINE]


def test_colours_and_cursor_movements_are_left_out() -> None:
    assert clean(b"\x1bc\x1b[?7l\x1b[2J\x1b[0;1;31mFAILED\x1b[0m \x1b]0;title\x07to start\r") == (
        "FAILED to start"
    )


def test_the_first_trouble_is_the_cause() -> None:
    watch = make_watch()
    watch.console(b"No bootable device.\n")
    watch.hung_up()
    with pytest.raises(MachineFailed, match="nothing to boot"):
        watch.pause(0)


def test_who_asks_late_is_told_of_trouble_at_once() -> None:
    watch = make_watch()
    watch.hung_up()
    told: list[bool] = []
    watch.on_trouble(lambda: told.append(True))
    assert told == [True]


def test_a_long_call_trace_does_not_push_out_its_cause() -> None:
    watch = make_watch()
    for number in range(20):
        watch.console(f"before {number}\n".encode())
    watch.console(b"[    1.2] Kernel panic - not syncing: deep\n")
    for number in range(100):
        watch.console(f"[    1.3]  function_{number}+0x1/0x2\n".encode())
    with pytest.raises(MachineFailed) as caught:
        watch.pause(0)
    assert caught.value.tail[:2] == ("before 16", "before 17")
    assert caught.value.tail[4].endswith("not syncing: deep")
    assert len(caught.value.tail) == TAIL_LINES
