"""Disk images opened and entered on this host: what holds inside, and what stays behind.

These need root and its right to mount, as the native engine does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.core.errors import CommandFailed, MachineFailed, NoRoom, TimedOut
from tasks.core.process import Runner
from tasks.guest import native
from tasks.guest.native import Inside, run_in_disk
from tasks.qemu import disk as images
from tests.standins import tiny_root
from tests.standins.traces import daemons, left_of

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LIMIT_S = 60
WORK = """
import sys
from pathlib import Path
from tasks.core.process import Runner
from tasks.guest.native import Inside, run_in_disk
folder = Path(sys.argv[1])
inside = Inside(script=sys.argv[2], share=folder / "share", hostname="box")
run_in_disk(folder / "disk.qcow2", inside, folder, runner=Runner(folder / "log"),
            timeout_s=600, on_line=lambda line: None)
"""
# Tells that it runs, then writes for as long as it can.
BUSY = """
echo kept > /kept
dd if=/kept of=/synced conv=fsync
echo yes > /run/vmbake/started
while :; do dd if=/dev/zero of=/large bs=64k count=16 conv=fsync; done
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_root.make(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def image(pristine: Path, tmp_path: Path) -> Iterator[Path]:
    """An overlay of the disk; whatever a test does, nothing stays behind."""
    overlay = tmp_path / "disk.qcow2"
    images.create_overlay(
        Runner(tmp_path / "log"), overlay, backing=pristine, backing_format="qcow2"
    )
    yield overlay
    wait_until(lambda: left_of(tmp_path) == [], "everything is gone")


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


def wait_until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not met():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def busy(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, in the middle of working on the image."""
    (folder / "share").mkdir()
    with subprocess.Popen([sys.executable, "-c", WORK, folder, BUSY], cwd=ROOT) as process:
        try:
            wait_until((folder / "share" / "started").exists, "the script runs")
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


def test_a_host_disk_that_fills_up_is_noticed(image: Path, tmp_path: Path) -> None:
    """What a script writes reaches the host's disk later, when the script is content already."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        overlay = small / "disk.qcow2"
        images.create_overlay(
            Runner(tmp_path / "log"), overlay, backing=image, backing_format="qcow2"
        )
        share = tmp_path / "share"
        share.mkdir()
        script = "dd if=/dev/urandom of=/large bs=64k count=256"
        with pytest.raises(NoRoom):
            run_in_disk(
                overlay,
                Inside(script=script, share=share, hostname="box"),
                tmp_path,
                runner=Runner(tmp_path / "log"),
                timeout_s=LIMIT_S,
                on_line=lambda line: None,
            )
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_time_limit_ends_all_of_it(image: Path) -> None:
    with pytest.raises(TimedOut):
        enter(image, "sleep 600", timeout_s=3)


def test_a_killed_build_leaves_nothing_and_the_next_one_works(image: Path) -> None:
    folder = image.parent
    with busy(folder) as process:
        assert daemons(folder)
        # Only the outermost process; it has no chance to clean up.
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: left_of(folder) == [], "everything is gone")
    # The image is as after a power failure: what was synced is there.
    assert enter(image, "cat /synced", "again") == ["kept"]


def test_an_interrupted_build_leaves_nothing(image: Path) -> None:
    with busy(image.parent) as process:
        process.send_signal(signal.SIGINT)
        process.wait()
        assert left_of(image.parent) == []


def test_the_death_of_the_daemon_is_noticed(image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = image.parent
    with busy(folder) as process:
        (daemon,) = daemons(folder)
        os.kill(daemon, signal.SIGKILL)
        assert process.wait(LIMIT_S) == 1
    assert MachineFailed.__name__ in capfd.readouterr().err
    wait_until(lambda: left_of(folder) == [], "everything is gone")
    assert enter(image, "cat /synced", "again") == ["kept"]


def test_a_daemon_that_dies_before_the_root_is_mounted(
    image: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    # The last word is the exported disk, beside which the daemon's process ID lies.
    script = 'for disk; do :; done\nkill -KILL "$(cat "${disk%/*}/pid")"\nexit 0\n'
    (fakes / "partx").write_text(f"#!/bin/sh\n{script}")
    (fakes / "partx").chmod(0o755)
    monkeypatch.setattr(native, "IMAGE_PATH", f"{fakes}:{native.IMAGE_PATH}")
    with pytest.raises(MachineFailed, match="qemu-storage-daemon"):
        enter(image, "echo never")
