"""The validation of one image, from the file to its record; whatever happens, there is a record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.artifacts.checks import Check, Mark, Validation
from tasks.core.digest import sha256_of
from tasks.core.errors import MachineFailed, VerificationFailed, VmbakeError
from tasks.core.events import Reporter
from tasks.core.process import Runner
from tasks.guest.shell import Shell
from tasks.qemu.diagnosis import is_tcg_fault
from tasks.qemu.watch import clean
from tasks.validate import pending, promises, sealed, wholes
from tasks.validate.catalogue import GROUPS, Spec, load
from tasks.validate.checking import GuestChecks, check_disk, check_of, unanswered
from tasks.validate.clone import Clone, FirstBoot, Machines, Settings, power_off
from tasks.validate.facts import before_boot, of_guest
from tasks.validate.subject import Subject, examine, locate, name_of

# What the first clone's disk is larger than the image, so that it has room to grow into.
MORE_BYTES = 1 << 30
SMALL_MEMORY_MB = 512
# How often guests are booted that a bug of QEMU lets down.
TRIES = 3
MACHINES = ("one/first", "two/first", "two/again")
CONSOLE_LINES = 60
SETTLE_S = 300.0
# Waits until the boot is over, cloud-init included; how it went is asked elsewhere.
SETTLED = (
    "if command -v systemctl; then systemctl is-system-running --wait; "
    "else cloud-init status --wait; fi"
)


@dataclass(kw_only=True)
class Notes:
    """What has been found out so far, by several threads."""

    heard: Callable[[Check], None]
    checks: list[Check] = field(default_factory=list)
    marks: tuple[Mark, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, check: Check) -> None:
        """Keep the record of a check."""
        with self._lock:
            self.checks.append(check)
        self.heard(check)

    def sorted(self) -> tuple[Check, ...]:
        """The records by group."""
        return tuple(sorted(self.checks, key=lambda check: GROUPS.index(check.group)))


class Validating:
    """One image.

    Args:
        work: an empty folder for everything that is thrown away.
        heard: told each check as soon as it is made.
        clone: what makes the copies; another one for tests.
        downloads: where fetched images are kept.
    """

    def __init__(
        self,
        given: str,
        settings: Settings,
        *,
        work: Path,
        downloads: Path,
        runner: Runner,
        reporter: Reporter,
        heard: Callable[[Check], None],
        clone: type[Clone] = Clone,
    ) -> None:
        self.given = given
        self.name = name_of(given)
        self.settings = settings
        self._machines = Machines()
        self._aborted = False
        # The consoles of the guests, in the order in which they began.
        self.console_logs: tuple[Path, ...] = ()
        self._work = work
        self._downloads = downloads
        self._runner = runner
        self._reporter = reporter
        self._notes = Notes(heard=heard)
        self._kind = clone

    def perform(self) -> Validation:
        """Validate the image. What goes wrong becomes part of the record."""
        started, since = datetime.now(UTC), time.monotonic()
        subject, error = None, ""
        try:
            path = locate(self.given, self._downloads, self._reporter)
            subject = examine(path, self._work, self._runner, self._reporter)
            self._examine(subject)
            self._require_untouched(subject)
        except VmbakeError as failure:
            error = explained(failure)
        return Validation(
            image=self.name,
            sha256=subject.sha256 if subject else "",
            size_bytes=subject.size_bytes if subject else 0,
            variant=subject.variant if subject else "",
            version=subject.version if subject else "",
            accel=self.settings.accel.name,
            firmware=self.settings.firmware,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - since, 1),
            checks=self._notes.sorted(),
            boot=self._notes.marks,
            console=tail(self.console_logs[:1]),
            error=error,
        )

    def abort(self) -> None:
        """End its machines, from another thread; `perform` then returns soon."""
        self._aborted = True
        self._machines.end_all()

    def _examine(self, subject: Subject) -> None:
        specs = (*load(), *promises.promised(subject))
        self._look_into(subject, specs)
        for attempt in range(1, TRIES + 1):
            found = list(self._notes.checks)
            try:
                self._boot_and_ask(subject, specs, self._work / f"try{attempt}")
            except MachineFailed as error:
                if attempt == TRIES or not is_tcg_fault(error, self.settings.accel.name):
                    raise
                self._reporter.tell("a guest tripped over a bug of QEMU's TCG; starting again")
                self._notes.checks = found
                self._machines = Machines()
                if self._aborted:
                    raise
            else:
                return

    def _look_into(self, subject: Subject, specs: tuple[Spec, ...]) -> None:
        """All that can be found out without a boot."""
        self._notes.add(wholes.bytes_are_the_manifests(subject))
        self._reporter.say("looking into the disk")
        disk = sealed.look_into(subject.disk, subject.format, self._work, self._runner)
        if isinstance(disk, sealed.SealedDisk):
            sealed.require_runnable(disk)
        facts = before_boot(subject)
        on_disk = [spec for spec in specs if spec.where == "disk"]
        check_disk(on_disk, disk, facts, self._notes.add)
        if reason := facts.reason_to_skip(pending.SPEC):
            self._notes.add(check_of(pending.SPEC, "skipped", reason=reason))
        else:
            self._reporter.say("comparing with the security archive")
            self._notes.add(pending.check(disk, self._work, self._runner))
        (self._work / "disk.raw").unlink()

    def _boot_and_ask(self, subject: Subject, specs: tuple[Spec, ...], folder: Path) -> None:
        self.console_logs = tuple(folder / name / "console.log" for name in MACHINES)
        one = self._clone(subject, folder / "one", more_bytes=MORE_BYTES)
        if self.settings.quick:
            self._first(subject, one, specs)
            self._skip_second(specs)
            return
        two = self._clone(subject, folder / "two")
        # The second clone boots beside the first, and again while the first is asked.
        with ThreadPoolExecutor(1, thread_name_prefix=self.name) as pool:
            second = pool.submit(self._second, subject, two, specs)
            try:
                first_boot = self._first(subject, one, specs)
            except BaseException:
                self._machines.end_all()
                raise
            other, lost = second.result()
        if lost is not None:
            self._note_unanswered(subject, specs, lost)
        self._compare(first_boot, other, lost)

    def _skip_second(self, specs: tuple[Spec, ...]) -> None:
        """Note what a single boot can't tell."""
        for spec in (*(spec for spec in specs if spec.where == "reboot"), *wholes.TWO_CLONES):
            self._notes.add(check_of(spec, "skipped", reason="Left out by --quick."))

    def _clone(self, subject: Subject, folder: Path, more_bytes: int = 0) -> Clone:
        return self._kind(subject, self.settings, folder, self._runner, self._machines,
                          more_bytes=more_bytes)  # fmt: skip

    def _first(self, subject: Subject, clone: Clone, specs: tuple[Spec, ...]) -> FirstBoot:
        """Boot the first clone and ask it everything."""
        self._reporter.say("booting")
        with clone.booted() as (vm, boot):
            since = time.monotonic()
            with clone.shell(vm, boot, self.settings.ssh_timeout_s) as shell:
                ssh_s = boot.done_s + time.monotonic() - since
                self._notes.marks = wholes.marks(boot, shell)
                for check in wholes.boot_checks(
                    self._notes.marks, ssh_s, self.settings.boot_timeout_s
                ):
                    self._notes.add(check)
                self._reporter.say("asking")
                self._notes.add(wholes.clock(shell))
                size = subject.virtual_bytes + MORE_BYTES
                self._ask(subject, clone, shell, specs, "guest", size)
        return boot

    def _second(
        self, subject: Subject, clone: Clone, specs: tuple[Spec, ...]
    ) -> tuple[FirstBoot | None, VmbakeError | None]:
        """Boot the second clone twice; what went wrong counts for what only it could tell."""
        boot = None
        try:
            with (
                clone.booted() as (vm, boot),
                clone.shell(vm, boot, self.settings.ssh_timeout_s) as shell,
            ):
                shell.run(SETTLED, timeout_s=SETTLE_S)
                power_off(vm, shell)
            limit_s = self.settings.boot_timeout_s + self.settings.ssh_timeout_s
            with clone.rebooted(SMALL_MEMORY_MB) as vm, clone.shell(vm, boot, limit_s) as shell:
                shell.run(SETTLED, timeout_s=SETTLE_S)
                self._ask(subject, clone, shell, specs, "reboot", subject.virtual_bytes)
        except VmbakeError as error:
            if isinstance(error, MachineFailed) and is_tcg_fault(error, self.settings.accel.name):
                raise
            return boot, error
        return boot, None

    def _note_unanswered(
        self, subject: Subject, specs: tuple[Spec, ...], error: VmbakeError
    ) -> None:
        """Note the checks after the reboot that were not made."""
        known = {(check.group, check.name) for check in self._notes.checks}
        facts = before_boot(subject)
        for spec in specs:
            if spec.where != "reboot" or (spec.group, spec.name) in known:
                continue
            if spec.manifest and (reason := facts.reason_to_skip(spec)):
                self._notes.add(check_of(spec, "skipped", reason=reason))
            else:
                self._notes.add(unanswered(spec, error))

    def _ask(
        self,
        subject: Subject,
        clone: Clone,
        shell: Shell,
        specs: tuple[Spec, ...],
        where: str,
        disk_bytes: int,
    ) -> None:
        """Ask a guest all that is to be asked there.

        Raises:
            MachineFailed, TimedOut, CommandFailed: it did not answer to the end.
        """
        programs = frozenset(name for spec in specs for name in spec.needs)
        facts = of_guest(
            subject,
            shell,
            programs,
            firmware=self.settings.firmware,
            hostname=clone.seed.hostname,
            disk_bytes=disk_bytes,
        )
        checks = GuestChecks(shell, facts, self._notes.add)
        checks.run(spec for spec in specs if spec.where == where)
        if checks.lost is not None:
            raise checks.lost

    def _compare(self, one: FirstBoot, other: FirstBoot | None, lost: VmbakeError | None) -> None:
        if other is not None:
            for check in wholes.clones_differ(one, other):
                self._notes.add(check)
        elif lost is not None:
            for spec in wholes.TWO_CLONES:
                self._notes.add(unanswered(spec, lost))

    def _require_untouched(self, subject: Subject) -> None:
        """Check that nothing has written to the artifact.

        Raises:
            VerificationFailed: its bytes are others than before.
        """
        self._reporter.say("comparing digests")
        if sha256_of(subject.path) != subject.sha256:
            raise VerificationFailed(
                f"{subject.path} changed while it was validated, so nothing here holds for it.",
                hint="Something else has written to it; the validation itself only reads it.",
            )


def tail(consoles: tuple[Path, ...]) -> tuple[str, ...]:
    """The last lines of consoles, without control sequences."""
    found = (console for console in consoles if console.is_file())
    lines = [clean(line) for console in found for line in console.read_bytes().splitlines()]
    return tuple(line for line in lines if line.strip())[-CONSOLE_LINES:]


def explained(error: VmbakeError) -> str:
    """An error as a record has it: what, the way out; the console is elsewhere in the record."""
    return f"{error.what} {error.hint}".strip()
