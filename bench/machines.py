"""A machine that can be used: restored from a checkpoint against booted, the same image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench.commands import ROOT
from bench.measure import Comparison, Finding, seconds_of
from tasks.core.digest import Digests
from tasks.core.process import Runner
from tasks.qemu import accel, checkpoint, disk
from tasks.qemu.machine import Machine
from tasks.qemu.spec import MachineSpec
from tasks.vexfs import seed, shell

WHAT = "a machine takes commands"
MEMORY_MB, CPUS = 2048, 2


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How often.

    Args:
        boots: a boot takes a minute under TCG; each is a first one, as the boots of others are.
        boot_s: seconds after which a boot has failed.
    """

    boots: int
    boot_s: float
    restores: int


def measured(image: Path, work: Path, runner: Runner, rounds: Rounds) -> Iterator[Finding]:
    """Boot an image until SSH answers, freeze it, and restore it."""
    chosen = accel.choose("auto", runner, ROOT / ".vmbake" / "cache")
    bench = Bench(work / "machines", runner, image, chosen, rounds.boot_s)
    booted = tuple(bench.boot(number) for number in range(rounds.boots))
    bench.freeze()
    bench.restore()  # not counted: it fills the page cache
    yield Comparison(
        what=WHAT,
        ours="restored checkpoint",
        theirs="cold boot",
        our_seconds=tuple(seconds_of(bench.restore) for _ in range(rounds.restores)),
        their_seconds=booted,
        sizes={"RAM, compressed": bench.saved.ram.stat().st_size},
        goal=1 / 12,
        note=f"until the first command over SSH has run; {image.name}, {CPUS} cores, {chosen}",
    )


class Bench:
    """One image, its keys and seed, and its checkpoint."""

    def __init__(
        self, folder: Path, runner: Runner, image: Path, chosen: accel.Accel, boot_s: float
    ) -> None:
        self.folder = folder
        self.boot_s = boot_s
        self.runner = runner
        self.image = image
        self.frozen = folder / "frozen"
        # As deep as the checkpoint: overlays name their backing files relative to themselves.
        self.work = folder / "work"
        for each in (self.frozen, self.work):
            each.mkdir(parents=True)
        seed.make_keys(self.frozen, runner)
        shell.write_seed(self.frozen)
        size = shell.Size(accel=chosen, memory_mb=MEMORY_MB, cpus=CPUS)
        self.spec = shell.spec_of(self.work / "machine.qcow2", self.frozen / shell.SEED, size)
        self.digests = Digests(folder / "digests.json")
        self.saved: checkpoint.Checkpoint

    def boot(self, number: int) -> float:
        """Seconds of a first boot, from a fresh overlay to a command that has run."""
        root = self.work / f"boot{number}.qcow2"
        disk.create_overlay(self.runner, root, backing=self.image, backing_format="qcow2")
        return seconds_of(lambda: self.use(self.with_root(root)))

    def freeze(self) -> None:
        """Boot once more, and make the checkpoint."""
        root = self.spec.disks[0].path
        disk.create_overlay(self.runner, root, backing=self.image, backing_format="qcow2")
        with Machine(self.spec, self.folder / "vm", self.runner) as vm:
            with shell.way_in(vm, self.frozen, self.runner) as ssh:
                ssh.wait(self.boot_s)
                ssh.run(shell.SETTLE, what="The first boot", timeout_s=self.boot_s)
            self.saved = checkpoint.save(vm, self.frozen, self.runner, digest_of=self.digests.of)

    def restore(self) -> None:
        """Have a copy go on until a command has run in it."""
        self.use(checkpoint.thawed(self.saved, self.spec, self.folder / "copy", self.runner))

    def with_root(self, root: Path) -> MachineSpec:
        """The machine with another disk."""
        first, *others = self.spec.disks
        return replace(self.spec, disks=(replace(first, path=root), *others))

    def use(self, spec: MachineSpec) -> None:
        """Start a machine and run a command in it."""
        with ExitStack() as stack:
            vm = stack.enter_context(Machine(spec, self.folder / "vm", self.runner))
            if spec.incoming:
                checkpoint.go_on(self.saved, vm, self.runner, digest_of=self.digests.of)
            ssh = stack.enter_context(shell.way_in(vm, self.frozen, self.runner))
            ssh.wait(self.boot_s)
            ssh.run("true", what="The first command")
