"""A disk that was not sealed, read without a boot by the checks as they are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.artifacts.checks import Check
from tasks.core.errors import BadInput
from tasks.core.process import Runner
from tasks.validate import pending
from tasks.validate.catalogue import load
from tasks.validate.checking import check_disk
from tasks.validate.facts import Facts
from tasks.validate.sealed import SealedDisk, find_root, look_into, require_runnable

pytestmark = pytest.mark.integration

SEALED = {
    "etc/machine-id": "uninitialized\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:1::/run/sshd:/usr/sbin/nologin\n",
    "etc/ssh/sshd_config": "",
    "etc/sudoers.d/README": "#\n",
    "var/log/vexfs.log": "",
    "var/log/lastlog": "",
    "home/.keep/x": "",
}
LEFT = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/ssh/ssh_host_ed25519_key": "secret",
    "root/.ssh/authorized_keys": "ssh-ed25519 AAAA\n",
    "root/.bash_history": "ls\n",
    "etc/passwd": SEALED["etc/passwd"] + "vmbake:x:1000:1000::/home/vmbake:/bin/sh\n",
    "home/vmbake/x": "",
    "etc/sudoers.d/90-cloud-init-users": "vmbake ALL=(ALL) NOPASSWD:ALL\n",
    "var/lib/cloud/instances/i/x": "",
    "var/log/cloud-init.log": "lines\n",
    "var/log/vexfs.log": "mounted\n",
    "var/log/journal/0123456789abcdef0123456789abcdef/system.journal": "x",
    "var/lib/systemd/random-seed": "x",
    "var/lib/systemd/credential.secret": "x",
    "var/lib/dhcp/dhclient.leases": "lease {}\n",
    "var/lib/apt/lists/archive.test_Packages": "Package: x\n",
}
Maker = Callable[[dict[str, str]], SealedDisk]


@pytest.fixture
def disk_of(tmp_path: Path) -> Maker:
    def make(files: dict[str, str]) -> SealedDisk:
        root = tmp_path / "root"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        image = tmp_path / "image.raw"
        image.write_bytes(bytes(8 << 20))
        subprocess.run(("/sbin/mke2fs", "-q", "-t", "ext4", "-d", root, image), check=True)
        (tmp_path / "work").mkdir()
        disk = look_into(image, "raw", tmp_path / "work", Runner(tmp_path / "log"))
        assert isinstance(disk, SealedDisk)
        return disk

    return make


def ask(disk: SealedDisk | str) -> dict[str, Check]:
    found: list[Check] = []
    facts = Facts(variant="minimal", manifest=True, values={}, programs=frozenset(), mounts=True)
    check_disk([spec for spec in load() if spec.where == "disk"], disk, facts, found.append)
    return {check.name: check for check in found}


def test_a_sealed_disk_passes(disk_of: Maker) -> None:
    files = {name: text for name, text in SEALED.items() if not name.startswith("home")}
    found = ask(disk_of(files))
    assert {c.name: c.reason for c in found.values() if c.outcome != "passed"} == {}


def test_everything_that_is_left_is_found(disk_of: Maker) -> None:
    found = ask(disk_of({**SEALED, **LEFT}))
    assert {name for name, check in found.items() if check.outcome != "failed"} == set()
    assert "ssh_host_ed25519_key" in found["no host keys"].reason
    assert found["no host keys"].command == "debugfs -R 'ls /etc/ssh' DISK"


def test_a_disk_that_cant_be_read_is_a_reason_to_skip() -> None:
    found = ask("The root file system is not ext4.")
    assert {check.outcome for check in found.values()} == {"skipped"}
    assert {check.reason for check in found.values()} == {"The root file system is not ext4."}


def test_a_file_system_without_etc_is_no_root(disk_of: Maker) -> None:
    with pytest.raises(BadInput, match="no folder /etc"):
        disk_of({"lost/x": ""})


def test_programs_of_this_architecture_and_none_at_all_are_fine(disk_of: Maker) -> None:
    require_runnable(disk_of(SEALED))


def test_a_damaged_partition_table_is_told(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(8 << 20))
    runner = Runner(tmp_path / "log")
    assert find_root(image, runner) is None
    runner.run(["sfdisk", "--quiet", image], stdin=b"label: gpt\n,,L\n")
    assert find_root(image, runner) is None


def test_pending_updates_by_the_hosts_apt(disk_of: Maker, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "Packages").write_text(
        "Package: openssl\nVersion: 3.0-2\nArchitecture: amd64\nFilename: ./x.deb\nSize: 1\n"
        f"SHA256: {'a' * 64}\n\n"
    )
    (archive / "Release").write_text("Suite: stable-security\nLabel: Debian-Security\nOrigin: x\n")
    status = ("Package: openssl\nStatus: install ok installed\nVersion: 3.0-1\n"
              "Architecture: amd64\nMaintainer: x\nDescription: x\n\n")  # fmt: skip
    disk = disk_of({
        **SEALED,
        "var/lib/dpkg/status": status,
        "etc/apt/sources.list": f"deb [trusted=yes] file:{archive} ./\n",
    })  # fmt: skip
    found = pending.check(disk, tmp_path / "work", Runner(tmp_path / "log"))
    assert (found.outcome, found.reason) == (
        "failed", "1 packages have newer versions: openssl.")  # fmt: skip


def test_servers_out_of_reach_are_a_reason_to_skip(disk_of: Maker, tmp_path: Path) -> None:
    disk = disk_of({
        **SEALED,
        "var/lib/dpkg/status": "",
        "etc/apt/sources.list": f"deb [trusted=yes] file:{tmp_path}/nowhere ./\n",
    })  # fmt: skip
    found = pending.check(disk, tmp_path / "work", Runner(tmp_path / "log"))
    assert found.outcome == "skipped"
    assert "can't be asked from here" in found.reason
