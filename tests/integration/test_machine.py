"""Machines under the real QEMU (TCG), with guests of one sector."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.core.crew import Crew, Interrupted
from tasks.core.errors import Busy, MachineFailed, TimedOut
from tasks.core.process import Runner
from tasks.qemu import disk as images
from tasks.qemu.accel import Accel
from tasks.qemu.machine import Machine
from tasks.qemu.spec import Disk, MachineSpec

pytestmark = pytest.mark.integration

TCG = Accel(name="tcg", cpu="max", reason="the test wants it")
SECTOR_BYTES = 512
ORIGIN = 0x7C00

# Prints `message` on the first serial port, then goes on behind this code.
PRINT = bytes.fromhex(
    "fa 31c0 8ed8"  # cli; xor ax,ax; mov ds,ax
    "be 0000"  # mov si,message (filled in)
    "ba f803"  # mov dx,0x3f8
    "ac 84c0 7403 ee ebf8"  # next: lodsb; test al,al; jz +3; out dx,al; jmp next
)
# A dot and a line feed at each tick of the BIOS clock; off when the power button is pressed.
TICK = bytes.fromhex(
    "fb"  # sti
    "ba 0206 b8 0001 ef"  # q35's PM1a_EN = power button
    "a1 6c04 39c3 740b 89c3"  # tick: mov ax,[0x46c]; cmp bx,ax; je poll; mov bx,ax
    "ba f803 b02e ee b00a ee"  # out 0x3f8, '.', LF
    "ba 0006 ed f6c401 74e5"  # poll: in ax,PM1a_STS; test ah,1; jz tick
    "ba 0406 b8 0020 ef"  # PM1a_CNT = S5
    "f4 ebfd"  # hlt, for ever
)
HALT = bytes.fromhex("f4 ebfd")
TRIPLE_FAULT = bytes.fromhex("0f011e f07d cc")  # lidt [zeros]; int3: no handler, nor one for that


def sector(message: str, then: bytes) -> bytes:
    start = ORIGIN + len(PRINT) + len(then)
    code = PRINT[:6] + start.to_bytes(2, "little") + PRINT[8:] + then
    # SeaBIOS leaves the cursor behind its own last words.
    return (code + b"\n" + message.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "stage.log", timeout_s=60)


@pytest.fixture
def make_spec(tmp_path: Path, runner: Runner) -> Callable[..., MachineSpec]:
    def make(code: bytes, **changes: object) -> MachineSpec:
        raw, path = tmp_path / "boot.raw", tmp_path / "boot.qcow2"
        raw.write_bytes(code.ljust(1 << 20, b"\0"))
        images.convert(runner, raw, "raw", path, "qcow2")
        settings: dict[str, object] = {
            "name": "tiny",
            "accel": TCG,
            "memory_mb": 32,
            "cpus": 1,
            "disks": (Disk(id="root", path=path, format="qcow2"),),
            **changes,
        }
        return MachineSpec(**settings)  # type: ignore[arg-type]

    return make


def test_boots_ticks_and_powers_off(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    with Machine(make_spec(sector("hello\n", TICK)), tmp_path / "vm", runner) as vm:
        vm.wait_console("^hello$", timeout_s=30, what="say hello")
        vm.wait_console(r"^\.$", timeout_s=10, what="tick")
        assert vm.ssh_port is not None
        vm.poweroff(timeout_s=10)
        assert vm.process.returncode == 0
    assert "hello" in vm.console_log.read_text()
    assert vm.console_log.stat().st_mode & 0o077 == 0


def test_goes_on_from_a_snapshot_instead_of_booting(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    spec = make_spec(sector("hello\n", TICK))
    with Machine(spec, tmp_path / "first", runner) as vm:
        vm.wait_console(r"^\.$", timeout_s=30, what="tick")
        vm.savevm("warm")
        assert vm.snapshots.tags() == ("warm",)
        with pytest.raises(Exception, match="snapshot warm already"):
            vm.savevm("warm")
    root = spec.disks[0].path
    assert images.info(runner, root, "qcow2").snapshots == ("warm",)

    again = MachineSpec(**{**vars(spec), "loadvm": "warm"})
    with Machine(again, tmp_path / "second", runner) as vm:
        vm.wait_console(r"^\.$", timeout_s=10, what="tick on")
        vm.snapshots.delete("warm", timeout_s=10)
        vm.poweroff(timeout_s=10)
    assert "hello" not in vm.console_log.read_text()


def test_a_snapshot_covers_uefi_variables_too(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    spec = make_spec(sector("", HALT), firmware="uefi", memory_mb=128)
    with Machine(spec, tmp_path / "vm", runner) as vm:
        vm.savevm("early")
    variables = tmp_path / "vm" / "uefi-vars.qcow2"
    assert images.info(runner, variables, "qcow2").snapshots == ("early",)
    again = MachineSpec(**{**vars(spec), "loadvm": "early"})
    with Machine(again, tmp_path / "vm", runner) as vm:
        vm.pause(0)


def test_a_missing_snapshot_is_named(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    spec = make_spec(sector("", HALT), loadvm="nowhere")
    with (
        pytest.raises(MachineFailed, match="nowhere"),
        Machine(spec, tmp_path / "vm", runner),
    ):
        pass


def test_a_panic_on_the_console_ends_the_wait_at_once(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    words = "[    1.234567] Kernel panic - not syncing: test\n---[ end Kernel panic ]---\n"
    with Machine(make_spec(sector(words, HALT)), tmp_path / "vm", runner) as vm:
        started = time.monotonic()
        with pytest.raises(MachineFailed, match=r"panicked: .*not syncing: test") as caught:
            vm.wait_ready(timeout_s=60)
    assert time.monotonic() - started < 20
    assert caught.value.tail[-1] == "---[ end Kernel panic ]---"


def test_a_triple_fault_is_no_endless_loop(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    spec = make_spec(sector("", TRIPLE_FAULT))
    with (
        Machine(spec, tmp_path / "vm", runner) as vm,
        pytest.raises(MachineFailed, match="guest-reset"),
    ):
        vm.wait_ready(timeout_s=60)


def test_a_disk_that_does_not_boot_ends_the_wait_at_once(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    spec = make_spec(bytes(SECTOR_BYTES))
    with (
        Machine(spec, tmp_path / "vm", runner) as vm,
        pytest.raises(MachineFailed, match="nothing to boot"),
    ):
        vm.wait_ready(timeout_s=60)


def test_a_guest_that_never_gets_ready_times_out_with_its_last_words(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    with Machine(make_spec(sector("stuck here\n", HALT)), tmp_path / "vm", runner) as vm:
        vm.wait_console("stuck", timeout_s=30, what="say so")
        with pytest.raises(TimedOut, match="last thing seen: stuck here"):
            vm.wait_ready(timeout_s=0.2)


def test_a_second_machine_on_the_same_disk_is_refused(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    spec = make_spec(sector("", HALT))
    with (
        Machine(spec, tmp_path / "one", runner),
        pytest.raises(Busy, match="disk"),
        Machine(spec, tmp_path / "two", runner),
    ):
        pass


def test_a_port_in_use_is_named(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    with Machine(make_spec(sector("", HALT)), tmp_path / "one", runner) as vm:
        other = make_spec_on_own_disk(tmp_path, vm.ssh_port)
        with (
            pytest.raises(Busy, match=f"port {vm.ssh_port} on 127.0.0.1"),
            Machine(other, tmp_path / "two", runner),
        ):
            pass


def make_spec_on_own_disk(tmp_path: Path, ssh_port: int | None) -> MachineSpec:
    return MachineSpec(name="other", accel=TCG, memory_mb=32, cpus=1, ssh_port=ssh_port)


def test_a_disk_is_plugged_in_while_it_runs(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    source = tmp_path / "a disk, with a comma.raw"
    source.write_bytes(bytes(1 << 20))
    with Machine(make_spec(sector("", HALT)), tmp_path / "vm", runner) as vm:
        vm.attach_disk(source, "source")
        with pytest.raises(MachineFailed, match="must be detached"):
            vm.savevm("with-it")
        with pytest.raises(MachineFailed, match=r"[Dd]uplicate"):
            vm.attach_disk(source, "source")
        vm.attach_disk(source, "second")
        with pytest.raises(MachineFailed, match="ports"):
            vm.attach_disk(source, "third")


def test_machines_in_threads_end_when_these_are_interrupted(
    tmp_path: Path, runner: Runner, make_spec: Callable[..., MachineSpec]
) -> None:
    """One is open for others; in another thread somebody waits for what its guest never does."""
    crew: Crew[str] = Crew()
    spec = make_spec(sector("hello\n", TICK))
    (first,) = spec.disks
    other = tmp_path / "other.qcow2"
    shutil.copyfile(first.path, other)
    other_spec = dataclasses.replace(spec, disks=(dataclasses.replace(first, path=other),))
    machines: dict[str, Machine] = {}

    @contextlib.contextmanager
    def booted() -> Iterator[None]:
        with Machine(spec, tmp_path / "open", runner) as machines["open"]:
            machines["open"].wait_console("^hello$", timeout_s=30, what="say hello")
            yield
            # It still runs: those who stood on it are done, and nobody has ended it.
            assert machines["open"].process.returncode is None

    def work() -> None:
        with Machine(other_spec, tmp_path / "working", runner) as machines["working"]:
            waits.set()
            machines["working"].wait_console("never", timeout_s=600, what="do the impossible")

    waits = threading.Event()
    crew.open("open", booted(), "open")
    assert crew.next().opened
    crew.start("working", work, "working")
    assert waits.wait(30)
    ended = {news.work: news.error for news in crew.end()}
    assert isinstance(ended["working"], Interrupted)
    assert ended["open"] is None
    assert [vm.process.returncode is None for vm in machines.values()] == [False, False]
