"""The ladder of accelerators, with a QEMU whose behaviour is written down for each rung."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import CannotRun, MachineFailed, MissingTool
from tasks.core.process import Runner
from tasks.qemu import accel
from tasks.qemu.accel import Accel, choose, survey
from tasks.qemu.kvm import KvmHost
from tasks.qemu.probe import BOOT_SECTOR, STEPS, Verdict, command_line

# What a QEMU does, as the end of a shell script. The words are those of QEMU 7.2.
RUNS = "printf replmtn >$steps; exit 33"
MSR = """echo 'qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69' >&2
echo "kvm.c:3183: kvm_buf_set_msrs: Assertion \\`ret == cpu->kvm_msr_buf->nmsrs' failed." >&2
kill -ABRT $$"""
WARNS = 'echo "qemu-system-x86_64: warning: host doesn\'t support requested feature: kvm" >&2\n'
HANGS = "exec sleep 60"
HANGS_LATE = f"printf repl >$steps; {HANGS}"
DEAF = "trap '' TERM; while :; do sleep 1; done"
RESETS = "printf rep >$steps; exit 0"
DENIED = """echo 'Could not access KVM kernel module: Permission denied' >&2
echo 'qemu-system-x86_64: failed to initialize kvm: Permission denied' >&2; exit 1"""
EBUSY = """echo 'ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy' >&2
echo 'qemu-system-x86_64: failed to initialize kvm: Device or resource busy' >&2; exit 1"""
NO_KVM = "echo 'qemu-system-x86_64: -accel kvm: invalid accelerator kvm' >&2; exit 1"
GONE = "echo 'Could not access KVM kernel module: No such file or directory' >&2; exit 1"
BROKEN = "echo 'qemu-system-x86_64: error while loading shared libraries: libx.so' >&2; exit 127"

FULL, LESS, OLD = "host", "host,-arch-capabilities", "Nehalem"


@dataclass(frozen=True, kw_only=True)
class World:
    """A host, a QEMU on PATH and a place for the cache."""

    host: KvmHost
    runner: Runner
    cache: Path
    bin: Path

    def qemu(self, kvm: Mapping[str, str] | None = None, tcg: str = RUNS) -> None:
        """Write the QEMU: what it does for each -cpu under kvm, and under tcg."""
        arms = "\n".join(f"'kvm {cpu}')\n{acts};;" for cpu, acts in (kvm or {}).items())
        program = self.bin / "qemu-system-x86_64"
        program.write_text(
            f"""#!/bin/bash
while [ $# -gt 0 ]; do
  case $1 in
    -accel) accel=${{2%%,*}};;
    -cpu) cpu=$2;;
    -chardev) steps=${{2#*path=}};;
  esac
  shift
done
echo "$accel $cpu" >>{self.bin}/started
case "$accel $cpu" in
{arms}
tcg*)
{tcg};;
*) echo 'an unexpected rung' >&2; exit 9;;
esac
"""
        )
        program.chmod(0o755)

    def started(self) -> list[str]:
        """The guests that were started since the last call."""
        record = self.bin / "started"
        lines = record.read_text().splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        return lines

    def write(self, path: str, text: str = "") -> None:
        target = self.host.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    fakes = tmp_path / "bin"
    fakes.mkdir()
    monkeypatch.setenv("PATH", f"{fakes}:/usr/bin:/bin")
    monkeypatch.setattr(accel, "KVM_FLOOR_S", 0.5)
    made = World(
        host=KvmHost(root=tmp_path / "host", machine="x86_64", uid=1000, groups=frozenset({1000})),
        runner=Runner(tmp_path / "log"),
        cache=tmp_path / "cache",
        bin=fakes,
    )
    made.write("dev/kvm")
    made.write("proc/sys/kernel/random/boot_id", "first-boot\n")
    made.write("proc/cpuinfo", "vendor_id : GenuineIntel\nflags : fpu vmx sse2\n")
    return made


def test_the_guest_is_one_boot_sector() -> None:
    assert len(BOOT_SECTOR) == 512
    assert BOOT_SECTOR.endswith(b"\x55\xaa")
    # Every letter that it writes to port 0xe9 is a step with a name, in this order.
    parts = BOOT_SECTOR.split(b"\xe6\xe9")[:-1]
    assert [chr(part[-1]) for part in parts] == [*STEPS][1:]


def test_command_line_ends_a_reset_guest_and_escapes_commas() -> None:
    words = command_line("kvm", "host,-x", Path("/t,1/disk"), Path("/t,1/steps"))
    assert "-no-reboot" in words
    assert "if=none,id=disk,format=raw,readonly=on,file=/t,,1/disk" in words
    assert "file,id=steps,path=/t,,1/steps" in words


@pytest.mark.parametrize(
    ("kvm", "started", "cpu"),
    [
        ({FULL: RUNS}, [FULL], FULL),
        ({FULL: MSR, LESS: RUNS}, [FULL, LESS], LESS),
        ({FULL: MSR, LESS: MSR, OLD: WARNS + RUNS}, [FULL, LESS, OLD], OLD),
        # Without an MSR in the way, a guest that stalls is not cured by one feature less.
        ({FULL: HANGS_LATE, OLD: RUNS}, [FULL, OLD], OLD),
        ({FULL: RESETS, OLD: RUNS}, [FULL, OLD], OLD),
    ],
)
def test_the_first_rung_that_runs_a_guest_is_taken(
    world: World, kvm: dict[str, str], started: list[str], cpu: str
) -> None:
    world.qemu(kvm)
    chosen = choose("auto", world.runner, world.cache, world.host)
    assert (chosen.name, chosen.cpu) == ("kvm", cpu)
    assert chosen.qemu_args() == ("-accel", "kvm", "-cpu", cpu)
    assert world.started() == [f"tcg {accel.TCG_CPU}", *(f"kvm {rung}" for rung in started)]
    assert ("MSR 0x10a" in chosen.reason) == (kvm[FULL] == MSR)


@pytest.mark.parametrize(
    ("kvm", "verdict", "says"),
    [
        ({FULL: DENIED}, Verdict.FORBIDDEN, "may not be opened"),
        ({FULL: EBUSY}, Verdict.BUSY, "another hypervisor"),
        ({FULL: NO_KVM}, Verdict.UNSUPPORTED, "invalid accelerator kvm"),
        ({FULL: GONE}, Verdict.ABSENT, "the module kvm_intel is not loaded"),
        ({FULL: MSR, LESS: HANGS}, Verdict.STALLS, "a guest doesn't run under it"),
        ({FULL: HANGS}, Verdict.STALLS, "it reached the firmware"),
        ({FULL: HANGS_LATE, OLD: HANGS_LATE}, Verdict.STALLS, "it reached long mode"),
        ({FULL: RESETS, OLD: RESETS}, Verdict.CRASHES, "resets under it"),
        ({FULL: MSR, LESS: MSR, OLD: MSR}, Verdict.ABORTS, "failed to set MSR 0x10a to 0x69"),
    ],
)
def test_a_kvm_that_fails_gives_tcg_with_the_reason(
    world: World, kvm: dict[str, str], verdict: Verdict, says: str
) -> None:
    world.qemu(kvm)
    began = time.monotonic()
    found = survey(world.runner, world.cache, world.host)
    assert time.monotonic() - began < 10
    assert found.kvm is verdict
    assert found.best.name == "tcg"
    assert says in str(found.best)
    assert found.fix
    assert len(world.started()) == 1 + len(kvm)
    with pytest.raises(CannotRun, match="--accel tcg") as caught:
        choose("kvm", world.runner, world.cache, world.host)
    assert says in caught.value.what
    assert found.fix in caught.value.hint


def test_a_qemu_that_ignores_its_end_is_killed(world: World) -> None:
    world.qemu({FULL: DEAF})
    began = time.monotonic()
    assert survey(world.runner, world.cache, world.host).kvm is Verdict.STALLS
    assert time.monotonic() - began < 5


def test_the_limit_grows_with_what_tcg_needs(world: World) -> None:
    world.qemu({FULL: f"sleep 1; {RUNS}"}, tcg=f"sleep 0.4; {RUNS}")
    assert survey(world.runner, world.cache, world.host).kvm is Verdict.WORKS


def test_without_a_device_kvm_is_not_started(world: World) -> None:
    world.qemu()
    world.host.device.unlink()
    assert survey(world.runner, world.cache, world.host).kvm is Verdict.ABSENT
    assert world.started() == [f"tcg {accel.TCG_CPU}"]


def test_another_processor_has_another_kvm(world: World) -> None:
    world.qemu()
    found = survey(world.runner, world.cache, replace(world.host, machine="aarch64"))
    assert found.kvm is Verdict.UNSUPPORTED
    assert "aarch64" in found.finding
    assert world.started() == [f"tcg {accel.TCG_CPU}"]


def test_a_kvm_that_interprets_is_named_and_not_tried_with_every_model(
    world: World,
) -> None:
    # Longer than a shell takes to begin.
    world.qemu({FULL: HANGS_LATE, OLD: HANGS_LATE}, tcg=f"sleep 1; {RUNS}")
    world.write("sys/module/kvm_pvm/refcnt")
    assert "kvm_pvm interprets" in survey(world.runner, world.cache, world.host).finding
    assert len(world.started()) == 2


def test_tcg_is_taken_at_its_word(world: World) -> None:
    world.qemu()
    chosen = choose("tcg", world.runner, world.cache, world.host)
    assert chosen == Accel(name="tcg", cpu=accel.TCG_CPU, reason="asked for")
    assert world.started() == []


def test_a_qemu_that_runs_nothing_is_an_error(world: World) -> None:
    world.qemu(tcg=BROKEN)
    with pytest.raises(MachineFailed, match=r"libx\.so"):
        survey(world.runner, world.cache, world.host)
    assert not world.cache.exists()


def test_a_missing_qemu_is_named_with_its_package(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "require_tool", missing)
    with pytest.raises(MissingTool):
        choose("auto", world.runner, world.cache, world.host)


def missing(name: str) -> Path:
    raise MissingTool(f"The program {name} is not installed.")


# ── the cache ────────────────────────────────────────────────────────────────────────────────


def test_the_second_call_starts_nothing(world: World) -> None:
    world.qemu({FULL: MSR, LESS: RUNS})
    first = survey(world.runner, world.cache, world.host)
    assert len(world.started()) == 3
    assert survey(world.runner, world.cache, world.host) == first
    assert world.started() == []
    assert [path.name for path in world.cache.iterdir()] == ["accel.json"]
    assert survey(world.runner, world.cache, world.host, again=True).kvm is first.kvm
    assert len(world.started()) == 3


def reboot(world: World) -> KvmHost:
    world.write("proc/sys/kernel/random/boot_id", "second-boot\n")
    return world.host


def upgrade(world: World) -> KvmHost:
    os.utime(world.bin / "qemu-system-x86_64", (1, 1))
    return world.host


def permit(world: World) -> KvmHost:
    world.host.device.chmod(0o666)
    return world.host


def join_group(world: World) -> KvmHost:
    return replace(world.host, groups=frozenset({1000, 104}))


def load_module(world: World) -> KvmHost:
    world.write("sys/module/kvm_intel/refcnt")
    return world.host


def enter_container(world: World) -> KvmHost:
    world.write("run/.containerenv")
    return world.host


@pytest.mark.parametrize(
    "change", [reboot, upgrade, permit, join_group, load_module, enter_container]
)
def test_what_may_change_the_finding_ends_it(
    world: World, change: Callable[[World], KvmHost]
) -> None:
    world.qemu({FULL: RUNS})
    survey(world.runner, world.cache, world.host)
    world.started()
    survey(world.runner, world.cache, change(world))
    assert world.started() == [f"tcg {accel.TCG_CPU}", "kvm host"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: "",
        lambda kept: kept[: len(kept) // 2],
        lambda kept: "[]",
        lambda kept: kept.replace('"works"', '"sings"'),
        lambda kept: json.dumps({**json.loads(kept), "survey": {"kvm": "works"}}),
        lambda kept: json.dumps({**json.loads(kept), "survey": None}),
    ],
)
def test_a_damaged_cache_is_ignored_and_mended(world: World, damage: Callable[[str], str]) -> None:
    world.qemu({FULL: RUNS})
    first = survey(world.runner, world.cache, world.host)
    memo = world.cache / "accel.json"
    memo.write_text(damage(memo.read_text()))
    world.started()
    assert survey(world.runner, world.cache, world.host).kvm is first.kvm
    assert len(world.started()) == 2
    survey(world.runner, world.cache, world.host)
    assert world.started() == []


def test_a_busy_processor_is_asked_again(world: World) -> None:
    world.qemu({FULL: EBUSY})
    assert survey(world.runner, world.cache, world.host).kvm is Verdict.BUSY
    world.qemu({FULL: RUNS})
    # The file is younger now; the point is that the first finding was not kept at all.
    assert not (world.cache / "accel.json").exists()
    assert survey(world.runner, world.cache, world.host).kvm is Verdict.WORKS


def test_a_cache_that_cannot_be_written_costs_only_time(world: World) -> None:
    world.qemu({FULL: RUNS})
    world.cache.write_text("a file where a folder should be")
    assert survey(world.runner, world.cache, world.host).kvm is Verdict.WORKS
    assert "is not kept" in world.runner.log.read_text()


# ── why KVM is missing or closed ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flags", "files", "finding", "fix"),
    [
        ("fpu vmx", [], "the module kvm_intel is not loaded", "sudo modprobe kvm_intel"),
        ("AuthenticAMD svm", [], "the module kvm_amd is not loaded", "sudo modprobe kvm_amd"),
        ("fpu", [], "is switched off", "firmware setup"),
        ("fpu hypervisor", [], "gets no virtualization", "nested"),
        ("vmx", [".dockerenv", "sys/module/kvm_intel/x"], "this container", "--device /dev/kvm"),
        ("vmx", [".dockerenv"], "not loaded", "--device /dev/kvm"),
    ],
)
def test_why_there_is_no_device(
    world: World, flags: str, files: list[str], finding: str, fix: str
) -> None:
    world.write("proc/cpuinfo", flags)
    for path in files:
        world.write(path)
    found = world.host.absence()
    assert finding in found.finding
    assert fix in found.fix


def test_a_closed_device_says_how_to_open_it(world: World) -> None:
    mine = world.host.device.stat()
    world.host.device.chmod(0o600)
    closed = world.host.prohibition()
    assert "-rw-------" in closed.finding
    assert "MODE=" in closed.fix
    assert "udevadm trigger" in closed.fix
    assert "sudo usermod -aG kvm" in closed.fix
    if mine.st_gid == 0:
        os.chown(world.host.device, -1, 12345)
    world.host.device.chmod(0o660)
    group = world.host.device.stat().st_gid
    of_group = world.host.prohibition()
    assert "udev" not in of_group.fix
    assert "usermod -aG" in of_group.fix
    # Whoever is in the group already is kept out by something else: a container's device rules.
    member = replace(world.host, groups=frozenset({group}))
    assert "--device /dev/kvm" in member.prohibition().fix


def test_the_survey_survives_json(world: World) -> None:
    world.qemu({FULL: MSR, LESS: RUNS})
    found = survey(world.runner, world.cache, world.host)
    text: Any = json.loads(json.dumps(found.to_json()))
    assert accel.Survey.from_json(text) == found
