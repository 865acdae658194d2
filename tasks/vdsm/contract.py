"""What the container of vdsm/virtual-dsm takes and needs, for a machine whose snapshot it restores.

True of all releases from 7.41 to 7.65, unless said otherwise; read in upstream's scripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Literal, NamedTuple

from tasks.core.errors import BadInput
from tasks.qemu.snapshot import TAG

if TYPE_CHECKING:
    from tasks.vdsm.layout import Layout

Accel = Literal["kvm", "tcg"]
Network = Literal["nat", "user"]

# Outside the image's VOLUME, so that a commit has the disks in it. It must exist beforehand: up to
# 7.47 the container ends with status 13 if it doesn't.
STORAGE = "/dsm"
# What a snapshot has baked in is pinned: the address that upstream's DHCP server gave before 7.42
# (no Docker network has it), and a MAC of the form that upstream makes up.
GUEST_IP = "20.20.20.21"
MAC = "02:11:32:76:6D:62"
# The oldest named model with the SSE4.2 that DSM needs: one CPUID on each host, under TCG, too.
CPU_MODEL = "Westmere"
# Upstream adds invtsc where the host can scale its TSC, and QEMU saves no such processor.
CPU_FLAGS = "-invtsc"
# Instead of upstream's direct I/O: QEMU reads a frozen memory in pieces of 32 kB, and each would
# wait for the disk, although starting the container has just put all of it into the page cache.
# Restoring took 0.6 s instead of 1.4 s so (100 MB, QEMU 10.0). What DSM flushes is flushed.
DISK_ACCESS = {"DISK_CACHE": "writeback", "DISK_IO": "threads"}
LEAST_DISK_GIB = 6
# Ports that users of a NAS want, beside those that upstream adds by itself: one that is named again
# would be forwarded twice, which QEMU refuses. NFS with its portmapper and mountd, SMB, iSCSI.
USER_PORTS = (
    *("5001/tcp", "111/tcp", "111/udp", "892/tcp", "892/udp", "2049/tcp", "2049/udp"),
    *("139/tcp", "445/tcp", "3260/tcp"),
)
# What upstream adds from 7.63 on (which has prepare.sh), beside 22 and 5000.
ADDED_SINCE_7_63 = ("5001/tcp", "80/tcp", "443/tcp", "445/tcp")
# Any country makes it ask no service on the internet where it is; only CN changes anything.
COUNTRY = "US"
# Upstream waits for DSM to shut down: 102 s, twice as long up to 7.51 without KVM.
STOP_GRACE_S = {"kvm": 120, "tcg": 230}
SOCKET = re.compile(r"/[A-Za-z0-9/._-]+")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The virtual machine in the container, as far as a snapshot depends on it.

    Args:
        cpu_flags: added to the model, with commas between.
        network: nat: a tap behind the container's own NAT. user: QEMU's own user-mode network,
            for which the container needs no rights.
        guest_ip: the guest's address inside the container.
        machine_type: QEMU's versioned name, pc-q35-10.0 say; "" is the base image's alias q35,
            which is another machine in each version of QEMU. Releases before 7.57 know no other.
    """

    accel: Accel
    ram_mb: int
    cores: int
    network: Network
    disk_gib: int
    cpu_model: str = CPU_MODEL
    cpu_flags: str = CPU_FLAGS
    guest_ip: str = GUEST_IP
    mac: str = MAC
    machine_type: str = ""


class Needs(NamedTuple):
    """What the container must be given."""

    capabilities: tuple[str, ...]
    devices: tuple[str, ...]


def problems(machine: Machine) -> Iterator[str]:
    """What is wrong with a machine, in sentences."""
    try:
        address = IPv4Address(machine.guest_ip)
    except AddressValueError:
        yield f"{machine.guest_ip!r} is no IPv4 address for the guest."
    else:
        # The gateway is .1; upstream moves what is below 4 in some releases.
        if not 4 <= address.packed[3] <= 254:
            yield f"The guest's address {address} must end in a number from 4 to 254."
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", machine.mac):
        yield f"{machine.mac!r} is no MAC address; 02:11:32:76:6D:62 is one."
    elif int(machine.mac[:2], 16) & 1:
        yield f"{machine.mac} is a group address, which no network card can have."
    if machine.disk_gib < LEAST_DISK_GIB:
        yield f"The data disk has {machine.disk_gib} GiB; DSM needs at least {LEAST_DISK_GIB}."
    for what, value in (("CPU model", machine.cpu_model), ("CPU flags", machine.cpu_flags)):
        if not re.fullmatch(r"[A-Za-z0-9+=._,-]*", value):
            yield f"The {what} {value!r} can't be handed to the container: no blanks."


def environment(
    machine: Machine, layout: Layout, *, qmp_socket: str, snapshot: str | None = None
) -> dict[str, str]:
    """The container's environment.

    Args:
        qmp_socket: a path in the container where QEMU shall listen for QMP, in /run/shm say.
        snapshot: the tag to restore; None: a cold boot.

    Raises:
        BadInput: the tag can't be one.
    """
    return {
        "STORAGE": STORAGE,
        "DISK_FMT": "qcow2",
        **DISK_ACCESS,
        "DISK_SIZE": f"{machine.disk_gib}G",
        "RAM_SIZE": f"{machine.ram_mb}M",
        # Too little memory: it would take less without a word (from 7.46 on), and no snapshot fits.
        "RAM_CHECK": "N",
        "CPU_CORES": str(machine.cores),
        "CPU_MODEL": machine.cpu_model,
        "CPU_FLAGS": machine.cpu_flags,
        "KVM": "Y" if machine.accel == "kvm" else "N",
        **({"MACHINE": machine.machine_type} if machine.machine_type else {}),
        "NETWORK": "Y" if machine.network == "nat" else layout.user_network,
        **({"USER_PORTS": ",".join(user_ports(layout))} if machine.network == "user" else {}),
        "VM_NET_IP": machine.guest_ip,
        "MAC": machine.mac,
        # The host's own would go into the virtual network card.
        "MTU": "1500",
        # No page on port 5000 that could be taken for DSM.
        "WEB": "N",
        "COUNTRY": COUNTRY,
        **arguments(qmp_socket, snapshot),
    }


def arguments(qmp_socket: str, snapshot: str | None) -> dict[str, str]:
    """The variables that QEMU's own options are in: those of `environment` that a snapshot changes.

    Raises: as `environment`.
    """
    assert SOCKET.fullmatch(qmp_socket), f"upstream splits ARGUMENTS at blanks: {qmp_socket!r}"
    monitor = f"-qmp unix:{qmp_socket},server=on,wait=off"
    if snapshot is None:
        return {"ARGUMENTS": monitor}
    if not TAG.fullmatch(snapshot):
        raise BadInput(f"{snapshot!r} can't be the tag of a snapshot.")
    # Whoever sets ARGUMENTS replaces the image's own: scripts/vdsm/convert.sh goes by the other.
    return {"ARGUMENTS": f"{monitor} -loadvm {snapshot}", "VMBAKE_SNAPSHOT": snapshot}


def user_ports(layout: Layout) -> list[str]:
    """The ports to name in USER_PORTS."""
    added = ADDED_SINCE_7_63 if layout.disk_script.endswith("prepare.sh") else ()
    return [port for port in USER_PORTS if port not in added]


def needs(machine: Machine) -> Needs:
    """Capabilities and devices for the container; it never has to be privileged."""
    nat = machine.network == "nat"
    kvm = machine.accel == "kvm"
    return Needs(
        capabilities=("NET_ADMIN",) if nat else (),
        devices=(*(("/dev/kvm",) if kvm else ()), *(("/dev/net/tun",) if nat else ())),
    )


def stop_grace_s(machine: Machine) -> int:
    """Seconds that `docker stop` must give DSM for its shutdown."""
    return STOP_GRACE_S[machine.accel]
