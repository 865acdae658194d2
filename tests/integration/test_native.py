"""Disk images opened and entered on this host: what holds inside, and what stays behind.

Each holds for root, for whom the kernel mounts, and for an ordinary user in a user namespace.
These need root and its right to mount all the same: to be that user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.errors import CommandFailed, MachineFailed, NoRoom, TimedOut
from tasks.core.process import Runner
from tasks.guest import native
from tasks.guest.native import Inside, run_in_disk
from tasks.qemu import disk as images
from tests.standins import ordinary_user, tiny_root
from tests.standins.processes import wait_until
from tests.standins.traces import daemons, left_of

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LIMIT_S = 60
WORK = """
import sys
from pathlib import Path
from tasks.core.process import Runner
from tasks.guest import mounter
from tasks.guest.native import Inside, run_in_disk
from tests.standins import ordinary_user
folder = Path(sys.argv[1])
if sys.argv[3] == "fuse2fs":
    ordinary = ordinary_user.mounter_of(folder)
    mounter.choose = lambda: ordinary
inside = Inside(script=sys.argv[2], share=folder / "share", hostname="box")
run_in_disk(folder / "disk.qcow2", inside, folder, runner=Runner(folder / "log"),
            timeout_s=600, on_line=lambda line: (folder / line.strip()).touch())
"""
# Tells that it runs, then writes for as long as it can.
BUSY = """
exec 2> /dev/null
echo kept > /kept
dd if=/kept of=/synced conv=fsync
echo started
while :; do dd if=/dev/zero of=/large bs=64k count=16 conv=fsync; done
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="vmbake-native-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def pristine(place: Path) -> Path:
    folder = place / "pristine"
    folder.mkdir()
    return tiny_root.make(folder)


@pytest.fixture
def folder(place: Path, request: pytest.FixtureRequest) -> Path:
    """The working place of one test."""
    folder = place / str(abs(hash(request.node.name)))
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def image(pristine: Path, folder: Path, way: str) -> Iterator[Path]:
    """An overlay of the disk; whatever a test does, nothing stays behind."""
    overlay = fresh(pristine, folder / "disk.qcow2")
    yield overlay
    wait_until(lambda: left_of(folder) == [], "something was left", LIMIT_S)


def fresh(pristine: Path, overlay: Path) -> Path:
    runner = Runner(overlay.parent / "log")
    images.create_overlay(runner, overlay, backing=pristine, backing_format="qcow2")
    return overlay


def enter(image: Path, script: str, name: str = "work", timeout_s: float = LIMIT_S) -> list[str]:
    """The lines that a script in the image says."""
    work = image.parent / name
    (work / "share").mkdir(parents=True)
    lines: list[str] = []
    run_in_disk(
        image,
        Inside(script=f"set -eu\n{script}", share=work / "share", hostname="box", cmdline="a=b"),
        work,
        runner=Runner(image.parent / "log"),
        timeout_s=timeout_s,
        on_line=lines.append,
    )
    return [line.strip() for line in lines]


@contextlib.contextmanager
def busy(folder: Path, way: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, in the middle of working on the image."""
    (folder / "share").mkdir()
    with subprocess.Popen([sys.executable, "-c", WORK, folder, BUSY, way], cwd=ROOT) as process:
        try:
            wait_until((folder / "started").exists, "the script does not run", LIMIT_S)
            yield process
        finally:
            process.kill()


def test_what_is_written_stays_and_what_is_shared_appears(image: Path) -> None:
    share = image.parent / "work" / "share"
    assert enter(image, "echo hello > /file; echo out > /run/vmbake/out; hostname; id -u") == [
        "box",
        "0",
    ]
    assert (share / "out").read_text() == "out\n"
    assert enter(image, "cat /file", "again") == ["hello"]
    images.check(Runner(image.parent / "log"), image)


def test_owners_modes_and_links_stay(image: Path) -> None:
    made = """
        echo x > /file
        chown 33:60000 /file
        chmod 4755 /file
        ln /file /other
        mkfifo /pipe
        ln -s nowhere /link
        chown -h 65534:1 /link
    """
    enter(image, made)
    found = enter(image, "stat -c '%u:%g %a %h' /file /other; stat -c '%u:%g %F' /link /pipe", "2")
    assert found == ["33:60000 4755 2"] * 2 + ["65534:1 symbolic link", "0:0 fifo"]
    images.check(Runner(image.parent / "log"), image)


def test_what_anybody_leaves_in_the_share_can_be_removed(image: Path, way: str) -> None:
    enter(
        image,
        "mkdir /run/vmbake/home; echo x > /run/vmbake/home/file; chown -R 33 /run/vmbake/home",
    )
    home = image.parent / "work" / "share" / "home"
    assert (home / "file").read_text() == "x\n"
    if way == "fuse2fs":
        assert {path.stat().st_uid for path in (home, home / "file")} == {ordinary_user.UID}


def test_what_is_deleted_goes_from_the_image(image: Path) -> None:
    enter(image, "dd if=/dev/urandom of=/large bs=1M count=16 conv=fsync; rm /large")
    assert image.stat().st_blocks * 512 < 8 << 20


def test_the_container_sees_nothing_of_the_host(image: Path) -> None:
    said = enter(
        image,
        f"""
        cat /proc/cmdline
        ls -d {ROOT} || echo no checkout
        ls /proc/self/fd/../../1 > /dev/null && ls -d /proc/[0-9]* | while read p; do echo $p; done
        ls /sys/class/net
        """,
    )
    assert said[0] == "a=b"
    assert "no checkout" in said
    assert "lo" in said
    assert not [name for name in said if name.startswith(("eth", "en"))]
    # Its own first process, and what that started.
    assert "/proc/1" in said
    assert len([name for name in said if name.startswith("/proc/")]) < 8


@pytest.mark.parametrize(
    "deed",
    [
        "echo h > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/vm/drop_caches",
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /proc/sys",
        "hostname other",
        "echo x > /sys/power/state",
    ],
)
def test_the_container_has_no_say_over_the_hosts_kernel(image: Path, deed: str) -> None:
    said = enter(image, f"if ({deed}); then echo done; else echo refused; fi")
    assert said[-1] == "refused"


def test_files_are_made_for_everybody_in_the_image(image: Path) -> None:
    own = os.umask(0o077)
    try:
        assert enter(image, "umask; echo x > /file; ls -ld /tmp/. /run/. /dev/null")[0] == "0022"
    finally:
        os.umask(own)


def test_a_failed_script_leaves_nothing_mounted(image: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        enter(image, "echo half > /file; exit 3")
    assert caught.value.status == 3
    assert left_of(image.parent) == []
    assert enter(image, "cat /file", "again") == ["half"]


def test_an_image_without_a_root_is_an_error(image: Path) -> None:
    empty = image.with_name("empty.qcow2")
    images.create(Runner(image.parent / "log"), empty, size_bytes=64 << 20)
    with pytest.raises(CommandFailed):
        enter(empty, "true")


def test_a_host_disk_that_fills_up_is_noticed(image: Path, pristine: Path) -> None:
    """What a script writes reaches the host's disk later, when the script is content already."""
    folder = image.parent
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        overlay = fresh(pristine, small / "disk.qcow2")
        share = folder / "share"
        share.mkdir()
        script = "dd if=/dev/urandom of=/large bs=64k count=256"
        with pytest.raises(NoRoom):
            run_in_disk(
                overlay,
                Inside(script=script, share=share, hostname="box"),
                folder,
                runner=Runner(folder / "log"),
                timeout_s=LIMIT_S,
                on_line=lambda line: None,
            )
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_time_limit_ends_all_of_it(image: Path) -> None:
    with pytest.raises(TimedOut):
        enter(image, "sleep 600", timeout_s=3)


def test_a_killed_build_leaves_nothing_and_the_next_one_works(
    image: Path, way: str, pristine: Path
) -> None:
    folder = image.parent
    with busy(folder, way) as process:
        assert daemons(folder)
        # Only the outermost process; it has no chance to clean up.
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: left_of(folder) == [], "something was left", LIMIT_S)
    if way == "kernel":
        # The image is as after a power failure: what was synced is there.
        assert enter(image, "cat /synced", "again") == ["kept"]
    else:
        # fuse2fs keeps no journal; a stage that was killed begins with a new overlay in any case.
        fresh(pristine, folder / "new.qcow2")
        assert enter(folder / "new.qcow2", "echo new", "again") == ["new"]


def test_an_interrupted_build_leaves_nothing(image: Path, way: str) -> None:
    with busy(image.parent, way) as process:
        process.send_signal(signal.SIGINT)
        process.wait()
        assert left_of(image.parent) == []


@pytest.mark.parametrize("program", ["qemu-storage-daemon", "fuse2fs"])
def test_the_death_of_a_daemon_is_noticed(
    image: Path, way: str, program: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if (way, program) == ("kernel", "fuse2fs"):
        program = "qemu-storage-daemon"
    folder = image.parent
    with busy(folder, way) as process:
        (daemon,) = daemons(folder, program)
        os.kill(daemon, signal.SIGKILL)
        assert process.wait(LIMIT_S) == 1
    assert MachineFailed.__name__ in capfd.readouterr().err
    wait_until(lambda: left_of(folder) == [], "something was left", LIMIT_S)


def test_a_daemon_that_dies_before_the_root_is_mounted(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = image.parent / "fakes"
    fakes.mkdir()
    # The last word is the exported disk, beside which the daemon's process ID lies.
    script = 'for disk; do :; done\nkill -KILL "$(cat "${disk%/*}/pid")"\nexit 0\n'
    (fakes / "partx").write_text(f"#!/bin/sh\n{script}")
    fakes.chmod(0o755)
    (fakes / "partx").chmod(0o755)
    monkeypatch.setattr(native, "IMAGE_PATH", f"{fakes}:{native.IMAGE_PATH}")
    with pytest.raises(MachineFailed, match="daemon"):
        enter(image, "echo never")
