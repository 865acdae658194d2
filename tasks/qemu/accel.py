"""Which accelerator machines run under: tried with a real guest, once per boot of the host.

KVM is taken if a guest gets through under it in time, else TCG, and the reason is always told.
There is no rung for macOS's hvf, because nobody has tried one; guests run under TCG there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal, Self, assert_never

from tasks.core.errors import CannotRun, MachineFailed
from tasks.core.process import Runner
from tasks.core.tools import require_tool
from tasks.qemu.kvm import KvmHost, Obstacle
from tasks.qemu.probe import BOOT_SECTOR, QEMU, STEPS, Attempt, Verdict, try_guest

Name = Literal["kvm", "tcg"]
Wanted = Literal["auto", "kvm", "tcg"]

TCG = "tcg,thread=multi"
# Everything that TCG can do, but not what it does slowly: a guest that is told of fast string
# moves (ERMS, FSRM) uses `rep movsb`, which TCG takes byte by byte, and five levels of page tables
# (LA57) make each TLB miss longer. Measured on QEMU 7.2, boot and compile on a Debian kernel:
# 23 s of processor time against 29 s with plain max. Named models like EPYC are as quick, but
# QEMU warns of each feature in them that TCG lacks.
TCG_CPU = "max,-erms,-fsrm,la57=off"
TCG_LIMIT_S = 30.0
# KVM is for speed: a guest that needs several times what TCG takes for the same work is as good
# as hung (a KVM without hardware below it interprets the guest). The floor allows for firmware
# in nested guests, where each exit costs tens of microseconds.
KVM_FLOOR_S = 3.0
KVM_TIMES_TCG = 4.0


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A processor model to try under KVM, and the failures of the rungs before that it cures."""

    cpu: str
    cures: frozenset[Verdict]


# All features of the host; without the MSR that nested hosts refuse to set (QEMU bug: it aborts
# instead of leaving the feature out); a plain old model that both vendors' processors can be.
LADDER = (
    Rung(cpu="host", cures=frozenset()),
    Rung(cpu="host,-arch-capabilities", cures=frozenset({Verdict.ABORTS})),
    Rung(cpu="Nehalem", cures=frozenset({Verdict.ABORTS, Verdict.CRASHES, Verdict.STALLS})),
)


@dataclass(frozen=True, kw_only=True)
class Accel:
    """The accelerator of a machine, and why this one and not a better one."""

    name: Name
    cpu: str
    reason: str

    def qemu_args(self) -> tuple[str, ...]:
        """The words of QEMU's command line."""
        return ("-accel", "kvm" if self.name == "kvm" else TCG, "-cpu", self.cpu)

    def __str__(self) -> str:
        return f"accel {self.name}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was tried on this host, and what came of it.

    Args:
        attempts: every guest that was started; the first ran under TCG.
        kvm: what KVM is worth here.
        finding: one sentence on KVM, without the full stop.
        fix: commands or settings that would make KVM work, "" if it works.
    """

    attempts: tuple[Attempt, ...]
    kvm: Verdict
    finding: str
    fix: str

    @property
    def best(self) -> Accel:
        """The fastest accelerator that ran a guest."""
        if self.kvm is Verdict.WORKS:
            return Accel(name="kvm", cpu=self.attempts[-1].cpu, reason=self.finding)
        return Accel(name="tcg", cpu=TCG_CPU, reason=self.finding)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Undo to_json.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        attempts = tuple(
            Attempt(**{**attempt, "verdict": Verdict(attempt["verdict"])})
            for attempt in data["attempts"]
        )
        return cls(**{**data, "attempts": attempts, "kvm": Verdict(data["kvm"])})


def choose(wanted: Wanted, runner: Runner, cache_dir: Path, host: KvmHost | None = None) -> Accel:
    """The accelerator for machines: `auto` takes the best one that runs a guest.

    Args:
        cache_dir: where the finding is kept until the host boots again.

    Raises:
        CannotRun: kvm is wanted and does not work here.
        MissingTool: QEMU is not installed.
        MachineFailed: QEMU does not even run a guest under TCG.
    """
    match wanted:
        case "tcg":
            return Accel(name="tcg", cpu=TCG_CPU, reason="asked for")
        case "auto":
            return survey(runner, cache_dir, host).best
        case "kvm":
            found = survey(runner, cache_dir, host)
            if found.kvm is Verdict.WORKS:
                return found.best
            raise CannotRun(
                f"The accelerator kvm does not work on this machine: {found.finding}.",
                hint=f"{found.fix}\nOr go without it, slower: --accel tcg.",
                log=runner.log,
            )
        case _:
            assert_never(wanted)


def survey(
    runner: Runner, cache_dir: Path, host: KvmHost | None = None, *, again: bool = False
) -> Survey:
    """Try the accelerators, or recall what came of it since the host booted.

    Args:
        again: try, whatever is known.

    Raises:
        MissingTool: QEMU is not installed.
        MachineFailed: QEMU does not even run a guest under TCG.
    """
    host = host or KvmHost()
    key = memo_key(require_tool(QEMU), host)
    memo = cache_dir / "accel.json"
    known = None if again else recall(memo, key)
    if known is not None:
        return known
    found = probe(runner, host)
    # Another hypervisor may end any minute; everything else holds until the key changes.
    if found.kvm is not Verdict.BUSY:
        try:
            remember(memo, key, found)
        except OSError as error:
            runner.note(f"the accelerator's finding is not kept: {error}")
    return found


def probe(runner: Runner, host: KvmHost) -> Survey:
    """Try TCG, then KVM down the ladder.

    Raises:
        MissingTool: QEMU is not installed.
        MachineFailed: QEMU does not even run a guest under TCG.
    """
    measure = try_guest(runner, TCG, TCG_CPU, limit_s=TCG_LIMIT_S)
    if measure.verdict is not Verdict.WORKS:
        raise MachineFailed(
            f"{QEMU} cannot run the smallest guest even under TCG: {measure.verdict} after "
            f"{measure.duration_s} s, having reached {measure.reached}. {measure.said}".rstrip(),
            hint="Reinstall QEMU and its firmware: scripts/bootstrap does it.",
            log=runner.log,
        )
    if (foreign := host.foreign()) is not None:
        return surveyed([measure], Verdict.UNSUPPORTED, foreign)
    if not host.device.exists():
        return surveyed([measure], Verdict.ABSENT, host.absence())
    # Of a KVM that is known to interpret its guests, no model and no patience makes another one.
    hopeless = host.interprets()
    limit_s = max(KVM_FLOOR_S, KVM_TIMES_TCG * measure.duration_s)
    if hopeless:
        limit_s = measure.duration_s
    attempts = [measure]
    for rung in LADDER:
        if hopeless and attempts[-1].verdict is Verdict.STALLS:
            break
        if len(attempts) == 1 or cures(rung, attempts[-1]):
            attempts.append(try_guest(runner, "kvm", rung.cpu, limit_s=limit_s))
    return surveyed(attempts, attempts[-1].verdict, explained(attempts, host))


def cures(rung: Rung, failed: Attempt) -> bool:
    """Whether the rung's processor model may do better than the one that failed."""
    if failed.verdict is Verdict.STALLS and failed.reached == STEPS[""]:
        return False  # the firmware uses nothing that a model adds or takes away
    return failed.verdict in rung.cures


def surveyed(attempts: list[Attempt], kvm: Verdict, obstacle: Obstacle) -> Survey:
    """The survey of these attempts."""
    return Survey(attempts=tuple(attempts), kvm=kvm, finding=obstacle.finding, fix=obstacle.fix)


def explained(attempts: list[Attempt], host: KvmHost) -> Obstacle:
    """What the guests that ran say about KVM, in words."""
    measure, first, last = attempts[0], attempts[1], attempts[-1]
    match last.verdict:
        case Verdict.WORKS:
            also = "" if last is first else f" (not with -cpu {first.cpu}: {first.said})"
            finding = f"a guest ran under it in {last.duration_s} s with -cpu {last.cpu}{also}"
            return Obstacle(finding=finding, fix="")
        case Verdict.ABSENT:
            # There is a device file, and nothing behind it: its module was removed.
            return host.absence()
        case Verdict.FORBIDDEN:
            return host.prohibition()
        case Verdict.BUSY:
            return Obstacle(
                finding="/dev/kvm opens, but another hypervisor holds the processor",
                fix="Stop the other hypervisor (VirtualBox, VMware) and its machines.",
            )
        case Verdict.UNSUPPORTED:
            return Obstacle(
                finding=f"this QEMU has no KVM: {last.said}",
                fix="Install the distribution's QEMU: scripts/bootstrap does it.",
            )
        case Verdict.ABORTS:
            what = f"QEMU ends at once: {last.said or 'without a word'}"
        case Verdict.CRASHES:
            what = f"a guest resets under it, having reached {last.reached}"
        case Verdict.STALLS:
            what = (
                f"a guest doesn't run under it: in {last.duration_s} s it reached {last.reached}, "
                f"where TCG needs {measure.duration_s} s for the whole"
            )
        case _:
            assert_never(last.verdict)
    if host.interprets():
        what += "; its module kvm_pvm interprets every instruction of a guest not built for it"
    return Obstacle(
        finding=f"/dev/kvm opens, but {what}",
        fix="Use a machine with virtualization in hardware, or switch nested virtualization on.",
    )


def memo_key(qemu: Path, host: KvmHost) -> dict[str, Any]:
    """Everything that a finding depends on; what it names may be compared, not recomputed."""
    program = qemu.resolve()
    seen = program.stat()
    # Sets print in another order in each process.
    ladder = [(rung.cpu, sorted(rung.cures)) for rung in LADDER]
    trials = f"{BOOT_SECTOR.hex()} {ladder} {TCG} {TCG_CPU} {KVM_FLOOR_S} {KVM_TIMES_TCG}"
    return {
        # A new version of QEMU is a new file: asking it for its version would cost more.
        "qemu": [str(program), seen.st_size, seen.st_mtime_ns],
        "trials": hashlib.sha256(trials.encode()).hexdigest(),
        **host.identity(),
    }


def recall(memo: Path, key: dict[str, Any]) -> Survey | None:
    """The survey that was kept under this key; None if there is none that can be read."""
    if not key["boot"]:
        return None  # nothing would ever end its validity
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(memo.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return Survey.from_json(kept["survey"])
    return None


def remember(memo: Path, key: dict[str, Any], found: Survey) -> None:
    """Keep the survey, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    memo.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"key": key, "survey": found.to_json()}, indent=1)
    with NamedTemporaryFile("w", encoding="utf-8", dir=memo.parent, delete=False) as aside:
        try:
            aside.write(text)
            aside.flush()
            Path(aside.name).replace(memo)
        except BaseException:
            Path(aside.name).unlink()
            raise
