"""What a machine is, and the QEMU command line that it comes to: a pure function."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.qemu.accel import Accel

PROGRAM = "qemu-system-x86_64"
READY_PORT = "org.vmbake.ready.0"
SSH_IN_GUEST = 22
CODE_NODE, VARS_NODE = "uefi-code", "uefi-vars"

DiskFormat = Literal["qcow2", "raw"]
Network = Literal["none", "restricted", "open"]

# virtio-blk cuts a serial at 20 bytes; QEMU wants node names to begin with a letter.
DISK_ID = re.compile(r"[a-z][a-z0-9-]{0,19}")


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A virtio disk; the guest finds it as /dev/disk/by-id/virtio-ID.

    Writable disks are opened with cache=unsafe: they are sound after an orderly end of QEMU,
    and worthless after a crash of the host.
    """

    id: str
    path: Path
    format: DiskFormat
    read_only: bool = False

    def __post_init__(self) -> None:
        if not DISK_ID.fullmatch(self.id):
            raise ValueError(f"bad disk id: {self.id!r}")

    @property
    def device(self) -> str:
        """QEMU's name of the device; the block node behind it is called `id`."""
        return f"{self.id}-device"

    def node(self) -> dict[str, object]:
        """The node as `blockdev-add` takes it."""
        node: dict[str, object] = {
            "driver": self.format,
            "node-name": self.id,
            "read-only": self.read_only,
            "cache": {"direct": False, "no-flush": not self.read_only},
            "file": {"driver": "file", "filename": str(self.path), "aio": "threads"},
        }
        if not self.read_only:
            node |= {"discard": "unmap", "detect-zeroes": "unmap"}
        return node

    def front_end(self) -> dict[str, object]:
        """The device as `device_add` takes it."""
        return {
            "driver": "virtio-blk-pci",
            "id": self.device,
            "drive": self.id,
            "serial": self.id,
        }


@dataclass(frozen=True, kw_only=True)
class DirectKernel:
    """A kernel that QEMU loads itself, past firmware and boot loader."""

    kernel: Path
    cmdline: str
    initrd: Path | None = None


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """A machine, whatever directory or port it runs on.

    Args:
        disks: the first is booted from.
        network: `none`; `restricted`: SSH from the host only; `open`: the guest reaches out too.
        ssh_port: on 127.0.0.1; None lets the kernel choose a free one.
        loadvm: the snapshot to go on from, instead of booting.
        incoming: wait for a saved machine (see Migration) instead of booting.
        hotplug_ports: how many disks can be attached while it runs.
        reboot: False: a guest that resets ends QEMU, so a triple fault is no endless loop.
        machine_type: a versioned name for snapshots that another QEMU is to load.
    """

    name: str
    accel: Accel
    memory_mb: int
    cpus: int
    disks: tuple[Disk, ...] = ()
    firmware: Literal["bios", "uefi"] = "bios"
    direct: DirectKernel | None = None
    network: Network = "restricted"
    ssh_port: int | None = None
    loadvm: str | None = None
    incoming: bool = False
    hotplug_ports: int = 2
    reboot: bool = False
    machine_type: str = "q35"

    def __post_init__(self) -> None:
        ids = [disk.id for disk in self.disks]
        if len(set(ids)) != len(ids):
            raise ValueError(f"disk ids repeat: {ids}")

    @property
    def writable_nodes(self) -> tuple[str, ...]:
        """The block nodes that a snapshot must cover; the first one holds the RAM."""
        disks = tuple(disk.id for disk in self.disks if not disk.read_only)
        return (*disks, VARS_NODE) if self.firmware == "uefi" else disks


@dataclass(frozen=True, kw_only=True)
class Flash:
    """The two halves of a UEFI firmware: the code, and this machine's own variables (qcow2)."""

    code: Path
    code_format: DiskFormat
    variables: Path


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What differs between two starts of one spec: where its channels end, each as a chardev.

    Args:
        sandbox: confine QEMU by seccomp (Linux only).
        paused: wait for `cont`, because a snapshot is loaded first.
    """

    qmp: str
    console: str
    ready: str
    flash: Flash | None = None
    sandbox: bool = True
    paused: bool = False


def command_line(spec: MachineSpec, wiring: Wiring) -> tuple[str, ...]:
    """The argument list for QEMU (option and value side by side; see qemu-system-x86_64(1))."""
    return (PROGRAM, *(word for option in _options(spec, wiring) for word in option))


def devices(spec: MachineSpec) -> tuple[str, ...]:
    """What is plugged into the machine, as QEMU is told it; wherever its files and channels are."""
    options = _options(spec, Wiring(qmp="null", console="null", ready="null"))
    return tuple(option[1] for option in options if option[0] == "-device")


def by_hand(spec: MachineSpec, directory: Path, flash: Flash | None = None) -> str:
    """The command for a person to paste: the console is the terminal, QMP a socket to talk to."""
    wiring = Wiring(
        qmp=f"socket,path={escape(directory / 'qmp')},server=on,wait=off",
        console="stdio,signal=off",
        ready=f"file,path={escape(directory / 'ready.jsonl')}",
        flash=flash,
    )
    options = list(_options(spec, wiring))
    if spec.loadvm is not None:
        options.append(("-loadvm", spec.loadvm))
    return " \\\n  ".join((PROGRAM, *(shlex.join(option) for option in options)))


def escape(value: object) -> str:
    """A value inside a comma-separated option: QEMU reads two commas as one."""
    return str(value).replace(",", ",,")


def _options(spec: MachineSpec, wiring: Wiring) -> Iterator[tuple[str, ...]]:
    yield ("-name", f"guest={escape(spec.name)}")
    yield ("-no-user-config",)
    yield ("-nodefaults",)
    yield ("-display", "none")
    yield ("-msg", "timestamp=on")
    if wiring.sandbox:
        denied = ",".join(
            f"{what}=deny" for what in ("obsolete", "elevateprivileges", "spawn", "resourcecontrol")
        )
        yield ("-sandbox", f"on,{denied}")
    yield from _board(spec, wiring)
    yield from _channels(wiring)
    # From 1: a kernel of our own (-kernel) takes 0.
    for index, disk in enumerate(spec.disks, start=1):
        yield ("-blockdev", flat(disk.node()))
        yield ("-device", flat({**disk.front_end(), "bootindex": index}))
    yield from _network(spec)
    for port in range(spec.hotplug_ports):
        # PCIe takes a device at run time only behind a root port (docs/pcie.txt in QEMU).
        yield ("-device", f"pcie-root-port,id=hotplug{port},chassis={port + 1},slot={port + 1}")
    if spec.direct is not None:
        yield ("-kernel", str(spec.direct.kernel))
        if spec.direct.initrd is not None:
            yield ("-initrd", str(spec.direct.initrd))
        yield ("-append", spec.direct.cmdline)


def _board(spec: MachineSpec, wiring: Wiring) -> Iterator[tuple[str, ...]]:
    # graphics=off makes SeaBIOS speak on the serial line, so "No bootable device" is seen.
    board = f"{spec.machine_type},graphics=off"
    if wiring.flash is not None:
        code, variables = wiring.flash.code, wiring.flash.variables
        code_node = Disk(id=CODE_NODE, path=code, format=wiring.flash.code_format, read_only=True)
        # As qcow2 the variables can be part of a snapshot; raw ones would forbid any.
        vars_node = Disk(id=VARS_NODE, path=variables, format="qcow2")
        yield ("-blockdev", flat(code_node.node()))
        yield ("-blockdev", flat(vars_node.node()))
        board += f",pflash0={CODE_NODE},pflash1={VARS_NODE}"
    yield ("-machine", board)
    accel = spec.accel.qemu_args()
    yield from zip(accel[::2], accel[1::2], strict=True)
    yield ("-smp", str(spec.cpus))
    yield ("-m", f"{spec.memory_mb}M")
    if not spec.reboot:
        yield ("-no-reboot",)
    if wiring.paused:
        yield ("-S",)
    if spec.incoming:
        yield ("-incoming", "defer")
    # Paused, a panicked guest can't reboot past its last words, which are still on their way.
    yield ("-action", "panic=pause")
    yield ("-device", "pvpanic-pci")
    yield ("-device", "virtio-rng-pci")
    # A guest that goes on from a snapshot gets a new id and reseeds its random numbers.
    yield ("-device", "vmgenid,guid=auto")


def _channels(wiring: Wiring) -> Iterator[tuple[str, ...]]:
    yield ("-chardev", f"{wiring.qmp},id=qmp")
    yield ("-mon", "chardev=qmp,mode=control")
    yield ("-chardev", f"{wiring.console},id=console")
    yield ("-serial", "chardev:console")
    yield ("-chardev", f"{wiring.ready},id=ready")
    yield ("-device", "virtio-serial-pci")
    yield ("-device", f"virtserialport,chardev=ready,name={READY_PORT}")


def _network(spec: MachineSpec) -> Iterator[tuple[str, ...]]:
    if spec.network == "none":
        yield ("-nic", "none")
        return
    # Port 0: the kernel picks a free one while QEMU binds it, so nobody can come in between.
    forward = f"hostfwd=tcp:127.0.0.1:{spec.ssh_port or 0}-:{SSH_IN_GUEST}"
    restrict = ",restrict=on" if spec.network == "restricted" else ""
    yield ("-netdev", f"user,id=net0,ipv6=off{restrict},{forward}")
    # No boot ROM: nobody boots from this network, and the firmware would try.
    yield ("-device", "virtio-net-pci,netdev=net0,romfile=")


def flat(node: dict[str, object], prefix: str = "") -> str:
    """A nested block node as the `key.subkey=value` list that -blockdev takes."""
    words: list[str] = []
    for key, value in node.items():
        if isinstance(value, dict):
            words.append(flat(value, f"{prefix}{key}."))
        else:
            text = {True: "on", False: "off"}[value] if isinstance(value, bool) else escape(value)
            words.append(f"{prefix}{key}={text}")
    return ",".join(words)
