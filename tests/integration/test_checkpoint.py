"""Checkpoints of a real guest: many copies of one machine, and what must not become one."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.digest import sha256_of
from tasks.core.errors import NoRoom
from tasks.core.process import Runner
from tasks.qemu import checkpoint
from tasks.qemu import disk as images
from tasks.qemu.accel import Accel
from tasks.qemu.checkpoint import CannotGoOn, Checkpoint, go_on, thawed
from tasks.qemu.machine import Machine
from tasks.qemu.spec import DirectKernel, Disk, MachineSpec
from tests.standins.file_system import FileSystem
from tests.standins.processes import alive, wait_until
from tests.standins.tiny_linux import make
from tests.standins.traces import left_of

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TCG = Accel(name="tcg", cpu="max,-erms", reason="the test wants it")
BOOT_S = 120


@dataclass(frozen=True)
class Frozen:
    """The checkpoint of a guest that was ready, and how it was started."""

    saved: Checkpoint
    spec: MachineSpec
    runner: Runner

    def content(self) -> dict[str, str]:
        return {path.name: sha256_of(path) for path in self.saved.directory.iterdir()}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    folder = tmp_path_factory.mktemp("frozen")
    linux = make(tmp_path_factory.mktemp("linux"))
    runner = Runner(folder / "log", timeout_s=60)
    work, out = folder / "work", folder / "out"
    work.mkdir()
    out.mkdir()
    images.create(runner, work / "root.qcow2", size_bytes=1 << 20)
    spec = MachineSpec(
        name="linux",
        accel=TCG,
        memory_mb=256,
        cpus=1,
        disks=(Disk(id="root", path=work / "root.qcow2", format="qcow2"),),
        direct=DirectKernel(kernel=linux.kernel, initrd=linux.initrd, cmdline="console=ttyS0"),
    )
    with Machine(spec, work / "vm", runner) as vm:
        vm.wait_ready(timeout_s=BOOT_S)
        checkpoint.save(vm, out, runner, digest_of=sha256_of)
    return Frozen(checkpoint.read(out), spec, runner)


@pytest.fixture
def copies(frozen: Frozen, tmp_path: Path) -> Iterator[Any]:
    """Starts machines from the checkpoint, as many as the test wants."""
    with ExitStack() as stack:

        def start(name: str, saved: Checkpoint = frozen.saved, **changes: Any) -> Machine:
            spec = replace(thawed(saved, frozen.spec, tmp_path / name, frozen.runner), **changes)
            vm = stack.enter_context(Machine(spec, tmp_path / name, frozen.runner))
            go_on(saved, vm, frozen.runner, digest_of=sha256_of)
            return vm

        yield start


def test_two_copies_go_on_at_once_each_as_itself(frozen: Frozen, copies: Any) -> None:
    before = frozen.content()
    machines = [copies("one"), copies("two")]
    # What Linux reseeds its random numbers by (drivers/virt/vmgenid.c), where it has that driver.
    identities = {vm.ask("query-vm-generation-id")["guid"] for vm in machines}
    assert len(identities) == len(machines)
    for vm in machines:
        vm.wait_announcement(lambda said: "tick" in said, timeout_s=60, what="go on")
        assert not any("ready" in said for said in vm.announcements)
        vm.attach_disk(frozen.saved.ram, "scribble")
        vm.wait_announcement(
            lambda said: said.get("wrote") == "root", timeout_s=60, what="write to its disk"
        )
        vm.quit()
    assert frozen.content() == before


def test_a_copy_takes_disks_and_ends_as_the_first_would(frozen: Frozen, copies: Any) -> None:
    vm = copies("copy")
    vm.attach_disk(frozen.saved.ram, "off")
    vm.wait_shutdown(timeout_s=60)
    assert vm.process.returncode == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"accel": replace(TCG, cpu="qemu64")}, r"cpu model was max,-erms and is qemu64"),
        ({"memory_mb": 384}, r"memory mb was 256 and is 384"),
        ({"machine_type": "pc-q35-7.1"}, r"machine type was pc-q35-\d+\.\d+ and is pc-q35-7\.1"),
        ({"hotplug_ports": 1}, r"devices was pcie-root-port,id=hotplug1"),
    ],
)
def test_another_machine_is_refused(copies: Any, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(CannotGoOn, match=why):
        copies("other", **changes)


@pytest.mark.parametrize(
    ("trait", "other", "why"),
    [
        ("qemu", "6.2.0 of another host", r"qemu was 6\.2\.0 of another host and is \d+\.\d+"),
        ("cpu_features", {"sse2": False}, r"cpu features was sse2=False and is sse2=True"),
        ("cpu_features", {"avx9": True}, r"cpu features was avx9=True and is without"),
    ],
)
def test_what_another_host_saved_is_refused(
    frozen: Frozen, copies: Any, tmp_path: Path, trait: str, other: Any, why: str
) -> None:
    """As far as its record tells it from one of this host."""
    theirs = tmp_path / "theirs"
    shutil.copytree(frozen.saved.directory, theirs)
    record = json.loads((theirs / checkpoint.RECORD).read_text())
    was = record["traits"][trait]
    record["traits"][trait] = was | other if isinstance(was, dict) else other
    (theirs / checkpoint.RECORD).write_text(json.dumps(record))
    with pytest.raises(CannotGoOn, match=why):
        copies("copy", checkpoint.read(theirs))


def test_what_the_gate_lets_pass_and_qemu_does_not_is_refused_too(
    frozen: Frozen, copies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "refusal", lambda saved, here: "")
    with pytest.raises(CannotGoOn, match=r"QEMU ended \(exit status 1\).*: .*pc\.ram"):
        copies("other", memory_mb=384)


@pytest.mark.parametrize("harm", ["truncated", "changed", "missing"])
def test_a_damaged_state_is_found_and_the_same_disk_boots_cold(
    frozen: Frozen, copies: Any, tmp_path: Path, harm: str
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in frozen.saved.directory.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    ram = damaged / checkpoint.RAM
    match harm:
        case "truncated":
            ram.write_bytes(ram.read_bytes()[:-1000])
        case "changed":
            ram.write_bytes(ram.read_bytes()[:-1000] + bytes(1000))
        case "missing":
            ram.unlink()
    saved = checkpoint.read(damaged)
    with pytest.raises(CannotGoOn, match=r"ram\.zst of the checkpoint (was changed|can't be read)"):
        copies("copy", saved)

    checkpoint.require_disks(saved, sha256_of)
    cold = thawed(saved, frozen.spec, tmp_path / "cold", frozen.runner, cold=True)
    with Machine(cold, tmp_path / "cold", frozen.runner) as vm:
        vm.wait_ready(timeout_s=BOOT_S)


@pytest.mark.parametrize(
    ("save", "why"),
    [
        (lambda vm, runner: vm.savevm("warm"), r"^The disk of .*small/vm is full: .*snapshot warm"),
        (
            lambda vm, runner: checkpoint.save(
                vm, vm.directory.with_name("out"), runner, digest_of=sha256_of
            ),
            r"^The disk filled up while .*ram\.zst",
        ),
    ],
    ids=["snapshot", "checkpoint"],
)
def test_a_disk_that_is_full_while_the_machine_is_saved(
    frozen: Frozen, copies: Any, tmp_path: Path, save: Callable[..., object], why: str
) -> None:
    small = FileSystem(tmp_path / "small", 256 << 20)
    with small.mounted() as folder:
        (folder / "out").mkdir()
        vm = copies("small/vm")
        with small.full(), pytest.raises(NoRoom, match=why):
            save(vm, frozen.runner)
        assert list((folder / "out").iterdir()) == []
        vm.abandon()
        assert left_of(folder) == [line for line in left_of(folder) if line.startswith("tmpfs ")]


def test_a_save_that_is_killed_leaves_nothing_to_go_on_from(frozen: Frozen, tmp_path: Path) -> None:
    """The one who saves is another process here, killed while the state is written."""
    program = f"""
        import os, signal
        from pathlib import Path
        from tasks.core.digest import sha256_of
        from tasks.core.process import Runner
        from tasks.qemu import checkpoint, migration
        from tasks.qemu.accel import Accel
        from tasks.qemu.checkpoint import go_on, read, save, thawed
        from tasks.qemu.machine import Machine
        from tasks.qemu.spec import DirectKernel, Disk, MachineSpec

        here, saved = Path({str(tmp_path)!r}), read(Path({str(frozen.saved.directory)!r}))
        runner = Runner(here / "log")
        spec = {frozen.spec!r}
        spec = thawed(saved, spec, here / "vm", runner)
        (here / "out").mkdir()
        with Machine(spec, here / "vm", runner) as vm:
            go_on(saved, vm, runner, digest_of=sha256_of)
            print(vm.process.pid, flush=True)
            write = os.fsync
            os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
            save(vm, here / "out", runner, digest_of=sha256_of)
    """
    program = textwrap.dedent(program).replace("PosixPath(", "Path(")
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(CannotGoOn, match=r"record can't be read"):
        checkpoint.read(tmp_path / "out")
    wait_until(lambda: not alive(int(done.stdout)), "QEMU outlived the one who saved")


def test_a_uefi_machine_keeps_its_variables(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log", timeout_s=60)
    out, work, copy = (tmp_path / name for name in ("out", "work", "copy"))
    out.mkdir()
    spec = MachineSpec(
        name="uefi", accel=TCG, memory_mb=128, cpus=1, firmware="uefi", network="none"
    )
    with Machine(spec, work, runner) as vm:
        saved = checkpoint.save(vm, out, runner, digest_of=sha256_of)
    assert set(saved.disks) == {"uefi-vars"}
    for _ in range(2):
        with Machine(thawed(saved, spec, copy, runner), copy, runner) as vm:
            go_on(saved, vm, runner, digest_of=sha256_of)
            assert vm.ask("query-status")["status"] == "running"
    assert checkpoint.damage(saved, sha256_of) == ""
