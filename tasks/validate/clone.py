"""One copy of an image: its overlay, its seed, its machines, its announcements."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks.core.errors import CannotRun, CommandFailed, MachineFailed, TimedOut, VmbakeError
from tasks.core.process import Runner
from tasks.guest.shell import Shell
from tasks.guest.ssh import Ssh
from tasks.qemu import disk as images
from tasks.qemu.accel import Accel
from tasks.qemu.machine import Machine
from tasks.qemu.spec import Disk, MachineSpec
from tasks.qemu.watch import Announcement
from tasks.validate import seed as seeds
from tasks.validate.subject import Subject

Firmware = Literal["bios", "uefi"]
MIB = 1 << 20
SHUTDOWN_S = 120.0
COMMAND_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How guests are run.

    Args:
        quick: one guest, booted once.
    """

    accel: Accel
    firmware: Firmware
    memory_mb: int
    boot_timeout_s: float
    ssh_timeout_s: float
    quick: bool = False


class Machines:
    """The machines that run now, so that all of them can be ended at once from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Machine] = []
        self._ended = False

    @contextlib.contextmanager
    def running(self, machine: Machine) -> Iterator[Machine]:
        """Run a machine while the block lasts.

        Raises:
            MachineFailed: all machines were ended already, or as `Machine`.
        """
        if self._ended:
            raise MachineFailed("The validation was interrupted.")
        with machine as vm:
            with self._lock:
                self._running.append(vm)
            try:
                if self._ended:
                    raise MachineFailed("The validation was interrupted.")
                yield vm
            finally:
                with self._lock:
                    self._running.remove(vm)

    def end_all(self) -> None:
        """End every machine; whoever waits for one is told that it failed."""
        self._ended = True
        with self._lock:
            for vm in self._running:
                vm.process.stop(grace_s=0)


@dataclass(frozen=True, kw_only=True)
class FirstBoot:
    """What a guest told at the end of its first boot.

    Args:
        kernel_s: when its kernel started, in seconds after QEMU was started.
        done_s: when cloud-init was done.
    """

    user: str
    machine_id: str
    host_keys: tuple[str, ...]
    kernel_s: float
    done_s: float


class Clone:
    """A copy of the image, with a folder of its own."""

    def __init__(
        self,
        subject: Subject,
        settings: Settings,
        folder: Path,
        runner: Runner,
        machines: Machines,
        *,
        more_bytes: int = 0,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self._machines = machines
        self._runner = runner
        folder.mkdir(parents=True)
        self.seed = seeds.make(folder, f"validation-{folder.name}", runner)
        self._overlay = folder / "disk.qcow2"
        images.create_overlay(
            runner,
            self._overlay,
            backing=subject.disk,
            backing_format=subject.format,
            size_bytes=subject.virtual_bytes + more_bytes if more_bytes else None,
        )

    def spec(self) -> MachineSpec:
        """The machine of its first boot."""
        return MachineSpec(
            name=self.seed.hostname,
            accel=self.settings.accel,
            memory_mb=self.settings.memory_mb,
            cpus=1,
            disks=(
                Disk(id="root", path=self._overlay, format="qcow2"),
                Disk(id="seed", path=self.seed.image, format="raw", read_only=True),
            ),
            firmware=self.settings.firmware,
        )

    @contextlib.contextmanager
    def booted(self) -> Iterator[tuple[Machine, FirstBoot]]:
        """Boot it for the first time, until it has announced that cloud-init is done.

        Raises:
            MachineFailed, TimedOut: it didn't come so far.
            CannotRun: it came so far without taking the seed's key.
        """
        since = time.monotonic()
        machine = Machine(self.spec(), self.folder / "first", self._runner)
        with self._machines.running(machine) as vm:
            said = self._wait_ready(vm)
            yield vm, first_boot(said, time.monotonic() - since)

    def _wait_ready(self, vm: Machine) -> Announcement:
        try:
            return vm.wait_announcement(
                lambda said: said.get("ready") is True,
                timeout_s=self.settings.boot_timeout_s,
                what="finish its first boot (cloud-init tells when it does)",
            )
        except TimedOut as error:
            hint = "If it was only slow, give it longer: --boot-timeout."
            raise TimedOut(error.what, hint=hint, log=error.log, tail=error.tail) from error

    @contextlib.contextmanager
    def rebooted(self, memory_mb: int) -> Iterator[Machine]:
        """Boot it again, in a machine with another size of memory; it must have been shut down."""
        spec = replace(self.spec(), memory_mb=memory_mb, cpus=2)
        again = self.folder / "again"
        again.mkdir(mode=0o700)
        variables = self.folder / "first" / "uefi-vars.qcow2"
        if variables.exists():
            shutil.copyfile(variables, again / variables.name)
        with self._machines.running(Machine(spec, again, self._runner)) as vm:
            yield vm

    @contextlib.contextmanager
    def shell(self, vm: Machine, boot: FirstBoot, timeout_s: float) -> Iterator[Shell]:
        """A root shell in it, by SSH.

        Raises:
            MachineFailed: the machine failed.
            TimedOut: no SSH connection within `timeout_s` seconds.
            CommandFailed: the user may not become root.
        """
        host_key = preferred(boot.host_keys)
        ssh = Ssh(vm, user=boot.user, key=self.seed.key, host_key=host_key, runner=self._runner)
        with ssh:
            ssh.wait(timeout_s)
            with ssh.shell() as shell:
                answer = shell.run("id -u", timeout_s=COMMAND_S)
                if answer.stdout.strip() != "0":
                    raise CommandFailed(
                        f"The user {boot.user} can't become root in the guest: {answer.said}"
                    )
                yield shell


def power_off(vm: Machine, shell: Shell) -> None:
    """Have the guest shut down in order, and wait for it.

    Raises:
        MachineFailed, TimedOut: it didn't.
    """

    def ask() -> None:
        # The connection may end before the answer.
        with contextlib.suppress(VmbakeError):
            shell.run("systemctl poweroff || poweroff", timeout_s=COMMAND_S)

    vm.poweroff(SHUTDOWN_S, ask)


def first_boot(said: Any, arrived_s: float) -> FirstBoot:
    """What the guest announced.

    Raises:
        CannotRun: it has no user with our key, or no host keys.
    """
    user, keys = str(said.get("user", "")), tuple(map(str, said.get("host_keys", ())))
    if not user:
        raise CannotRun("No user of the image has taken the key of the seed, so nobody gets in.")
    if not keys:
        raise CannotRun("The guest has no SSH host keys after its first boot, so sshd can't run.")
    return FirstBoot(
        user=user,
        machine_id=str(said.get("machine_id", "")),
        host_keys=keys,
        kernel_s=max(arrived_s - float(said.get("uptime_s", arrived_s)), 0.0),
        done_s=arrived_s,
    )


def preferred(host_keys: tuple[str, ...]) -> str:
    """The key to know the guest by: known_hosts gets one, and ssh then asks for its kind."""
    return next((key for key in host_keys if key.startswith("ssh-ed25519 ")), host_keys[0])
