"""What the host says about its KVM: why it is missing or closed, and the commands that cure it."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

UDEV_RULE = 'KERNEL=="kvm", GROUP="kvm", MODE="0660", OPTIONS+="static_node=kvm"'
IN_CONTAINER = "Start the container with --device /dev/kvm."
CONTAINER_MARKS = (".dockerenv", "run/.containerenv", "run/systemd/container")


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why KVM does not work: one sentence without the full stop; and what would cure it."""

    finding: str
    fix: str


@dataclass(frozen=True, kw_only=True)
class KvmHost:
    """The host as KVM sees it.

    Args:
        root: where the host's file tree begins.
        machine: the processor's architecture, as uname says it.
        uid, groups: who would open /dev/kvm.
    """

    root: Path = Path("/")
    machine: str = field(default_factory=platform.machine)
    uid: int = field(default_factory=os.getuid)
    groups: frozenset[int] = field(default_factory=lambda: frozenset(os.getgroups()))

    @property
    def device(self) -> Path:
        return self.root / "dev/kvm"

    def boot_id(self) -> str:
        """What is new with each boot (random(4)); "" where there is no such thing."""
        return text_of(self.root / "proc/sys/kernel/random/boot_id").strip()

    def identity(self) -> Mapping[str, object]:
        """All that may change whether KVM works, in a form that JSON keeps."""
        device: list[int] | None = None
        if self.device.exists():
            seen = self.device.stat()
            device = [seen.st_mode, seen.st_uid, seen.st_gid, seen.st_rdev]
        return {
            "boot": self.boot_id(),
            "device": device,
            "machine": self.machine,
            "uid": self.uid,
            "groups": sorted(self.groups),
            "container": self.in_container(),
            "modules": self._modules(),
        }

    def in_container(self) -> bool:
        return any((self.root / mark).exists() for mark in CONTAINER_MARKS)

    def interprets(self) -> bool:
        """Whether its KVM is the one that needs no hardware (module kvm_pvm).

        It runs only guests built for it at speed, and interprets the others one instruction at a
        time: measured, 400 times slower than TCG.
        """
        return "kvm_pvm" in self._modules()

    def foreign(self) -> Obstacle | None:
        """The obstacle that no setting removes: another kind of processor. None: there is none."""
        if self.machine in ("x86_64", "AMD64"):
            return None
        return Obstacle(
            finding=f"this is a machine of kind {self.machine}, and KVM runs guests of its kind",
            fix="Use an x86_64 machine.",
        )

    def absence(self) -> Obstacle:
        """Why there is no /dev/kvm."""
        modules = self._modules()
        flags = set(text_of(self.root / "proc/cpuinfo").split())
        vendor = "kvm_amd" if "AuthenticAMD" in flags else "kvm_intel"
        if not (self.root / "proc/cpuinfo").exists():
            return Obstacle(
                finding="there is no /dev/kvm: this system is not Linux", fix="Use a Linux machine."
            )
        if self.in_container() and modules:
            return Obstacle(finding="this container has no /dev/kvm", fix=IN_CONTAINER)
        if flags & {"vmx", "svm"}:
            again = f" {IN_CONTAINER}" if self.in_container() else ""
            return Obstacle(
                finding=f"there is no /dev/kvm: the module {vendor} is not loaded",
                fix=f"sudo modprobe {vendor}{again}",
            )
        if "hypervisor" in flags:
            return Obstacle(
                finding="there is no /dev/kvm: this virtual machine gets no virtualization",
                fix="Switch nested virtualization on in the hypervisor that runs this machine.",
            )
        return Obstacle(
            finding="there is no /dev/kvm: the processor's virtualization is switched off",
            fix="Switch VT-x or AMD-V (SVM) on in the firmware setup of this machine.",
        )

    def prohibition(self) -> Obstacle:
        """Why /dev/kvm may not be opened."""
        user = user_name(self.uid)
        try:
            seen = self.device.stat()
        except OSError:
            return self.absence()
        owner = group_name(seen.st_gid)
        finding = (
            f"/dev/kvm may not be opened by {user}: "
            f"it is {stat.filemode(seen.st_mode)} of group {owner}"
        )
        group_may = seen.st_mode & 0o060 == 0o060
        if self.in_container() or self.uid == 0 or (group_may and seen.st_gid in self.groups):
            # The permissions would allow it: the container's device rules do not.
            return Obstacle(finding=finding, fix=IN_CONTAINER)
        join = f"sudo usermod -aG {{}} {user}    # then log in again"
        if group_may and seen.st_gid != 0:
            return Obstacle(finding=finding, fix=join.format(owner))
        rule = f"echo '{UDEV_RULE}' | sudo tee /etc/udev/rules.d/99-kvm.rules"
        reload = "sudo udevadm control --reload && sudo udevadm trigger --name-match=kvm"
        return Obstacle(finding=finding, fix="\n".join((rule, reload, join.format("kvm"))))

    def _modules(self) -> list[str]:
        """Modules that carry KVM on this kernel, built in or loaded."""
        folder = self.root / "sys/module"
        return sorted(entry.name for entry in folder.glob("kvm_*"))


def text_of(path: Path) -> str:
    """The text of a file, "" if it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def user_name(uid: int) -> str:
    """The user's name, or the number if no database knows it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The group's name, or the number if no database knows it."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
