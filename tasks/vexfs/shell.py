"""A session in a running copy of the finished image, which was booted once and then frozen."""

from __future__ import annotations

import secrets
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import CommandFailed, MachineFailed
from tasks.core.process import Runner, describe_status
from tasks.core.stage import Facts, Step
from tasks.guest import cloudconfig, iso
from tasks.guest.ssh import Ssh
from tasks.qemu import checkpoint, disk
from tasks.qemu.accel import Accel
from tasks.qemu.machine import Machine
from tasks.qemu.spec import Disk, MachineSpec
from tasks.vexfs import building, copies, guest_steps, seed
from tasks.vexfs.options import CLOUD_INIT

USER = "vexfs"
SEED = "seed.iso"
RENEWED = "host_key"
# ssh's own status when the connection broke; the command's can't be told from it.
BROKEN = 255
CAUSE_S = 1.0
SHUTDOWN_S = 60.0
# cloud-init's 2 is for what it got over (cloud-init(1), "status"). What still starts would go on
# doing so in every copy.
SETTLE = """\
cloud-init status --wait > /dev/null || [ $? -eq 2 ]
systemctl is-system-running --wait > /dev/null || true
sync"""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The machine for the session."""

    accel: Accel
    memory_mb: int
    cpus: int


def freeze(step: Step, image: Path, size: Size) -> Facts:
    """Boot an overlay of the image with keys of its own, and make a checkpoint of it."""
    step.tell(str(size.accel))
    seed.make_keys(step.out, step.runner)
    write_seed(step.out)
    spec = spec_of(step.work / building.MACHINE_DISK, step.out / SEED, size)

    def boot(stack: ExitStack) -> Machine:
        root = spec.disks[0].path
        root.unlink(missing_ok=True)
        disk.create_overlay(step.runner, root, backing=image, backing_format="qcow2")
        vm = stack.enter_context(Machine(spec, step.work / "vm", step.runner, step))
        settle(step, vm, step.out)
        return vm

    with building.trying_again(step, size.accel, boot) as vm:
        step.say("saving the machine's state")
        copies.freeze(step, vm)
    return {"user": USER}


def write_seed(out: Path) -> None:
    """The seed that lets us in: for the image's own user, and with a host key that we know."""
    config = {
        "ssh_authorized_keys": [(out / f"{seed.USER_KEY}.pub").read_text().strip()],
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": (out / seed.HOST_KEY).read_text(),
            "ed25519_public": (out / f"{seed.HOST_KEY}.pub").read_text().strip(),
        },
    }
    meta = {"instance_id": f"vexfs-shell-{secrets.token_hex(8)}", "hostname": seed.HOSTNAME}
    files = {
        "user-data": cloudconfig.user_data(config),
        "meta-data": cloudconfig.render_file(CLOUD_INIT / "meta-data.yaml", meta),
    }
    iso.write_seed(out / SEED, {name: text.encode() for name, text in files.items()})


def spec_of(root: Path, seed_iso: Path, size: Size) -> MachineSpec:
    """The machine: the image as its users boot it, firmware and boot loader included."""
    return MachineSpec(
        name="vexfs-shell",
        accel=size.accel,
        memory_mb=size.memory_mb,
        cpus=size.cpus,
        disks=(
            Disk(id="root", path=root, format="qcow2"),
            Disk(id="seed", path=seed_iso, format="raw", read_only=True),
        ),
        machine_type=building.BOARD,
        network="open",
    )


def settle(step: Step, vm: Machine, keys: Path) -> None:
    """Wait until the guest has nothing more to start, and nobody is logged in."""
    step.say("waiting for the guest")
    with way_in(vm, keys, step.runner) as ssh:
        ssh.wait(step.deadline.left_s)
        ssh.run(SETTLE, what="The first boot", timeout_s=step.deadline.left_s)


def way_in(vm: Machine, keys: Path, runner: Runner) -> Ssh:
    """SSH as the image's own user."""
    return Ssh(
        vm,
        user=USER,
        key=keys / seed.USER_KEY,
        host_key=(keys / f"{seed.HOST_KEY}.pub").read_text(),
        runner=runner,
    )


def session(step: Step, frozen: Path, size: Size, command: str) -> None:
    """Give the user a session in a copy of the frozen machine, or run one command in it.

    Raises:
        CommandFailed: the command ended with another status than 0, which becomes ours.
        MachineFailed: the guest died.
    """
    spec = spec_of(step.work / building.MACHINE_DISK, frozen / SEED, size)
    with ExitStack() as stack:
        vm = start(stack, step, frozen, spec)
        step.say("connecting")
        ssh = stack.enter_context(way_in(vm, frozen, step.runner))
        ssh.wait(step.deadline.left_s)
        ssh.run(renewal(step), what="Making the copy a machine of its own")
        talk(step, vm, ssh, command)


def start(stack: ExitStack, step: Step, frozen: Path, spec: MachineSpec) -> Machine:
    """A copy that goes on; where the checkpoint can't be used, one that boots from its disk."""

    def run(thawed: MachineSpec) -> Machine:
        return Machine(thawed, step.work / "vm", step.runner, step)

    step.say("restoring")
    try:
        return copies.going_on(stack, step, frozen, spec, run)
    except checkpoint.CannotGoOn as error:
        step.tell(f"not restored, but booted: {error.what}")

    def boot(attempt: ExitStack) -> Machine:
        saved = checkpoint.read(frozen)
        checkpoint.require_disks(saved, step.digests.of)
        cold = checkpoint.thawed(saved, spec, step.work, step.runner, cold=True)
        vm = attempt.enter_context(run(cold))
        settle(step, vm, frozen)
        return vm

    return stack.enter_context(building.trying_again(step, spec.accel, boot))


def renewal(step: Step) -> str:
    """The script that makes a copy a machine of its own, with what it is to be."""
    key = step.work / RENEWED
    step.runner.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
    machine_id = secrets.token_hex(16)
    words = {
        "MACHINE_ID": machine_id,
        "NAME": f"{seed.HOSTNAME}-{machine_id[:6]}",
        "HOST_KEY": key.read_text().strip(),
        "HOST_KEY_PUBLIC": key.with_suffix(".pub").read_text().strip(),
    }
    return copies.wake_script() + guest_steps.script("renew.sh", words)


def talk(step: Step, vm: Machine, ssh: Ssh, command: str) -> None:
    """Hand the terminal to ssh, or our stdin, stdout and stderr if there is a command.

    Raises:
        CommandFailed: the command failed; or the connection broke, nobody knows why.
        MachineFailed: the guest died.
    """
    words = ssh.session(command, terminal=not command and sys.stdin.isatty())
    with ExitStack() as stack:
        stack.enter_context(step.reporter.aside())
        if not command:
            stack.enter_context(step.deadline.lifted())
        status = step.runner.hand_over(words)
    if status == BROKEN:
        check_end(vm)
    # The status of a session is that of the last thing typed, which the user has seen.
    if command and status != 0:
        error = CommandFailed(f"The command ended with {describe_status(status)}.", status=status)
        # As a shell tells that a signal ended it.
        error.exit_code = status if status > 0 else 128 - status
        raise error


def check_end(vm: Machine) -> None:
    """Look why a connection broke: that the guest shut down in order is no failure.

    Raises:
        MachineFailed: it died.
    """
    try:
        vm.pause(CAUSE_S)
    except MachineFailed:
        vm.wait_shutdown(SHUTDOWN_S)
