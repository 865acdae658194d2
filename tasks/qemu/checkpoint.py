"""Checkpoints: a machine's RAM and devices in a file beside its frozen disks, for many copies.

    with Machine(spec, …) as vm:
        save(vm, directory, …)
    …
    with Machine(thawed(saved, spec, …), …) as vm:
        go_on(saved, vm, …)

A copy writes into overlays of its own, so none changes the checkpoint. It is only ever a shortcut:
where it doesn't fit, the same disks boot cold (`thawed` with `cold`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.core.errors import MachineFailed, VerificationFailed, VmbakeError
from tasks.core.process import Runner
from tasks.qemu import disk as images
from tasks.qemu.gate import Traits, refusal, traits_of
from tasks.qemu.machine import UEFI_VARIABLES, Machine
from tasks.qemu.spec import PROGRAM, VARS_NODE, MachineSpec

RECORD = "checkpoint.json"
RAM = "ram.zst"
FORMAT = 1
READ_ONLY = 0o444
TIMEOUT_S = 600.0

DigestOf = Callable[[Path], str]


class CannotGoOn(MachineFailed):
    """A checkpoint can't be used here; its text is one line that says why."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A saved machine.

    Args:
        traits: what a machine that goes on from it must have in common with it.
        disks: block node to the name of its frozen file.
        digests: file name to SHA256.
    """

    directory: Path
    traits: Traits
    disks: Mapping[str, str]
    digests: Mapping[str, str]

    @property
    def ram(self) -> Path:
        return self.directory / RAM


def save(
    vm: Machine,
    directory: Path,
    runner: Runner,
    *,
    digest_of: DigestOf,
    timeout_s: float = TIMEOUT_S,
) -> Checkpoint:
    """Stop a machine, save its RAM, end QEMU, and move its disks into `directory`, read-only.

    The overlays must be as deep in the file system as `directory`'s files: their backing files
    are stored relative. The record is written last: without it there is no checkpoint.

    Raises:
        NoRoom: the disk is full.
        MachineFailed: QEMU could not save it, or did not end in order.
        TimedOut: it took longer than `timeout_s` seconds.
    """
    traits = traits_of(vm, runner, digest_of)
    saved = vm.migration.save(directory / RAM, timeout_s=timeout_s)
    runner.note(f"saved the machine's state: {saved}")
    vm.quit()
    disks, digests = {}, {RAM: saved.sha256}
    for node, path in writable_files(vm).items():
        frozen = directory / path.name
        shutil.move(path, frozen)
        disks[node], digests[frozen.name] = frozen.name, digest_of(frozen)
    for name in digests:
        (directory / name).chmod(READ_ONLY)
    made = Checkpoint(directory=directory, traits=traits, disks=disks, digests=digests)
    write_record(made)
    return made


def read(directory: Path) -> Checkpoint:
    """The checkpoint that `save` left.

    Raises:
        CannotGoOn: there is none, or none that this version knows.
    """
    try:
        record: dict[str, Any] = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise CannotGoOn(f"the checkpoint has the format {record['format']}, not {FORMAT}")
        return Checkpoint(
            directory=directory,
            traits=Traits.from_json(record["traits"]),
            disks=record["disks"],
            digests=record["digests"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotGoOn(f"the checkpoint's record can't be read ({error})") from error


def thawed(
    saved: Checkpoint, spec: MachineSpec, directory: Path, runner: Runner, *, cold: bool = False
) -> MachineSpec:
    """The machine with fresh overlays, made in `directory`, over the checkpoint's disks.

    Args:
        spec: the machine that was saved; only the paths of its writable disks are replaced.
        directory: the one that the machine runs in, if it has UEFI variables.
        cold: it is to boot from these disks, not to wait for the saved state.

    Raises:
        NoRoom: the disk is full.
        BadInput: a frozen disk is not usable.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = {node: directory / name for node, name in saved.disks.items()}
    for node, path in paths.items():
        path.unlink(missing_ok=True)
        backing = saved.directory / saved.disks[node]
        images.create_overlay(runner, path, backing=backing, backing_format="qcow2")
    disks = tuple(
        replace(disk, path=paths[disk.id]) if disk.id in paths else disk for disk in spec.disks
    )
    return replace(spec, disks=disks, incoming=not cold)


def go_on(
    saved: Checkpoint,
    vm: Machine,
    runner: Runner,
    *,
    digest_of: DigestOf,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Have a machine of `thawed` go on from where it was saved, if it fits and is undamaged.

    Raises:
        CannotGoOn: it doesn't, and the machine has ended.
    """
    try:
        here = traits_of(vm, runner, digest_of)
        why = refusal(saved.traits, here) or damage(saved, digest_of)
        if not why:
            vm.migration.load(saved.ram, timeout_s=timeout_s)
            return
    except VmbakeError as error:
        said = (line.partition(f"{PROGRAM}: ")[2] for line in error.tail)
        why = ": ".join((error.what.rstrip("."), *filter(None, said)))
        vm.abandon()
        raise CannotGoOn(why, log=error.log) from error
    vm.abandon()
    raise CannotGoOn(why)


def damage(saved: Checkpoint, digest_of: DigestOf) -> str:
    """Which file of a checkpoint is not what it was; "" if all are."""
    for name, sha256 in saved.digests.items():
        try:
            found = digest_of(saved.directory / name)
        except OSError as error:
            return f"{name} of the checkpoint can't be read ({error.strerror})"
        if found != sha256:
            return f"{name} of the checkpoint was changed (SHA256 {found[:12]}, not {sha256[:12]})"
    return ""


def require_disks(saved: Checkpoint, digest_of: DigestOf) -> None:
    """Check the frozen disks, for a machine that boots from them.

    Raises:
        VerificationFailed: one was changed.
    """
    disks = {name: saved.digests[name] for name in saved.disks.values()}
    if why := damage(replace(saved, digests=disks), digest_of):
        raise VerificationFailed(f"{why[0].upper()}{why[1:]}.", hint="Make the checkpoint anew.")


def writable_files(vm: Machine) -> dict[str, Path]:
    """The files of all that the machine can write, by block node."""
    files = {disk.id: disk.path for disk in vm.spec.disks if not disk.read_only}
    if vm.spec.firmware == "uefi":
        files[VARS_NODE] = vm.directory / UEFI_VARIABLES
    return files


def write_record(made: Checkpoint) -> None:
    """Write what `read` reads, whole or not at all."""
    record = {
        "format": FORMAT,
        "traits": made.traits.to_json(),
        "disks": made.disks,
        "digests": made.digests,
    }
    target = made.directory / RECORD
    aside = target.with_name(f"{RECORD}.part")
    aside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    aside.replace(target)
