"""Saving and going on, against a fake QEMU: the protocol, and every way in which it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.digest import sha256_of
from tasks.core.errors import MachineFailed, NoRoom, VerificationFailed, VmbakeError
from tasks.qemu import checkpoint
from tasks.qemu import disk as images
from tasks.qemu.checkpoint import CannotGoOn, Checkpoint, go_on, read, require_disks, save, thawed
from tasks.qemu.firmware import BIOS
from tasks.qemu.machine import Machine
from tests.standins import fake_machine, fake_qemu
from tests.standins.processes import alive

Start = Callable[..., Machine]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / BIOS).write_bytes(b"firmware")
    (tmp_path / "out").mkdir()
    (tmp_path / "root.qcow2").write_bytes(b"what the guest wrote")
    return fake_machine.maker(tmp_path, monkeypatch)


def saved_by(start: Start, tmp_path: Path) -> Checkpoint:
    with start("ready") as vm:
        return save(vm, tmp_path / "out", runner(tmp_path), digest_of=sha256_of)


def runner(tmp_path: Path) -> Any:
    return fake_machine.runner(tmp_path, "ready")


def test_what_was_saved_is_read_again(start: Start, tmp_path: Path) -> None:
    made = saved_by(start, tmp_path)
    assert read(tmp_path / "out") == made
    assert sorted(path.name for path in made.directory.iterdir()) == [
        "checkpoint.json",
        "ram.zst",
        "root.qcow2",
    ]
    assert made.ram.stat().st_mode & 0o222 == 0
    assert not (tmp_path / "root.qcow2").exists()
    assert (made.traits.qemu, made.traits.machine_type) == ("7.2.0 (fake)", "pc-q35-7.2")
    assert made.traits.cpu_features == {"avx": True, "erms": False}
    require_disks(made, sha256_of)


def test_a_copy_gets_the_very_bytes(start: Start, tmp_path: Path) -> None:
    made = saved_by(start, tmp_path)
    with start("ready", incoming=True) as vm:
        # The fake ends by an error if the state is not the one that it wrote.
        go_on(made, vm, runner(tmp_path), digest_of=sha256_of)
        assert alive(vm.process.pid)
    argv = json.loads((tmp_path / "argv.json").read_text())
    assert argv[argv.index("-incoming") + 1] == "defer"
    assert made.ram.stat().st_size < len(fake_qemu.STATE) * 1.1


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("migration-fails", "could not save the machine's state: a device can't be saved"),
        ("migration-refused", "refused migrate: State blocked by 9p"),
        ("dies-saving", r"QEMU ended \(killed by SIGKILL\)"),
    ],
)
def test_a_failed_save_leaves_no_checkpoint(
    start: Start, tmp_path: Path, behaviour: str, why: str
) -> None:
    with pytest.raises(MachineFailed, match=why), start(behaviour) as vm:
        save(vm, tmp_path / "out", runner(tmp_path), digest_of=sha256_of)
    assert list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "root.qcow2").exists()


def test_a_full_disk_is_told_as_such(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = Path.open

    def open_full(self: Path, *args: Any, **words: Any) -> Any:
        if self.name == checkpoint.RAM:
            return open_file(Path("/dev/full"), "wb")
        return open_file(self, *args, **words)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(NoRoom, match=r"filled up while .*ram\.zst"), start("ready") as vm:
        save(vm, tmp_path / "out", runner(tmp_path), digest_of=sha256_of)
    assert list((tmp_path / "out").iterdir()) == []


def test_another_machine_is_refused_and_ended(start: Start, tmp_path: Path) -> None:
    made = saved_by(start, tmp_path)
    with start("ready", incoming=True, memory_mb=128, keep=True) as vm:
        with pytest.raises(CannotGoOn, match=r"^memory mb was 64 and is 128$"):
            go_on(made, vm, runner(tmp_path), digest_of=sha256_of)
        assert not alive(vm.process.pid)
    assert vm.kept is None


def test_other_firmware_is_refused(start: Start, tmp_path: Path) -> None:
    made = saved_by(start, tmp_path)
    (tmp_path / "data" / BIOS).write_bytes(b"newer firmware")
    with start("ready", incoming=True) as vm, pytest.raises(CannotGoOn, match=r"^firmware was "):
        go_on(made, vm, runner(tmp_path), digest_of=sha256_of)


def test_a_state_that_qemu_does_not_take_is_told_in_its_words(start: Start, tmp_path: Path) -> None:
    made = saved_by(start, tmp_path)
    with start("refuses-state", incoming=True) as vm, pytest.raises(CannotGoOn) as caught:
        go_on(made, vm, runner(tmp_path), digest_of=sha256_of)
    assert caught.value.what.endswith(": load of migration failed: Invalid argument")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda data: data[:-100], r"is not complete|Invalid argument"),
        (lambda data: data[:5000] + bytes(100) + data[5100:], r"is damaged"),
        (lambda data: b"", r"is not complete|Invalid argument"),
    ],
)
def test_what_the_digests_would_have_found_is_found_while_loading(
    start: Start, tmp_path: Path, harm: Callable[[bytes], bytes], why: str
) -> None:
    made = saved_by(start, tmp_path)
    content = made.ram.read_bytes()
    made.ram.unlink()
    made.ram.write_bytes(harm(content))
    with start("ready", incoming=True) as vm, pytest.raises(VmbakeError, match=why) as caught:
        vm.migration.load(made.ram, timeout_s=30)
    assert isinstance(caught.value, VerificationFailed)


@pytest.mark.parametrize("name", ["ram.zst", "root.qcow2"])
def test_a_changed_file_is_named(start: Start, tmp_path: Path, name: str) -> None:
    made = saved_by(start, tmp_path)
    (made.directory / name).chmod(0o644)
    with (made.directory / name).open("ab") as stream:
        stream.write(b"more")
    with (
        start("ready", incoming=True) as vm,
        pytest.raises(CannotGoOn, match=f"^{name} of the checkpoint was changed"),
    ):
        go_on(made, vm, runner(tmp_path), digest_of=sha256_of)


def test_a_changed_disk_boots_nothing(start: Start, tmp_path: Path) -> None:
    made = saved_by(start, tmp_path)
    lost = replace(made, digests={**made.digests, "root.qcow2": "0" * 64})
    with pytest.raises(VerificationFailed, match=r"^Root\.qcow2 of the checkpoint was changed"):
        require_disks(lost, sha256_of)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2}', '{"format": 1, "traits": {}}', "[]"])
def test_a_record_that_is_none_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    (tmp_path / checkpoint.RECORD).write_text(text)
    with pytest.raises(CannotGoOn, match="checkpoint"):
        read(tmp_path)
    with pytest.raises(CannotGoOn, match="can't be read"):
        read(tmp_path / "nowhere")


def test_copies_write_elsewhere(start: Start, tmp_path: Path) -> None:
    made = saved_by(start, tmp_path)
    disk = tmp_path / "empty.qcow2"
    plain = runner(tmp_path)
    images.create(plain, disk, size_bytes=1 << 20)
    made.directory.joinpath("root.qcow2").unlink()
    disk.rename(made.directory / "root.qcow2")
    vm = start("ready")
    specs = [thawed(made, vm.spec, tmp_path / name, plain) for name in ("one", "two")]
    assert [spec.disks[0].path for spec in specs] == [
        tmp_path / "one" / "root.qcow2",
        tmp_path / "two" / "root.qcow2",
    ]
    assert all(spec.incoming for spec in specs)
    cold = thawed(made, vm.spec, tmp_path / "three", plain, cold=True)
    assert not cold.incoming
