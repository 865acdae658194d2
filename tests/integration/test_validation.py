"""Images that are no good, by real tools and tiny guests: each ends as a record, in its time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import zstandard

from tasks.artifacts import checks
from tasks.artifacts.checks import Check, Validation
from tasks.core.errors import MachineFailed
from tasks.core.events import Silent
from tasks.core.process import Runner
from tasks.guest import shell as shells
from tasks.guest.shell import Shell, opened
from tasks.qemu.accel import Accel
from tasks.qemu.spec import DirectKernel, MachineSpec
from tasks.validate import validating
from tasks.validate.catalogue import Spec
from tasks.validate.clone import Clone, FirstBoot, Settings
from tasks.validate.validating import Validating
from tests.standins import boot_sector, tiny_linux

pytestmark = pytest.mark.integration

TCG = Accel(name="tcg", cpu="max", reason="the test wants it")
SHORT = Settings(accel=TCG, firmware="bios", memory_mb=256, boot_timeout_s=60, ssh_timeout_s=5)


def validate(
    given: Path | str, folder: Path, settings: Settings = SHORT, **more: Any
) -> Validation:
    work = folder / "work"
    work.mkdir()
    run = Validating(
        str(given),
        settings,
        work=work,
        downloads=folder / "downloads",
        runner=Runner(folder / "log", timeout_s=120),
        reporter=Silent(),
        heard=lambda check: None,
        **more,
    )
    found = run.perform()
    checks.write(found, folder / "record.json")
    assert checks.read(folder / "record.json") == found
    return found


def qemu_img(*words: str | Path) -> None:
    subprocess.run(("qemu-img", *words), check=True, capture_output=True)


def qcow2(folder: Path, *options: str) -> Path:
    source = boot_sector.write(folder / "source.raw")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, source, folder / "image.qcow2")
    return folder / "image.qcow2"


# What no machine is started for


def no_image(folder: Path) -> Path:
    (folder / "notes.qcow2").write_text("This is not a disk.\n" * 100)
    return folder / "notes.qcow2"


def truncated_image(folder: Path) -> Path:
    image = qcow2(folder)
    os.truncate(image, image.stat().st_size - 70_000)
    return image


def truncated_archive(folder: Path) -> Path:
    packed = zstandard.ZstdCompressor().compress(os.urandom(1 << 20))
    (folder / "image.qcow2.zst").write_bytes(packed[:-1000])
    return folder / "image.qcow2.zst"


def archive_of_something(folder: Path) -> Path:
    (folder / "image.qcow2.zst").write_bytes(zstandard.ZstdCompressor().compress(b"hello" * 999))
    return folder / "image.qcow2.zst"


def encrypted_image(folder: Path) -> Path:
    image, secret = folder / "image.qcow2", folder / "secret"
    secret.write_text("a long passphrase")
    # Not LUKS: making one measures this machine's speed, and fails on a noisy one.
    qemu_img("create", "-f", "qcow2", "--object", f"secret,id=key,file={secret}",
             "-o", "encrypt.format=aes,encrypt.key-secret=key", image, "1M")  # fmt: skip
    return image


def orphaned_image(folder: Path) -> Path:
    base = qcow2(folder)
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "qcow2", folder / "overlay.qcow2")
    base.unlink()
    return folder / "overlay.qcow2"


def missing_image(folder: Path) -> Path:
    return folder / "nowhere.qcow2"


def folder_for_an_image(folder: Path) -> Path:
    return folder


def arm64_image(folder: Path) -> Path:
    """A file system with a program for another architecture, as a whole disk."""
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "dash").write_bytes(
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x02\x00\xb7\x00".ljust(48, b"\0")
    )
    image = folder / "arm64.raw"
    image.write_bytes(bytes(4 << 20))
    subprocess.run(("/sbin/mke2fs", "-q", "-t", "ext4", "-d", root, image), check=True)
    with image.open("r+b") as stream:
        stream.seek(510)
        stream.write(b"\x55\xaa")
    return image


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_image, "is no disk image"),
        (truncated_image, "is not usable"),
        (truncated_archive, "can't be unpacked (zstd)"),
        (archive_of_something, "is no disk image"),
        (encrypted_image, "is encrypted"),
        (orphaned_image, "not complete: it has a backing file"),
        (missing_image, "does not exist"),
        (folder_for_an_image, "is no file"),
        (arm64_image, "for another architecture: its programs are for arm64"),
    ],
)
def test_what_can_be_told_without_a_boot_is(make: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    found = validate(make(tmp_path / "given"), tmp_path)
    assert words in found.error
    assert not found.passed
    assert not list(tmp_path.glob("work/**/qemu.log")), "a machine was started"


def test_a_manifest_of_other_bytes_is_told(tmp_path: Path) -> None:
    image = qcow2(tmp_path)
    artifacts = {image.name: {"sha256": "ab" * 32, "size_bytes": 5}}
    manifest = {"name": "vexfs", "variant": "none", "version": "1", "artifacts": artifacts,
                "packages": {}}  # fmt: skip
    (tmp_path / "image.manifest.json").write_text(json.dumps(manifest))
    found = validate(image, tmp_path, replace(SHORT, boot_timeout_s=1))
    (digest,) = [check for check in found.checks if check.name == "bytes equal the manifest"]
    assert digest.outcome == "failed"
    assert "ab" * 32 in digest.reason


def test_a_manifest_that_is_none_is_told(tmp_path: Path) -> None:
    image = qcow2(tmp_path)
    (tmp_path / "image.manifest.json").write_text("[]")
    assert "is no manifest" in validate(image, tmp_path).error


# Guests that go wrong


def test_an_image_that_never_boots(tmp_path: Path) -> None:
    image = boot_sector.write(tmp_path / "image.raw", "loading nothing\n")
    before = image.read_bytes()
    found = validate(image, tmp_path, replace(SHORT, boot_timeout_s=3))
    assert "did not finish its first boot" in found.error
    assert "within 3 s; the last thing seen: " in found.error
    assert "--boot-timeout" in found.error
    assert any("loading nothing" in line for line in found.console)
    assert image.read_bytes() == before


def test_an_image_that_panics_ends_before_its_time(tmp_path: Path) -> None:
    image = boot_sector.write(
        tmp_path / "image.raw",
        "[    4.1] VFS: Cannot open root device\n"
        "[    4.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n",
    )
    found = validate(image, tmp_path, replace(SHORT, boot_timeout_s=600))
    assert "The guest's kernel panicked" in found.error
    assert "Unable to mount root fs" in found.error
    assert any("Cannot open root device" in line for line in found.console)
    skipped = {check.reason for check in found.checks if check.outcome == "skipped"}
    assert any("not ext4" in reason for reason in skipped)


def test_a_guest_without_ssh(tmp_path: Path) -> None:
    ready = {"ready": True, "user": "somebody", "host_keys": ["ssh-ed25519 AAAA"]}
    linux = tiny_linux.make(tmp_path / "linux", ready=json.dumps(ready))

    class Direct(Clone):
        """Boots the tiny Linux past firmware and disk."""

        def spec(self) -> MachineSpec:
            kernel = DirectKernel(kernel=linux.kernel, initrd=linux.initrd, cmdline="console=ttyS0")
            return replace(super().spec(), direct=kernel)

    found = validate(boot_sector.write(tmp_path / "image.raw"), tmp_path, clone=Direct)
    assert "took no SSH connection of somebody" in found.error
    assert found.console


# Guests that are this host's own shell: what happens once SSH answers


class Vm:
    """A machine that does as it should, unless it is to have failed."""

    def pause(self, seconds: float) -> None:
        """Nothing failed."""

    def poweroff(self, timeout_s: float, ask: Any) -> None:
        """Shut down without asking."""


class LocalClone:
    """Stands in for Clone: its guests are shells of this host."""

    machine_ids: ClassVar = {"one": "1" * 32, "two": "2" * 32}

    def __init__(self, subject: Any, settings: Settings, folder: Path, runner: Runner,
                 machines: Any, more_bytes: int = 0) -> None:  # fmt: skip
        self.folder, self.runner = folder, runner
        self.seed = SimpleNamespace(hostname="local")

    @contextlib.contextmanager
    def booted(self) -> Iterator[tuple[Vm, FirstBoot]]:
        name = self.folder.name
        yield Vm(), FirstBoot(user="me", machine_id=self.machine_ids[name], kernel_s=1, done_s=9,
                              host_keys=(f"ssh-ed25519 {name}",))  # fmt: skip

    @contextlib.contextmanager
    def rebooted(self, memory_mb: int) -> Iterator[Vm]:
        yield Vm()

    @contextlib.contextmanager
    def shell(self, vm: Vm, boot: FirstBoot, timeout_s: float) -> Iterator[Shell]:
        # Nothing that manages a system may be found there.
        path = self.folder.parent / "bin"
        path.mkdir(parents=True, exist_ok=True)
        for name in ("sh", "timeout", "cat", "date", "grep", "kill", "cut", "sleep", "true"):
            with contextlib.suppress(FileExistsError):
                (path / name).symlink_to(str(shutil.which(name)))
        with opened(("/usr/bin/env", "-i", f"PATH={path}", "sh"), self.runner) as shell:
            yield shell


def spec(name: str, command: str, **more: Any) -> Spec:
    return Spec(group="system", name=name, command=command, expected="as said", **more)


def ask(
    specs: list[Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[Validation, dict[str, Check]]:
    monkeypatch.setattr(validating, "load", lambda: tuple(specs))
    image = boot_sector.write(tmp_path / "image.raw")
    found = validate(image, tmp_path, **{"clone": LocalClone, **more})
    return found, {check.name: check for check in found.checks}


def test_a_failure_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, by_name = ask(
        [
            spec("fails", "echo broken >&2; false"),
            spec("does not end", "sleep 600", timeout_s=1),
            spec("passes", "echo fine", equals="fine"),
            spec("needs what is not there", "true", needs=("cloud-init",)),
            spec("needs a manifest", "true", manifest=True),
            spec("after the reboot", "echo back", equals="back", where="reboot"),
        ],
        tmp_path,
        monkeypatch,
    )
    assert (by_name["fails"].outcome, by_name["fails"].reason) == (
        "failed", "It ended with status 1: broken.")  # fmt: skip
    assert by_name["does not end"].reason == "It did not end within 1 s."
    assert by_name["passes"].outcome == by_name["after the reboot"].outcome == "passed"
    assert by_name["needs what is not there"].reason == "The image has no cloud-init."
    assert "no manifest" in by_name["needs a manifest"].reason
    assert by_name["two clones differ: machine-id"].outcome == "passed"
    assert found.error == ""
    assert not found.passed


def test_a_guest_that_answers_and_then_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shells, "GRACE_S", 0.5)
    monkeypatch.setattr(shells, "KILL_AFTER_S", 0)
    # The shell is the parent of timeout, which is the parent of the command's sh.
    stop = "kill -STOP $(cut -d ' ' -f 4 /proc/$PPID/stat); sleep 600"
    found, by_name = ask(
        [spec("before", "true"), spec("hangs", stop, timeout_s=1), spec("after", "true")],
        tmp_path,
        monkeypatch,
    )
    outcomes = [by_name[name].outcome for name in ("before", "hangs", "after")]
    assert outcomes == ["passed", "error", "error"]
    assert "does not answer any more" in by_name["after"].reason
    assert "does not answer any more" in found.error


def test_clones_that_are_the_same_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalClone, "machine_ids", {"one": "7" * 32, "two": "7" * 32})
    _, by_name = ask([spec("passes", "true")], tmp_path, monkeypatch)
    assert by_name["two clones differ: machine-id"].outcome == "failed"
    assert by_name["two clones differ: host keys"].outcome == "passed"


def test_a_second_clone_that_fails_costs_only_its_own_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unstable(LocalClone):
        @contextlib.contextmanager
        def rebooted(self, memory_mb: int) -> Iterator[Vm]:
            raise MachineFailed("The guest did not come back.")
            yield Vm()

    found, by_name = ask(
        [spec("passes", "true"), spec("back", "true", where="reboot"),
         spec("promised", "true", where="reboot", manifest=True)],
        tmp_path, monkeypatch, clone=Unstable,
    )  # fmt: skip
    assert by_name["passes"].outcome == "passed"
    assert by_name["back"].outcome == "error"
    assert by_name["back"].reason == "The guest did not come back."
    assert by_name["promised"].outcome == "skipped"
    assert by_name["two clones differ: machine-id"].outcome == "passed"
    assert found.error == ""


def test_an_image_that_something_writes_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image.raw"
    found, _ = ask([spec("writes", f"echo x >> {image}")], tmp_path, monkeypatch)
    assert "changed while it was validated" in found.error


def test_a_race_in_qemu_is_no_fault_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([MachineFailed("The guest's kernel ran into a bug.", tail=("Oops: int3: 0000",))])

    class Unlucky(LocalClone):
        @contextlib.contextmanager
        def booted(self) -> Iterator[tuple[Vm, FirstBoot]]:
            if self.folder.name == "one" and (fault := next(faults, None)):
                raise fault
            with super().booted() as found:
                yield found

    found, by_name = ask([spec("passes", "true")], tmp_path, monkeypatch, clone=Unlucky)
    assert by_name["passes"].outcome == "passed"
    assert found.error == ""
    assert len(by_name) == len(found.checks), "checks of the first try are left"


def test_quick_boots_one_guest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [spec("passes", "true"), spec("back", "true", where="reboot")]
    found, by_name = ask(specs, tmp_path, monkeypatch, settings=replace(SHORT, quick=True))
    reasons = {by_name[name].reason for name in ("back", "two clones differ: host keys")}
    assert reasons == {"Left out by --quick."}
    assert found.passed
