"""What the container is given, what a snapshot is tied to, and what exit statuses mean."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tasks.core.errors import BadInput
from tasks.vdsm.contract import Machine, Needs, environment, needs, problems, stop_grace_s
from tasks.vdsm.endings import ENDINGS, ending
from tasks.vdsm.layout import Layout
from tasks.vdsm.restore import LABEL, labels, mismatches

KVM = Machine(accel="kvm", ram_mb=2048, cores=2, network="nat", disk_gib=16)
TCG = replace(KVM, accel="tcg", network="user")
OLD = Layout(version="7.41", disk_script="/run/disk.sh", user_network="user")
NEW = Layout(version="7.65", disk_script="/run/prepare.sh", user_network="slirp")
SOCKET = "/run/shm/vmbake.sock"
QMP = f"-qmp unix:{SOCKET},server=on,wait=off"


def test_environment_with_kvm_and_nat() -> None:
    assert environment(KVM, OLD, qmp_socket=SOCKET) == {
        "STORAGE": "/dsm",
        "DISK_FMT": "qcow2",
        "DISK_CACHE": "writeback",
        "DISK_IO": "threads",
        "DISK_SIZE": "16G",
        "RAM_SIZE": "2048M",
        "RAM_CHECK": "N",
        "CPU_CORES": "2",
        "CPU_MODEL": "Westmere",
        "CPU_FLAGS": "-invtsc",
        "KVM": "Y",
        "NETWORK": "Y",
        "VM_NET_IP": "20.20.20.21",
        "MAC": "02:11:32:76:6D:62",
        "MTU": "1500",
        "WEB": "N",
        "COUNTRY": "US",
        "ARGUMENTS": QMP,
    }


def test_environment_without_kvm_in_user_mode() -> None:
    found = environment(TCG, NEW, qmp_socket=SOCKET)
    assert found["KVM"] == "N"
    assert found["NETWORK"] == "slirp"
    assert environment(TCG, OLD, qmp_socket=SOCKET)["NETWORK"] == "user"
    ports = found["USER_PORTS"].split(",")
    assert {"2049/tcp", "111/tcp", "139/tcp", "3260/tcp"} <= set(ports)
    # From 7.63 on upstream adds these by itself.
    assert not {"5001/tcp", "445/tcp"} & set(ports)
    older = environment(TCG, OLD, qmp_socket=SOCKET)["USER_PORTS"].split(",")
    assert set(older) == {*ports, "5001/tcp", "445/tcp"}
    assert len(ports) == len(set(ports))
    # Upstream adds them, and 7.41 would forward them twice.
    assert not {"22/tcp", "5000/tcp", "22", "5000"} & set(ports)
    assert "USER_PORTS" not in environment(KVM, NEW, qmp_socket=SOCKET)


def test_environment_that_restores() -> None:
    found = environment(KVM, OLD, qmp_socket=SOCKET, snapshot="start-ready")
    assert found["ARGUMENTS"] == f"{QMP} -loadvm start-ready"
    assert found["VMBAKE_SNAPSHOT"] == "start-ready"


def test_environment_pins_a_machine_type() -> None:
    pinned = replace(KVM, machine_type="pc-q35-10.0")
    assert environment(pinned, NEW, qmp_socket=SOCKET)["MACHINE"] == "pc-q35-10.0"


@pytest.mark.parametrize("tag", ["", "1", "a b", "final -S", "$(id)"])
def test_tags_that_are_none(tag: str) -> None:
    with pytest.raises(BadInput):
        environment(KVM, OLD, qmp_socket=SOCKET, snapshot=tag)


def test_needs_and_grace() -> None:
    assert needs(KVM) == Needs(("NET_ADMIN",), ("/dev/kvm", "/dev/net/tun"))
    assert needs(replace(KVM, network="user")) == Needs((), ("/dev/kvm",))
    assert needs(replace(KVM, accel="tcg")) == Needs(("NET_ADMIN",), ("/dev/net/tun",))
    assert needs(TCG) == Needs((), ())
    assert stop_grace_s(KVM) == 120
    assert stop_grace_s(TCG) == 230


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"guest_ip": "20.20.20"}, "no IPv4 address"),
        ({"guest_ip": "20.20.20.3"}, "from 4 to 254"),
        ({"guest_ip": "20.20.20.255"}, "from 4 to 254"),
        ({"mac": "02-11-32-76-6D-62"}, "no MAC address"),
        ({"mac": "03:11:32:76:6D:62"}, "group address"),
        ({"disk_gib": 5}, "at least 6"),
        ({"cpu_flags": "-invtsc -S"}, "no blanks"),
        ({"cpu_model": "host;id"}, "CPU model"),
    ],
)
def test_machines_that_are_wrong(changes: dict[str, object], word: str) -> None:
    assert list(problems(KVM)) == list(problems(TCG)) == []
    (found,) = problems(replace(KVM, **changes))  # type: ignore[arg-type]
    assert word in found


def test_every_field_of_a_machine_is_compared() -> None:
    others = {
        "accel": "tcg",
        "ram_mb": 4096,
        "cores": 4,
        "network": "user",
        "disk_gib": 32,
        "cpu_model": "Nehalem",
        "cpu_flags": "",
        "guest_ip": "20.20.20.22",
        "mac": "02:11:32:76:6D:63",
        "machine_type": "pc-q35-10.0",
    }
    assert set(others) == {field.name for field in fields(Machine)}
    for name, value in others.items():
        (found,) = mismatches(replace(KVM, **{name: value}), labels(KVM))  # type: ignore[arg-type]
        assert str(value or "(none)") in found
        assert "QEMU" in found


def test_a_snapshot_of_the_same_machine_fits() -> None:
    assert mismatches(KVM, labels(KVM)) == []
    assert mismatches(KVM, labels(replace(KVM, mac=KVM.mac.lower()))) == []
    assert all(name.startswith(LABEL) for name in labels(KVM))


def test_an_image_that_says_nothing() -> None:
    found = mismatches(KVM, {})
    assert len(found) == len(labels(KVM))
    assert f"no label {LABEL}accel" in found[0]


def test_reasons_are_in_words() -> None:
    (accel,) = mismatches(replace(KVM, accel="tcg"), labels(KVM))
    assert accel.startswith("The accelerator is tcg; the snapshot was saved with kvm: QEMU refuses")
    (model,) = mismatches(replace(KVM, cpu_model="host"), labels(KVM))
    assert "without a word" in model


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (15, "QEMU did not start"),
        (62, "too small"),
        (75, "disk"),
        (88, "KVM"),
        (94, "14 GB"),
        (137, "SIGKILL"),
        (143, "SIGTERM"),
        (130, "signal 2"),
        (200, "nobody knows"),
        (-1, "nobody knows"),
    ],
)
def test_exit_statuses(status: int, word: str) -> None:
    assert word in ending(status).meaning


def test_every_status_of_upstream_is_explained() -> None:
    upstream = {
        *(11, 12, 13, 14, 15, 16, 17, 20, 24, *range(26, 30), 55, 58, 59),
        *(*range(61, 68), 69, *range(70, 83), 88, *range(93, 99)),
    }
    for status in upstream:
        assert "nobody knows" not in ending(status).meaning
        assert ending(status).remedy
    assert all(each.meaning and each.remedy for each in ENDINGS.values())
