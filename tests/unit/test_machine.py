"""A machine's life against a fake QEMU: every way to start, to fail and to end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.core.errors import (
    BadInput,
    Busy,
    CannotRun,
    MachineFailed,
    MissingTool,
    NoRoom,
    TimedOut,
    VmbakeError,
)
from tasks.core.process import Runner
from tasks.qemu import machine as machine_module
from tasks.qemu.machine import Machine
from tests.standins import fake_machine
from tests.standins.processes import alive, wait_until

LONG_S = 60.0
SOON_S = 20.0


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, done: int, total: int | None) -> None:
        raise AssertionError((done, total))


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    return fake_machine.maker(tmp_path, monkeypatch)


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """The block must end long before the timeouts in it do."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < SOON_S


def test_hears_the_guest_get_ready(start: Callable[..., Machine]) -> None:
    reporter = Heard()
    with start("ready", reporter=reporter) as vm:
        assert vm.wait_ready(timeout_s=LONG_S) == {"ready": True}
        vm.wait_announcement(lambda said: "arch" in said.get("facts", {}), timeout_s=5, what="tell")
        assert vm.facts == {"kernel": "6.1", "arch": "amd64"}
        assert {"text": "not json"} in vm.announcements
        assert vm.ssh_port == 40021
        pid = vm.process.pid
    assert reporter.said == ["configuring"]
    assert not alive(pid)


def test_the_command_line_is_run_as_composed(start: Callable[..., Machine], tmp_path: Path) -> None:
    with start("ready"):
        pass
    argv = json.loads((tmp_path / "argv.json").read_text())
    assert "driver=qcow2,node-name=root,read-only=off" in ",".join(argv)
    assert (tmp_path / "vm").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "vm" / "console.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        ("dies", MachineFailed, r"QEMU ended \(exit status 3\); the guest did not become ready"),
        ("killed", MachineFailed, r"QEMU ended \(killed by SIGKILL\)"),
        ("panics", MachineFailed, r"panicked: .*Unable to mount root fs"),
        ("panic-event", MachineFailed, r"kernel panicked"),
        ("oopses", MachineFailed, r"\(oops\): .*Oops: 0002"),
        ("emergency", MachineFailed, r"emergency mode"),
        ("gives-up", MachineFailed, r"gave up: apt has no network"),
        ("powers-off", MachineFailed, r"shut down \(guest-shutdown\); .* become ready"),
        ("disk-full", NoRoom, r"disk is full.*root"),
    ],
)
def test_what_ends_the_guest_ends_the_wait_at_once(
    start: Callable[..., Machine], behaviour: str, kind: type[VmbakeError], message: str
) -> None:
    told: list[bool] = []
    vm = start(behaviour)
    vm.on_trouble(lambda: told.append(True))
    with quickly(), pytest.raises(kind, match=message) as caught, vm:
        vm.wait_ready(timeout_s=LONG_S)
    # These two are known from another channel, and don't wait for what the console may add.
    if behaviour not in ("gives-up", "disk-full"):
        assert "booting" in caught.value.tail
    assert caught.value.log == vm.console_log
    assert told == [True]
    assert not alive(vm.process.pid)


def test_the_story_of_a_panic_is_told_to_its_end(start: Callable[..., Machine]) -> None:
    with pytest.raises(MachineFailed) as caught, start("panics") as vm:
        vm.wait_ready(timeout_s=LONG_S)
    assert caught.value.tail[-1].endswith("---[ end Kernel panic - not syncing: VFS ]---")


def test_qemus_own_last_words_are_shown(start: Callable[..., Machine]) -> None:
    with pytest.raises(MachineFailed) as caught, start("dies") as vm:
        vm.wait_ready(timeout_s=LONG_S)
    assert caught.value.tail == (
        "qemu-system-x86_64: Guest memory is gone",
        "booting",
        "all is well",
    )


def test_a_guest_that_says_nothing_times_out(start: Callable[..., Machine]) -> None:
    with start("mute") as vm:
        vm.wait_console("booting", timeout_s=SOON_S, what="boot")
        with pytest.raises(TimedOut, match=r"within 0\.1 s; the last thing seen: booting"):
            vm.wait_ready(timeout_s=0.1)


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (
            "dies-at-once",
            MachineFailed,
            r"ended at once \(exit status 1\) when .* unsupported machine type",
        ),
        ("port-busy", Busy, r"port 2222 on 127\.0\.0\.1 is in use"),
        ("no-kvm", CannotRun, r"can't use KVM"),
    ],
)
def test_a_qemu_that_does_not_start_says_why(
    start: Callable[..., Machine], behaviour: str, kind: type[VmbakeError], message: str
) -> None:
    with quickly(), pytest.raises(kind, match=message) as caught, start(behaviour, ssh_port=2222):
        pass
    assert caught.value.log is not None
    if behaviour == "dies-at-once":
        assert caught.value.tail == ("qemu-system-x86_64: -machine q36: unsupported machine type",)


def test_a_qemu_that_never_answers_is_given_up(
    start: Callable[..., Machine], tmp_path: Path
) -> None:
    vm = start("dumb")
    impatient = Machine(
        vm.spec,
        vm.directory,
        Runner(
            tmp_path / "stage.log",
            env={"FAKE_QEMU": "dumb", "FAKE_QEMU_ARGV": str(tmp_path / "argv.json")},
        ),
        start_timeout_s=0.3,
    )
    with quickly(), pytest.raises(TimedOut, match="greet"), impatient:
        pass
    assert not alive(impatient.process.pid)


def test_a_missing_qemu_is_named(
    start: Callable[..., Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.core.tools.find_tool", lambda name: None)
    with pytest.raises(MissingTool, match="qemu-system-x86_64"), start("ready"):
        pass


def test_a_qemu_that_hangs_up_fails_the_command(start: Callable[..., Machine]) -> None:
    with start("hang-up") as vm, pytest.raises(MachineFailed, match="hung up"):
        vm._qmp.execute("query-status")


def test_an_error_inside_the_block_survives_a_failing_cleanup(
    start: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "QUIT_TIMEOUT_S", 0.2)
    monkeypatch.setattr("tasks.core.process.Process.stop.__defaults__", (0.2,))
    with quickly(), pytest.raises(BadInput, match="the first error"), start("stubborn") as vm:
        raise BadInput("the first error")
    assert vm.process.returncode == -signal.SIGKILL


def test_ctrl_c_in_the_block_ends_qemu(start: Callable[..., Machine]) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    vm = start("mute")
    timer.start()
    with quickly(), pytest.raises(KeyboardInterrupt), vm:
        vm.wait_ready(timeout_s=LONG_S)
    assert not alive(vm.process.pid)


def test_a_failed_machine_is_kept_on_demand(start: Callable[..., Machine]) -> None:
    vm = start("ready", keep=True)
    with pytest.raises(BadInput), vm:
        raise BadInput("something else failed")
    assert vm.kept is not None
    assert (vm.kept.pid, vm.kept.ssh_port) == (vm.process.pid, 40021)
    assert vm.kept.stop_command == f"kill {vm.process.pid}"
    assert alive(vm.kept.pid)
    vm.process.stop()


def test_a_good_end_keeps_nothing(start: Callable[..., Machine]) -> None:
    with start("ready", keep=True) as vm:
        pass
    assert vm.kept is None
    assert not alive(vm.process.pid)


def test_a_dead_machine_is_not_kept(start: Callable[..., Machine]) -> None:
    with pytest.raises(MachineFailed), start("dies", keep=True) as vm:
        vm.wait_ready(timeout_s=LONG_S)
    assert vm.kept is None


def test_poweroff_waits_for_qemus_end(start: Callable[..., Machine]) -> None:
    with start("ready") as vm:
        vm.poweroff(timeout_s=LONG_S)
        assert vm.process.returncode == 0


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("resets", "guest-reset"), ("fails-at-end", r"after the guest's shutdown \(exit status 3\)")],
)
def test_a_bad_poweroff_is_an_error(
    start: Callable[..., Machine], behaviour: str, message: str
) -> None:
    with start(behaviour) as vm, pytest.raises(MachineFailed, match=message):
        vm.poweroff(timeout_s=LONG_S)


def test_a_guest_that_ignores_the_power_button_times_out(start: Callable[..., Machine]) -> None:
    with start("mute") as vm, pytest.raises(TimedOut, match="did not shut down"):
        vm.poweroff(timeout_s=0.1, ask=lambda: None)


def test_a_snapshot_that_saved_too_little_is_an_error(start: Callable[..., Machine]) -> None:
    with start("mute") as vm:
        with pytest.raises(MachineFailed, match=r"not save .* completely: it is missing on root"):
            vm.savevm("warm")
        assert vm.snapshots.tags() == ()
        with pytest.raises(BadInput, match="half already"):
            vm.savevm("half")
        with pytest.raises(BadInput, match="letter"):
            vm.savevm("1")


def test_the_error_of_a_job_is_told(start: Callable[..., Machine]) -> None:
    with start("job-error") as vm, pytest.raises(NoRoom, match="could not save the snapshot warm"):
        vm.savevm("warm")


def test_disks_come_and_go(start: Callable[..., Machine], tmp_path: Path) -> None:
    with start("mute", hotplug_ports=1) as vm:
        vm.attach_disk(tmp_path / "a", "source")
        with pytest.raises(MachineFailed, match="All 1 hot-plug ports"):
            vm.attach_disk(tmp_path / "b", "more")
        vm.detach_disk("source")
        vm.attach_disk(tmp_path / "a", "source")


def test_a_disk_that_the_guest_holds_times_out(
    start: Callable[..., Machine], tmp_path: Path
) -> None:
    with start("holds-on") as vm:
        vm.attach_disk(tmp_path / "a", "source")
        with pytest.raises(TimedOut, match="let go of the disk source"):
            vm.detach_disk("source", timeout_s=0.1)


def test_a_refused_device_leaves_its_port_free(
    start: Callable[..., Machine], tmp_path: Path
) -> None:
    with start("no-device", hotplug_ports=1) as vm:
        for _ in range(2):
            with pytest.raises(MachineFailed, match="Bus 'hotplug0' not found"):
                vm.attach_disk(tmp_path / "a", "source")


def test_qemu_dies_with_its_parent(start: Callable[..., Machine], tmp_path: Path) -> None:
    """The parent is another process here, killed in a way that it can't prepare for."""
    start("mute")  # for the fake on PATH
    program = f"""
        from pathlib import Path
        from tasks.core.process import Runner
        from tasks.qemu.accel import Accel
        from tasks.qemu.machine import Machine
        from tasks.qemu.spec import MachineSpec

        here = Path({str(tmp_path)!r})
        env = {{"FAKE_QEMU": "mute", "FAKE_QEMU_ARGV": str(here / "argv.json")}}
        accel = Accel(name="tcg", cpu="max", reason="")
        spec = MachineSpec(name="orphan", accel=accel, memory_mb=64, cpus=1)
        with Machine(spec, here / "vm", Runner(here / "stage.log", env=env)) as vm:
            print(vm.process.pid, flush=True)
            vm.wait_ready(timeout_s=600)
    """
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, cwd=root
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
    wait_until(lambda: not alive(pid), "QEMU outlived its parent")
