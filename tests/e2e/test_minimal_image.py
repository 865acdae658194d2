"""The main job, whole: bake the minimal image, boot the result, use it, look for traces."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tasks.core.errors import CommandFailed
from tasks.core.process import Runner
from tasks.guest import iso
from tasks.guest.ssh import Ssh
from tasks.qemu import disk
from tasks.qemu.accel import choose
from tasks.qemu.machine import Machine
from tasks.qemu.spec import Disk, MachineSpec

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "vexfs"
Firmware = Literal["bios", "uefi"]
MOST_IMAGE_BYTES = 900_000_000
MOST_COMPRESSED_BYTES = 300_000_000
BOOT_TIMEOUT_S = 600


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "invoke", *words],
        cwd=ROOT,
        env={**os.environ, "VEXFS_VARIANT": "minimal"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def inv(*words: str, status: int = 0) -> tuple[str, str]:
    process = start(*words)
    out, err = process.communicate()
    assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
    return out, err


@dataclass(frozen=True)
class Baked:
    """What `inv vexfs.image` left, and what it said."""

    image: Path
    compressed: Path
    manifest: dict[str, Any]
    said: str


@pytest.fixture(scope="session")
def baked() -> Baked:
    out, err = inv("vexfs.image")
    paths = {name.rpartition("1.0.0")[2]: ROOT / name for name in out.split()}
    return Baked(
        image=paths[".qcow2"],
        compressed=paths[".qcow2.zst"],
        manifest=json.loads(paths[".manifest.json"].read_text()),
        said=err,
    )


@dataclass(frozen=True)
class Booted:
    """A copy of the image, booted for the first time by its new owner."""

    vm: Machine
    ssh: Ssh
    identity: tuple[str, str]


def boot(stack: ExitStack, baked: Baked, firmware: Firmware, folder: Path) -> Machine:
    folder.mkdir()
    runner = Runner(folder / "log")
    key = folder / "key"
    runner.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    owner = f"#cloud-config\nssh_authorized_keys: [{key.with_suffix('.pub').read_text().strip()}]\n"
    meta = f"instance-id: {folder.name}\nlocal-hostname: {folder.name}\n"
    iso.write_seed(folder / "seed.iso", {"user-data": owner.encode(), "meta-data": meta.encode()})
    overlay = folder / "disk.qcow2"
    disk.create_overlay(runner, overlay, backing=baked.image, backing_format="qcow2")
    spec = MachineSpec(
        name=folder.name,
        accel=choose("auto", runner, ROOT / ".vmbake" / "cache"),
        memory_mb=1024,
        cpus=1,
        disks=(
            Disk(id="root", path=overlay, format="qcow2"),
            Disk(id="seed", path=folder / "seed.iso", format="raw", read_only=True),
        ),
        firmware=firmware,
    )
    return stack.enter_context(Machine(spec, folder / "vm", runner))


def scan_host_key(vm: Machine, runner: Runner) -> str:
    """The key that the guest made at its first boot; sshd may start after the login prompt."""
    scan = ("ssh-keyscan", "-T", "60", "-t", "ed25519", "-p", str(vm.ssh_port), "127.0.0.1")
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(CommandFailed):
            if scanned := runner.output(scan).strip():
                return scanned.split(" ", 1)[1]
        vm.pause(1)
    raise AssertionError("the guest never showed a host key")


def log_in(stack: ExitStack, vm: Machine, folder: Path) -> Booted:
    """As the image's own user, after the first boot made new host keys."""
    runner = Runner(folder / "log")
    vm.wait_console(r"login:", timeout_s=BOOT_TIMEOUT_S, what="show its login prompt")
    host_key = scan_host_key(vm, runner)
    ssh = stack.enter_context(
        Ssh(vm, user="vexfs", key=folder / "key", host_key=host_key, runner=runner)
    )
    ssh.wait(BOOT_TIMEOUT_S)
    ssh.run("cloud-init status --wait >/dev/null || [ $? -eq 2 ]", what="First boot")
    machine_id = ssh.output("cat /etc/machine-id", what="Asking for its name").strip()
    return Booted(vm=vm, ssh=ssh, identity=(machine_id, host_key))


@pytest.fixture(scope="session")
def machines(baked: Baked, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Booted]]:
    """One copy booted by BIOS and one by UEFI, at the same time."""
    folder = tmp_path_factory.mktemp("machines")
    kinds: tuple[Firmware, ...] = ("bios", "uefi")
    with ExitStack() as stack:
        running = {kind: boot(stack, baked, kind, folder / kind) for kind in kinds}
        yield {kind: log_in(stack, vm, folder / kind) for kind, vm in running.items()}


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_the_files_are_what_the_manifest_says(baked: Baked) -> None:
    for path in (baked.image, baked.compressed):
        said = baked.manifest["artifacts"][path.name]
        assert (sha256(path), path.stat().st_size) == (said["sha256"], said["size_bytes"])
        checked = subprocess.run(
            ["sha256sum", "-c", f"{path.name}.sha256"], cwd=path.parent, check=False
        )
        assert checked.returncode == 0


def test_the_image_is_small(baked: Baked) -> None:
    assert baked.image.stat().st_size <= MOST_IMAGE_BYTES
    assert baked.compressed.stat().st_size <= MOST_COMPRESSED_BYTES


def test_the_compressed_form_is_the_image(baked: Baked, tmp_path: Path) -> None:
    unpacked = tmp_path / "image.qcow2"
    subprocess.run(["zstd", "-q", "-d", baked.compressed, "-o", unpacked], check=True)
    assert sha256(unpacked) == sha256(baked.image)


def test_the_image_stands_alone_and_is_sound(baked: Baked, tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log")
    disk.check(runner, baked.image)
    found = disk.require_standalone(runner, baked.image, "qcow2")
    assert found.snapshots == ()
    assert found.virtual_bytes == baked.manifest["virtual_size_bytes"]


def test_nothing_of_the_build_is_in_the_sealed_disk(baked: Baked, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    disk.convert(Runner(tmp_path / "log"), baked.image, "qcow2", raw, "raw")
    table = json.loads(
        subprocess.run(["sfdisk", "--json", raw], check=True, capture_output=True).stdout
    )
    root = max(table["partitiontable"]["partitions"], key=lambda part: int(part["size"]))
    where = f"{raw}?offset={root['start'] * 512}"

    def debugfs(request: str) -> str:
        words = ["debugfs", "-R", request, where]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    assert debugfs("cat /etc/machine-id").strip() in ("", "uninitialized")
    assert "ssh_host_" not in debugfs("ls /etc/ssh")
    assert "instances" not in debugfs("ls /var/lib/cloud")
    assert "vmbake" not in debugfs("cat /etc/passwd") + debugfs("cat /etc/shadow")
    assert "vmbake" not in debugfs("ls /home") + debugfs("ls /etc/sudoers.d")
    assert set(re.findall(r"Size: (\d+)", debugfs("stat /var/log/vexfs.log"))) == {"0"}
    for gone in ("/var/lib/systemd/random-seed", "/var/log/cloud-init.log", "/usr/bin/gcc"):
        assert "Inode" not in debugfs(f"stat {gone}"), gone
    checked = subprocess.run(["e2fsck", "-f", "-n", where], check=False, capture_output=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_it_boots_and_stores_files(machines: dict[str, Booted], firmware: str) -> None:
    ssh = machines[firmware].ssh
    ssh.run(
        """
        systemctl is-enabled --quiet vexfs.service
        systemctl is-active --quiet vexfs.service
        grep ' /mnt/vexfs vexfs ' /proc/mounts
        echo 'kept by vexfs' > /mnt/vexfs/file
        mv /mnt/vexfs/file /mnt/vexfs/renamed
        [ "$(cat /mnt/vexfs/renamed)" = 'kept by vexfs' ]
        rm /mnt/vexfs/renamed
        vexfs-mount-helper unmount
        modprobe -r vexfs
        vexfs-mount-helper mount
        vexfs-mount-helper status
        vexctl status
        """,
        what="Using the file system",
    )


def test_firmware_was_what_it_should_be(machines: dict[str, Booted]) -> None:
    look = "[ -d /sys/firmware/efi ] && echo uefi || echo bios"
    said = {name: m.ssh.output(look, what="Looking").strip() for name, m in machines.items()}
    assert said == {"bios": "bios", "uefi": "uefi"}


def test_the_guest_is_healthy(baked: Baked, machines: dict[str, Booted]) -> None:
    ssh = machines["bios"].ssh
    assert ssh.output("systemctl --failed --no-legend", what="Looking for failed units") == ""
    kernel = ssh.output("uname -r", what="Asking for the kernel").strip()
    assert kernel == baked.manifest["kernel"]
    assert baked.manifest["module"]["vermagic"].split()[0] == kernel
    versions = ssh.output("vexctl --version; modinfo -F version vexfs", what="Versions")
    assert versions.split() == ["vexctl", "1.0.0", "1.0.0"]
    installed = ssh.output("dpkg-query -W -f '${binary:Package} ${Version}\\n'", what="Packages")
    assert dict(line.split() for line in installed.splitlines()) == baked.manifest["packages"]
    grown = ssh.output("df --output=size -BM / | tail -1", what="Asking for the size")
    assert int(grown.strip().rstrip("M")) > 8000


def test_two_copies_are_two_machines(machines: dict[str, Booted]) -> None:
    one, other = machines["bios"].identity, machines["uefi"].identity
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_nothing_of_the_build_is_found_inside(machines: dict[str, Booted]) -> None:
    ssh = machines["bios"].ssh
    traces = ssh.output(
        "grep -rIlE 'vmbake (user|host) key|vmbake:|/run/vmbake' "
        "/etc /home /root /var /usr/local /boot 2>/dev/null || true",
        what="Looking for traces",
    )
    assert traces == ""
    ssh.run("! command -v gcc && ! command -v make && ! command -v cargo", what="No compilers")
    ssh.run("[ ! -e /usr/src/linux-headers-$(uname -r) ]", what="No headers")


def test_a_second_run_has_nothing_to_do(baked: Baked) -> None:
    before = baked.image.stat()
    _, err = inv("vexfs.image")
    assert "up to date" in err
    assert baked.image.stat() == before
    out, _ = inv("explain", "vexfs.image")
    assert "stale" not in out


def edited_sample(tmp_path: Path, old: str, new: str) -> Path:
    tree = tmp_path / "source"
    subprocess.run(["cp", "-r", SAMPLE, tree], check=True)
    source = tree / "vexfs.c"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new, 1))
    return tree


def test_a_compiler_error_is_shown(baked: Baked, tmp_path: Path) -> None:
    tree = edited_sample(tmp_path, "MODULE_LICENSE", "int broken = no_such_name;\nMODULE_LICENSE")
    before = sha256(baked.image)
    _, err = inv("vexfs.image", "--source", str(tree), status=11)
    assert "no_such_name" in err
    assert "error: The source did not compile." in err
    assert sha256(baked.image) == before


@pytest.mark.parametrize(
    ("engine", "sign", "left_to_do"),
    [
        ("vm", "vexfs.seal: restoring", ["vexfs.seal"]),
        ("native", "vexfs.compile-vexfs: compiling", ["vexfs.compile-vexfs", "vexfs.seal"]),
        ("native", "vexfs.seal: installing", ["vexfs.seal"]),
    ],
)
def test_a_killed_build_goes_on_from_the_last_finished_stage(
    tmp_path: Path, engine: str, sign: str, left_to_do: list[str]
) -> None:
    edit = f"static int __used v{len(sign)} = 1;\nMODULE_LICENSE"
    tree = edited_sample(tmp_path, "MODULE_LICENSE", edit)
    words = ("vexfs.seal", "--engine", engine, "--source", str(tree))
    process = start(*words)
    assert process.stderr is not None
    for line in process.stderr:
        if sign in line:
            break
    helpers = helpers_of(process.pid)
    assert helpers
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in helpers):
        assert time.monotonic() < deadline, "something outlived its parent"
        time.sleep(0.1)
    work = str(ROOT / ".vmbake" / "work")
    assert work not in Path("/proc/mounts").read_text()
    loops = Path("/sys/block").glob("loop*/loop/backing_file")
    assert not [loop for loop in loops if loop.read_text().startswith(work)]
    _, err = inv(*words)
    ran = re.findall(r"^(\S+): started$", err, re.MULTILINE)
    assert ran == left_to_do


def helpers_of(pid: int) -> list[int]:
    """The processes that work in the folders of a run: QEMU, or the native engine's."""
    work = re.compile(rb"/work/vexfs\.[a-z-]+\.%d/" % pid)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if path.name != str(pid) and work.search(command_of(path))
        ]
        if found:
            return found
        time.sleep(0.02)
    return []


def command_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
