"""The build VM: its first boot, its frozen state, and copies of that to work in."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import MachineFailed, VmbakeError
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.guest.ssh import Ssh
from tasks.qemu import disk
from tasks.qemu.accel import Accel
from tasks.qemu.checkpoint import CannotGoOn
from tasks.qemu.diagnosis import is_tcg_fault
from tasks.qemu.machine import Machine
from tasks.qemu.spec import DirectKernel, Disk, MachineSpec
from tasks.vexfs import bases, copies, guest_steps, seed

MACHINE_DISK = "machine.qcow2"
TRIES = 3
DPKG_STATUS = "dpkg-status"
TAG = "ready"
# The last console is the one that is logged. A guest that lives for minutes and talks to nobody
# needs no mitigations, and no unit that serves its later life.
CMDLINE = (
    "console=tty0 console=ttyS0,115200 mitigations=off audit=0 ds=nocloud "
    "systemd.mask=systemd-timesyncd.service systemd.mask=boot-efi.mount"
)
# Controllers that nothing hangs on cost the guest time to look for.
BOARD = "q35,sata=off,smbus=off,i8042=off"
# Lines of cloud-init's result that a user can do something about come first; this many are shown.
SHOWN_ERRORS = 10


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is allowed to happen with a build VM, none of which changes a result.

    Args:
        ssh_port: on 127.0.0.1; None: a free one.
        keep: leave it running when a step in it fails.
    """

    ssh_port: int | None
    keep: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Limits:
        """From the parameters of a stage."""
        port = int(params["ssh_port"])
        return cls(ssh_port=port or None, keep=bool(params["keep_vm"]))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a build VM is put together from.

    Args:
        keys: the folder with its keys.
        seed: the ISO with its seed.
    """

    base: Result
    keys: Path
    seed: Path


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A running build VM and the way into it."""

    vm: Machine
    ssh: Ssh


@contextlib.contextmanager
def first_boot(
    step: Step, parts: Parts, accel: Accel, memory_mb: int, cpus: int
) -> Iterator[Machine]:
    """Boot an overlay of the base with the seed, until cloud-init has done all of it."""
    step.tell(str(accel))
    overlay = step.work / MACHINE_DISK
    limits = Limits.of(step.params)
    spec = build_spec(
        parts, overlay, accel=accel, memory_mb=memory_mb, cpus=cpus, port=limits.ssh_port
    )

    def boot(stack: contextlib.ExitStack) -> Machine:
        overlay.unlink(missing_ok=True)
        disk.create_overlay(
            step.runner, overlay, backing=parts.base.path(bases.DISK), backing_format="qcow2"
        )
        vm = stack.enter_context(running(step, spec, parts.keys, limits))
        step.say("waiting for cloud-init")
        check_first_boot(step, vm.wait_ready(step.deadline.left_s))
        return vm

    with trying_again(step, accel, boot) as vm:
        yield vm


@contextlib.contextmanager
def trying_again(
    step: Step, accel: Accel, boot: Callable[[contextlib.ExitStack], Machine]
) -> Iterator[Machine]:
    """A booted machine; where TCG let the guest down, it is booted again."""
    for attempt in range(1, TRIES + 1):
        with contextlib.ExitStack() as stack:
            try:
                vm = boot(stack)
            except MachineFailed as error:
                if attempt == TRIES or not is_tcg_fault(error, accel.name):
                    raise
                step.tell("the guest's kernel tripped over a bug of QEMU's TCG; starting again")
                continue
            yield vm
            return


def build_spec(
    parts: Parts,
    overlay: Path,
    *,
    accel: Accel,
    memory_mb: int,
    cpus: int,
    port: int | None,
) -> MachineSpec:
    """The build VM. Its kernel is loaded directly if the base came with one: that saves GRUB."""
    base, direct = parts.base, None
    if base.facts["kernel"]:
        direct = DirectKernel(
            kernel=base.path(bases.KERNEL),
            initrd=base.path(bases.INITRD),
            cmdline=f"root=UUID={base.facts['root_uuid']} ro {CMDLINE}",
        )
    return MachineSpec(
        name="vexfs-build",
        accel=accel,
        memory_mb=memory_mb,
        cpus=cpus,
        disks=(
            Disk(id="root", path=overlay, format="qcow2"),
            Disk(id="seed", path=parts.seed, format="raw", read_only=True),
        ),
        direct=direct,
        machine_type=BOARD,
        # The guest reaches out only if cloud-init has packages to install.
        network="restricted" if base.facts["packages"] else "open",
        ssh_port=port,
    )


@contextlib.contextmanager
def running(step: Step, spec: MachineSpec, keys: Path, limits: Limits) -> Iterator[Machine]:
    """A machine for the block; if it is kept after a failure, the error says how to get in."""
    machine = Machine(spec, step.work / "vm", step.runner, step, keep=limits.keep)
    try:
        with machine as vm:
            yield vm
    except VmbakeError as error:
        if machine.kept:
            command = way_in(step, machine, keys).command_for_humans()
            error.hint += (
                f"\nThe build VM still runs: {command}\nEnd it with: {machine.kept.stop_command}"
            )
        raise


def leave_running(step: Step, vm: Machine, parts: Parts) -> None:
    """Let the machine go on after the run, and say how to get in."""
    vm.leave_running()
    command = way_in(step, vm, parts.keys).command_for_humans()
    step.tell(f"left running: {command}\n  end it with: kill {vm.process.pid}")


def way_in(step: Step, vm: Machine, keys: Path) -> Ssh:
    """SSH as the build's user, with its one-off key."""
    return Ssh(
        vm,
        user=seed.USER,
        key=keys / seed.USER_KEY,
        host_key=(keys / f"{seed.HOST_KEY}.pub").read_text(),
        runner=step.runner,
    )


def check_first_boot(step: Step, said: Mapping[str, Any]) -> None:
    """Look at what the guest says of its first boot.

    Raises:
        MachineFailed: cloud-init could not do what the user-data says, or finds it invalid.
    """
    problems = [*said.get("cloud_init_errors", [])]
    problems += [line for line in str(said.get("schema_errors", "")).splitlines() if line.strip()]
    if problems:
        raise MachineFailed(
            "cloud-init did not do all that the user-data says.",
            hint="The user-data is made from the templates in cloud-init/.",
            tail=tuple(str(problem) for problem in problems[:SHOWN_ERRORS]),
        )
    for level, messages in said.get("cloud_init_warnings", {}).items():
        step.runner.note(f"cloud-init {level}: {messages}")


def freeze(step: Step, vm: Machine) -> Facts:
    """Save the running machine in its own disk and, for many copies, in a checkpoint with it."""
    step.say("saving the machine's state")
    vm.savevm(TAG)
    copies.freeze(step, vm)
    spec = vm.spec
    return {
        "tag": TAG,
        "accelerator": {"name": spec.accel.name, "cpu": spec.accel.cpu},
        "memory_mb": spec.memory_mb,
        "cpus": spec.cpus,
        "machine_type": spec.machine_type,
    }


@contextlib.contextmanager
def restored(step: Step, parts: Parts, frozen: Result) -> Iterator[Guest]:
    """A copy of the frozen machine, going on from where it was; nothing done to it is kept.

    Where the checkpoint doesn't fit, it is a machine that has just been booted in the same way.
    """
    facts, limits = frozen.facts, Limits.of(step.params)
    accel = Accel(**facts["accelerator"], reason="the checkpoint's")
    memory_mb, cpus = facts["memory_mb"], facts["cpus"]
    spec = build_spec(
        parts,
        step.work / MACHINE_DISK,
        accel=accel,
        memory_mb=memory_mb,
        cpus=cpus,
        port=limits.ssh_port,
    )
    with contextlib.ExitStack() as stack:
        step.say("restoring the build VM")
        try:
            vm = copies.going_on(
                stack,
                step,
                frozen.directory,
                spec,
                lambda thawed: running(step, thawed, parts.keys, limits),
            )
        except CannotGoOn as error:
            step.tell(f"not restored, but booted: {error.what}")
            vm = stack.enter_context(first_boot(step, parts, accel, memory_mb, cpus))
        ssh = stack.enter_context(way_in(step, vm, parts.keys))
        ssh.wait(step.deadline.left_s)
        copies.wake(ssh)
        yield Guest(vm=vm, ssh=ssh)


def seal(step: Step, guest: Guest, compiled: Result) -> Facts:
    """Install what was compiled, seal the guest, and end it; its disk is left in `step.work`."""
    names = {role: str(compiled.facts[role]["file"]) for role in ("module", "tool")}
    # For the bill of materials; nobody gets in any more once the guest is sealed.
    guest.ssh.fetch("/var/lib/dpkg/status", step.out / DPKG_STATUS)
    step.say("installing the module and vexctl, and sealing")
    done = guest_steps.install_and_seal(guest.ssh, compiled.directory, names, step.deadline)
    guest.vm.quit()
    return sealed_facts(done)


def sealed_facts(done: guest_steps.Sealed) -> Facts:
    """What is known of a sealed image."""
    return {
        "kernel": done.facts["kernel"],
        "vermagic": done.facts["vermagic"],
        "tool_version": done.facts["tool_version"],
        "packages": done.packages,
    }


def keep_disk(step: Step, base: Result) -> None:
    """Make the machine's disk, as an overlay of the base, the stage's result."""
    overlay = step.work / MACHINE_DISK
    disk.absorb(step.runner, overlay, down_to=base.path(bases.DISK), backing_format="qcow2")
    shutil.move(overlay, step.out / MACHINE_DISK)
