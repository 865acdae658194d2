"""What the exit statuses of vdsm/virtual-dsm's container mean; read in upstream's scripts."""

from __future__ import annotations

from typing import NamedTuple

from tasks.vdsm.contract import STORAGE


class Ending(NamedTuple):
    """What an exit status of the container means, and what to do about it."""

    meaning: str
    remedy: str


ROOM = "Docker's disk needs at least 14 GB free: `docker system prune`, or another data-root."
BUG_IN_SETTINGS = "vmbake sets this; if it wasn't changed, please report it."
OTHER_PAT = "Take another PAT, --pat-url or --pat-file; or another build, --dsm-build."
KVM_REMEDY = "`inv doctor` says what is wrong with KVM; `inv build.tcg` goes without it."
NETWORK_REMEDY = "Leave the container on Docker's bridge, and VM_NET_* and MAC as they are."

ENDINGS = {
    0: Ending("QEMU ended as it was asked to", "Who asked it?"),
    1: Ending("one of its scripts failed", "Its last lines say where."),
    11: Ending("its scripts think they are in no container", BUG_IN_SETTINGS),
    12: Ending("its scripts don't run as root", "Use no `user:` and no user namespace for it."),
    13: Ending(f"the folder STORAGE ({STORAGE}) is missing or read-only", BUG_IN_SETTINGS),
    14: Ending("its shared memory is missing", "Mount nothing else where Docker puts it."),
    15: Ending(
        "QEMU did not start",
        "QEMU's message is in its last lines. With a snapshot: it may not fit the machine, or its "
        "tag is on none of the disks.",
    ),
    16: Ending("RAM_SIZE is not usable", BUG_IN_SETTINGS),
    17: Ending("there is less memory than RAM_SIZE", "Free some, or give the machine less."),
    20: Ending("the network for DHCP could not be made", "Don't set DHCP."),
    24: Ending("the user-mode network could not be set up", NETWORK_REMEDY),
    26: Ending("it found no network interface, or no address on it", NETWORK_REMEDY),
    27: Ending("the guest's address VM_NET_IP is not usable", NETWORK_REMEDY),
    28: Ending("the MAC address or the netmask is not usable", NETWORK_REMEDY),
    29: Ending("it is on the host's network, or another kind that it can't use", NETWORK_REMEDY),
    55: Ending("a block device that it was given is not there", "Don't set DEVICE."),
    58: Ending("the peer of DSM's guest agent did not start", "Its last lines say why."),
    59: Ending("the peer of DSM's guest agent did not start", "Its last lines say why."),
    61: Ending("the disk has a FAT file system", "DSM can't be installed there."),
    62: Ending("the PAT is too small: an update pack, or cut short", OTHER_PAT),
    63: Ending("the PAT could not be unpacked", OTHER_PAT),
    64: Ending("there is no operating system in the PAT", OTHER_PAT),
    65: Ending("the PAT is not where it was said to be", "Is the file still there?"),
    66: Ending("the PAT could not be used", OTHER_PAT),
    67: Ending("there is no boot disk in the PAT", OTHER_PAT),
    69: Ending("the PAT could not be downloaded", "vmbake brings the PAT: it was not seen."),
    71: Ending("a disk would have to shrink", "Give the data disk its old size again."),
    73: Ending("DISK_SIZE is not usable, or below 6 GB", "Give the data disk more."),
    74: Ending("there is no room for a bigger data disk", ROOM),
    76: Ending("there is no room for the data disk", ROOM),
    78: Ending("DISK_FMT or the disk's flags are not usable", BUG_IN_SETTINGS),
    79: Ending("a disk could not be converted to qcow2", f"Its last lines say why. {ROOM}"),
    80: Ending("DISK_TYPE is not usable", BUG_IN_SETTINGS),
    81: Ending(f"the boot disk is missing in {STORAGE}", "The image is damaged: build it anew."),
    82: Ending(f"the system disk is missing in {STORAGE}", "The image is damaged: build it anew."),
    88: Ending("KVM is missing, or the processor lacks SSE4.2", KVM_REMEDY),
    93: Ending("there is no room to unpack the PAT", ROOM),
    94: Ending("there are less than 14 GB free for the installation", ROOM),
    95: Ending("there is no room for the installation", ROOM),
    96: Ending("there are less than 500 MB free in the container", ROOM),
    97: Ending("there is no room for the system disk, or for converting it", ROOM),
    98: Ending("the system disk could not be created", ROOM),
    125: Ending("Docker could not start it", "Docker's message says why."),
    126: Ending("its entry point can't be executed", "Is the image for this processor?"),
    127: Ending("its entry point is missing", "The image is damaged: build it anew."),
}  # fmt: skip
OTHER_DISK = Ending(
    "a disk could not be created, resized or attached", f"Its last lines say why. {ROOM}"
)
SIGNALS = {
    6: Ending("a program in it aborted (SIGABRT)", "Its last lines may say why."),
    9: Ending(
        "it was killed (SIGKILL)",
        "By `docker kill`, at the end of the grace of `docker stop`, or by the kernel for lack of "
        "memory: `dmesg` says so then.",
    ),
    11: Ending("a program in it crashed (SIGSEGV)", "It may be QEMU: try another base image."),
    15: Ending("it was stopped (SIGTERM)", "Who stopped it?"),
}
DISK_CODES = range(70, 83)
SIGNALLED = 128


def ending(status: int) -> Ending:
    """What the exit status of a container of vdsm/virtual-dsm means."""
    if found := ENDINGS.get(status) or SIGNALS.get(status - SIGNALLED):
        return found
    if status in DISK_CODES:
        return OTHER_DISK
    if SIGNALLED < status <= SIGNALLED + 64:
        return Ending(f"it was ended by signal {status - SIGNALLED}", "Its last lines may say why.")
    return Ending("nobody knows this status", "Its last lines may say why.")
