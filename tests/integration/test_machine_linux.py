"""Machines with a Linux kernel inside: what only a real guest can show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core.errors import MachineFailed
from tasks.core.process import Runner
from tasks.qemu import disk as images
from tasks.qemu.accel import Accel
from tasks.qemu.machine import Machine
from tasks.qemu.spec import DirectKernel, Disk, MachineSpec
from tests.standins.tiny_linux import TinyLinux, make

pytestmark = pytest.mark.integration

TCG = Accel(name="tcg", cpu="max", reason="the test wants it")
BOOT_S = 90


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> TinyLinux:
    return make(tmp_path_factory.mktemp("linux"))


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "stage.log", timeout_s=60)


@pytest.fixture
def spec(linux: TinyLinux, tmp_path: Path, runner: Runner) -> MachineSpec:
    images.create(runner, tmp_path / "root.qcow2", size_bytes=1 << 20)
    return MachineSpec(
        name="linux",
        accel=TCG,
        memory_mb=256,
        cpus=1,
        disks=(Disk(id="root", path=tmp_path / "root.qcow2", format="qcow2"),),
        direct=DirectKernel(
            kernel=linux.kernel, initrd=linux.initrd, cmdline="console=ttyS0 panic=-1"
        ),
    )


def test_a_guest_announces_takes_disks_survives_a_restore_and_ends(
    spec: MachineSpec, tmp_path: Path, runner: Runner
) -> None:
    source = tmp_path / "source.raw"
    source.write_bytes(b"hello".ljust(1 << 20, b"\0"))

    with Machine(spec, tmp_path / "first", runner) as vm:
        vm.wait_ready(timeout_s=BOOT_S)
        assert vm.facts["kernel"].startswith(("5.", "6.", "7."))
        vm.savevm("warm")

    with Machine(replace(spec, loadvm="warm"), tmp_path / "second", runner) as vm:
        vm.wait_announcement(lambda said: "tick" in said, timeout_s=30, what="go on")
        assert not any("ready" in said for said in vm.announcements)
        vm.attach_disk(source, "source")
        vm.wait_announcement(
            lambda said: said.get("content") == "hello", timeout_s=30, what="read the disk"
        )
        vm.detach_disk("source")
        vm.wait_announcement(
            lambda said: said.get("disks", "").strip() == "root", timeout_s=30, what="see it go"
        )
        vm.attach_disk(source, "off")
        vm.wait_shutdown(timeout_s=30)
        assert vm.process.returncode == 0


def test_a_real_panic_is_seen_and_told_to_its_end(
    spec: MachineSpec, tmp_path: Path, runner: Runner
) -> None:
    order = tmp_path / "order.raw"
    order.write_bytes(bytes(1 << 20))
    with Machine(spec, tmp_path / "vm", runner) as vm:
        vm.wait_ready(timeout_s=BOOT_S)
        vm.attach_disk(order, "crash")
        with pytest.raises(MachineFailed, match="kernel panicked") as caught:
            vm.wait_announcement(lambda said: "never" in said, timeout_s=60, what="live on")
    assert any("sysrq triggered crash" in line for line in caught.value.tail)
    assert any("Call Trace" in line for line in caught.value.tail)
