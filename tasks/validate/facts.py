"""What one image says of itself: the values of the checks, and whether a check applies to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.guest.shell import Shell
from tasks.validate.catalogue import Spec
from tasks.validate.subject import Subject

QUESTION_TIMEOUT_S = 60.0
# What the file system leaves of a disk for files (ext4: inode tables, journal) is more than this.
USABLE_SHARE = 0.85
MIB = 1 << 20
LEAST_LEFT_MB = 128

# The guest answers in lines of NAME=VALUE.
QUESTION = """
echo "RUNNING=$(uname -r)"
for program in PROGRAMS; do
    ! command -v "$program" > /dev/null || echo "program=$program"
done
if [ -r /etc/vexfs/vexfs.conf ]; then
    . /etc/vexfs/vexfs.conf
    echo "MOUNT_POINT=$MOUNT_POINT"
    echo "FSTYPE=$FSTYPE"
    echo "device=$DEVICE"
    ! grep -q "^nodev[[:space:]]*$FSTYPE\\$" /proc/filesystems || echo nodev=yes
fi
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of an image and its guest.

    Args:
        values: for the `$NAME`s of the checks.
        programs: those that checks need and the guest has.
        mounts: its file system can be mounted: it needs no device, or has one.
    """

    variant: str
    manifest: bool
    values: Mapping[str, str]
    programs: frozenset[str]
    mounts: bool

    def reason_to_skip(self, spec: Spec) -> str:
        """Why a check does not apply to this image; "" if it does."""
        if spec.manifest and not self.manifest:
            return "The image has no manifest that says what it should be."
        if spec.variants and self.variant not in spec.variants:
            applies = f"This applies to the variant {' and '.join(spec.variants)} only"
            return f"{applies}; this image is {self.variant or 'of none'}."
        if spec.mounts and not self.mounts:
            return "The file system needs a block device, and the image configures none."
        if lacking := [name for name in spec.needs if name not in self.programs]:
            return f"The image has no {' and no '.join(lacking)}."
        return ""


def from_manifest(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """The values that the manifest has."""
    if manifest is None:
        return {}
    module, tool = manifest.get("module", {}), manifest.get("tool", {})
    found = {
        "KERNEL": manifest.get("kernel"),
        "VERSION": manifest.get("version"),
        "MODULE": Path(str(module.get("file", ""))).stem,
        "MODULE_SHA": module.get("sha256"),
        "VERMAGIC": module.get("vermagic"),
        "TOOL": tool.get("file"),
        "TOOL_SHA": tool.get("sha256"),
        "TOOL_VERSION": tool.get("version"),
    }
    return {name: str(value) for name, value in found.items() if value}


def before_boot(subject: Subject) -> Facts:
    """What is known before anything has booted."""
    return Facts(
        variant=subject.variant,
        manifest=subject.manifest is not None,
        values=from_manifest(subject.manifest),
        programs=frozenset(),
        mounts=False,
    )


def of_guest(
    subject: Subject,
    shell: Shell,
    programs: frozenset[str],
    *,
    firmware: str,
    hostname: str,
    disk_bytes: int,
) -> Facts:
    """What is known once a guest can be asked.

    Args:
        programs: what checks may need.
        disk_bytes: the size of the disk that the guest was given.

    Raises:
        CommandFailed, TimedOut: it can't be asked any more.
    """
    asked = QUESTION.replace("PROGRAMS", " ".join(sorted(programs)))
    lines = shell.run(asked, timeout_s=QUESTION_TIMEOUT_S).stdout.splitlines()
    pairs = [(name, value) for name, _, value in (line.partition("=") for line in lines)]
    said = dict(pairs)
    own = {
        "FIRMWARE": firmware,
        "HOSTNAME": hostname,
        "GROWN_MB": str(int(disk_bytes * USABLE_SHARE / MIB)),
        "LEFT_MB": str(LEAST_LEFT_MB),
    }
    from_guest: dict[str, str] = {
        name: said[name] for name in ("RUNNING", "MOUNT_POINT", "FSTYPE") if name in said
    }
    return Facts(
        variant=subject.variant,
        manifest=subject.manifest is not None,
        values={**from_manifest(subject.manifest), **from_guest, **own},
        programs=frozenset(value for name, value in pairs if name == "program"),
        mounts=said.get("nodev") == "yes" or said.get("device", "none") != "none",
    )
