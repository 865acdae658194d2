"""The QEMU command line, against golden files: one option a line.

After a wanted change, write them anew: UPDATE_GOLDEN=1 pytest tests/unit/test_spec.py
"""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.qemu.accel import Accel
from tasks.qemu.spec import (
    DirectKernel,
    Disk,
    Flash,
    MachineSpec,
    Wiring,
    by_hand,
    command_line,
)

GOLDEN = Path(__file__).parent / "golden"
TCG = Accel(name="tcg", cpu="max", reason="")
KVM = Accel(name="kvm", cpu="host", reason="")
ROOT = Disk(id="root", path=Path("/store/root.qcow2"), format="qcow2")
SEED = Disk(id="seed", path=Path("/store/a seed, with a comma.iso"), format="raw", read_only=True)
FLASH = Flash(
    code=Path("/firmware/code.fd"), code_format="raw", variables=Path("/vm/uefi-vars.qcow2")
)
WIRING = Wiring(qmp="socket,fd=5", console="socket,fd=6,logfile=/vm/c.log", ready="socket,fd=7")

BUILD = MachineSpec(name="build", accel=TCG, memory_mb=2048, cpus=2, disks=(ROOT, SEED))
UEFI = replace(
    BUILD,
    name="final test",
    accel=KVM,
    firmware="uefi",
    network="open",
    ssh_port=2222,
    reboot=True,
    hotplug_ports=0,
    machine_type="pc-q35-7.2",
)
DIRECT = MachineSpec(
    name="direct",
    accel=TCG,
    memory_mb=512,
    cpus=1,
    network="none",
    direct=DirectKernel(
        kernel=Path("/k/vmlinuz"), initrd=Path("/k/initrd"), cmdline="console=ttyS0 quiet"
    ),
)
RESTORED = replace(BUILD, loadvm="warm")


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def lines(argv: tuple[str, ...]) -> str:
    """The arguments, each option on a line with its value."""
    text = argv[0]
    for word in argv[1:]:
        text += f"\n{word}" if word.startswith("-") else f" {shlex.quote(word)}"
    return f"{text}\n"


@pytest.mark.parametrize(
    ("name", "spec", "wiring"),
    [
        ("qemu-build.txt", BUILD, WIRING),
        ("qemu-uefi.txt", UEFI, replace(WIRING, flash=FLASH, sandbox=False)),
        ("qemu-direct.txt", DIRECT, WIRING),
        ("qemu-incoming.txt", replace(BUILD, incoming=True), WIRING),
        ("qemu-loadvm.txt", RESTORED, replace(WIRING, paused=True)),
    ],
)
def test_command_line(name: str, spec: MachineSpec, wiring: Wiring) -> None:
    golden(name, lines(command_line(spec, wiring)))


def test_by_hand() -> None:
    text = by_hand(RESTORED, Path("/vm"))
    golden("qemu-by-hand.txt", f"{text}\n")
    assert shlex.split(text.replace("\\\n", ""))[-2:] == ["-loadvm", "warm"]


def test_snapshots_cover_all_that_can_be_written() -> None:
    assert BUILD.writable_nodes == ("root",)
    assert UEFI.writable_nodes == ("root", "uefi-vars")
    assert DIRECT.writable_nodes == ()


@pytest.mark.parametrize("disk_id", ["", "1st", "Root", "a_b", "x" * 21, "a,b"])
def test_an_id_that_qemu_or_the_guest_would_cut_is_refused(disk_id: str) -> None:
    with pytest.raises(ValueError, match="disk id"):
        Disk(id=disk_id, path=Path("x"), format="raw")


def test_ids_are_unique() -> None:
    with pytest.raises(ValueError, match="repeat"):
        replace(BUILD, disks=(ROOT, ROOT))
