"""A running machine: `with Machine(spec, …) as vm:` starts QEMU, and its end ends QEMU."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tasks.core.errors import MachineFailed, TimedOut, VmbakeError
from tasks.core.events import Reporter, Silent
from tasks.core.process import Process, Runner, describe_status
from tasks.qemu import disk as images
from tasks.qemu.channels import following, socket_pairs
from tasks.qemu.diagnosis import explain_start, last_words
from tasks.qemu.firmware import require_uefi
from tasks.qemu.migration import Migration
from tasks.qemu.qmp import Qmp
from tasks.qemu.snapshot import Snapshots
from tasks.qemu.spec import (
    SSH_IN_GUEST,
    Disk,
    DiskFormat,
    Flash,
    MachineSpec,
    Wiring,
    command_line,
    escape,
)
from tasks.qemu.watch import Announcement, Trouble, Watch

UEFI_VARIABLES = "uefi-vars.qcow2"
START_TIMEOUT_S = 60.0
QUIT_TIMEOUT_S = 5.0
# After the guest's power-off QEMU still writes its caches.
EXIT_TIMEOUT_S = 60.0

# A line of HMP's "info usernet": protocol, descriptor, source, port, destination, port.
FORWARDED = re.compile(
    rf"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+{SSH_IN_GUEST}\b"
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A machine that was left running on purpose."""

    pid: int
    ssh_port: int | None
    console_log: Path

    @property
    def stop_command(self) -> str:
        return f"kill {self.pid}"


class Machine:
    """A machine that runs while the block lasts.

    Args:
        directory: for console.log, qemu.log and the UEFI variables; made if missing, mode 0700.
        keep: a block that ends by an exception leaves the machine running; see `kept`.
        start_timeout_s: how long QEMU may take until it answers.

    Raises (on entering the block):
        MissingTool: there is no QEMU, or no UEFI firmware for a machine that wants it.
        Busy: the port that the spec names, or one of the disks, is in use.
        CannotRun: the accelerator is not usable.
        MachineFailed: QEMU ended at once, or there is no such snapshot; with QEMU's text.
    """

    def __init__(
        self,
        spec: MachineSpec,
        directory: Path,
        runner: Runner,
        reporter: Reporter | None = None,
        *,
        keep: bool = False,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.spec = spec
        self.directory = directory
        self.keep = keep
        self.kept: Kept | None = None
        self._left_running = False
        self.ssh_port: int | None = None
        self._runner = runner
        # QEMU's own words go to a file of their own, so that they can be told from the stage's.
        self._qemu = Runner(directory / "qemu.log", env=runner.env)
        self._reporter: Reporter = reporter or Silent()
        self._start_timeout_s = start_timeout_s
        self._watch = Watch(self.console_log, self._reporter.say, self._describe_end)
        self._qmp = Qmp(self._watch.event, self._watch.hung_up)
        self._process: Process | None = None
        self._attached: dict[str, str] = {}
        self._stack = ExitStack()

    # Start and end

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            wanted = self._left_running or (error is not None and self.keep)
            if wanted and self.process.returncode is None:
                self._release()
            else:
                self._quit()

    @property
    def process(self) -> Process:
        assert self._process is not None, "the machine was not started"
        return self._process

    @property
    def console_log(self) -> Path:
        return self.directory / "console.log"

    def _start(self, stack: ExitStack) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # QEMU would make it readable for all, and a console can show anything.
        os.close(os.open(self.console_log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        self._qemu.log.unlink(missing_ok=True)
        flash = self._flash() if self.spec.firmware == "uefi" else None
        with socket_pairs(3) as pairs:
            ours, theirs = zip(*pairs, strict=True)
            argv = command_line(self.spec, self._wiring(theirs, flash))
            self._runner.note(f"starting the machine {self.spec.name}: {self._qemu.log}")
            self._process = stack.enter_context(
                self._qemu.start(argv, pass_fds=[end.fileno() for end in theirs], outlive=self.keep)
            )
            qmp, console, ready = (stack.enter_context(end.dup()) for end in ours)
        # Only QEMU holds the other ends now: when it dies, ours read as ended.
        stack.callback(self._qmp.close)
        self._follow(stack, console, self._watch.console)
        self._follow(stack, ready, self._watch.announced)
        self._greet(qmp)
        if self.spec.network != "none":
            self.ssh_port = self._find_ssh_port()
        if self.spec.loadvm is not None:
            self.snapshots.load(self.spec.loadvm, timeout_s=self._start_timeout_s)
            self._qmp.execute("cont")

    def _wiring(self, theirs: tuple[socket.socket, ...], flash: Flash | None) -> Wiring:
        qmp, console, ready = (f"socket,fd={end.fileno()}" for end in theirs)
        log = escape(self.console_log)
        return Wiring(
            qmp=qmp,
            console=f"{console},logfile={log},logappend=on",
            ready=ready,
            flash=flash,
            sandbox=sys.platform == "linux",
            paused=self.spec.loadvm is not None,
        )

    def _flash(self) -> Flash:
        uefi = require_uefi()
        variables = self.directory / UEFI_VARIABLES
        if not variables.exists():
            images.convert(self._runner, uefi.variables, uefi.format, variables, "qcow2")
        return Flash(code=uefi.code, code_format=uefi.format, variables=variables)

    def _follow(
        self, stack: ExitStack, channel: socket.socket, heard: Callable[[bytes], None]
    ) -> None:
        self._watch.opened()
        stack.enter_context(following(channel, heard, self._watch.closed))

    def _greet(self, channel: socket.socket) -> None:
        try:
            self._qmp.open(channel, self._start_timeout_s)
        except MachineFailed as error:
            status = self.process.wait(QUIT_TIMEOUT_S)
            raise explain_start(status, self.spec, self._qemu.log) from error

    def _find_ssh_port(self) -> int:
        # HMP, because QMP has no stable command for it.
        answer: str = self._qmp.execute("human-monitor-command", {"command-line": "info usernet"})
        found = FORWARDED.search(answer)
        if found is None:
            raise MachineFailed(f"QEMU forwards no port to the guest's SSH: {answer!r}.")
        return int(found[1])

    def _describe_end(self) -> Trouble:
        status = self.process.wait(QUIT_TIMEOUT_S)
        how = "closed its monitor" if status is None else f"ended ({describe_status(status)})"
        return Trouble(
            what=f"QEMU {how}", tail=last_words(self._qemu.log), unfolds=status is not None
        )

    def _quit(self) -> None:
        """Ask QEMU to end. If it does not, leaving the process's own block makes it."""
        if self.process.returncode is not None:
            return
        # The block may be left because of an error: this must not replace it.
        try:
            self._qmp.execute("quit", timeout_s=QUIT_TIMEOUT_S)
        except VmbakeError as error:
            self._runner.note(f"the machine {self.spec.name} did not quit: {error}")
        else:
            self.process.wait(QUIT_TIMEOUT_S)

    def _release(self) -> None:
        self.kept = Kept(pid=self.process.pid, ssh_port=self.ssh_port, console_log=self.console_log)
        self._runner.note(f"left running: {self.kept}")
        self.process.release()

    # What the guest says

    @property
    def announcements(self) -> tuple[Announcement, ...]:
        """All that the guest wrote to its ready channel, in order."""
        return self._watch.announcements

    @property
    def facts(self) -> dict[str, Any]:
        """The guest's `{"facts": {…}}` lines as one; the last word on each wins."""
        merged: dict[str, Any] = {}
        for announcement in self.announcements:
            facts = announcement.get("facts")
            if isinstance(facts, dict):
                merged |= facts
        return merged

    def wait_ready(self, timeout_s: float) -> Announcement:
        """Wait for the guest's `{"ready": true, …}` and return it.

        Raises: as `wait_announcement`.
        """
        return self.wait_announcement(
            lambda said: said.get("ready") is True, timeout_s=timeout_s, what="become ready"
        )

    def wait_announcement(
        self, wanted: Callable[[Announcement], bool], *, timeout_s: float, what: str
    ) -> Announcement:
        """Wait for an announcement, old or new, that `wanted` accepts.

        Raises:
            MachineFailed: QEMU ended, the guest died, shut down or said `{"failed": …}`.
            NoRoom: the host's disk filled up, and QEMU stopped the guest.
            TimedOut: it was not there after `timeout_s` seconds; names the last thing seen.
        """
        return self._watch.wait(
            lambda: next((said for said in self.announcements if wanted(said)), None),
            timeout_s=timeout_s,
            what=what,
            hint=f"If the guest was only slow, give it longer; its console: {self.console_log}.",
        )

    def wait_console(self, pattern: str, *, timeout_s: float, what: str) -> str:
        """Wait for a console line in which the regular expression is found; returns the line.

        For guests that can't announce: firmware, boot loaders, foreign systems.

        Raises: as `wait_announcement`.
        """
        wanted = re.compile(pattern)
        return self._watch.wait(
            lambda: self._watch.console_line(wanted), timeout_s=timeout_s, what=what
        )

    def pause(self, seconds: float) -> None:
        """Let `seconds` pass between two attempts at something.

        Raises:
            MachineFailed, NoRoom: the machine failed before or meanwhile.
        """
        self._watch.pause(seconds)

    def on_trouble(self, callback: Callable[[], None]) -> None:
        """Have `callback` (which must not block) called once when the machine fails."""
        self._watch.on_trouble(callback)

    # What can be done with it

    @property
    def snapshots(self) -> Snapshots:
        written = (disk.path.parent for disk in self.spec.disks if not disk.read_only)
        folder = next(written, self.directory)
        return Snapshots(self._qmp, self._watch, self.spec.writable_nodes, folder)

    @property
    def migration(self) -> Migration:
        return Migration(self._qmp, self._watch)

    def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What QEMU answers to a QMP command that changes nothing (query-…, qom-get).

        Raises:
            MachineFailed: it refused, or hung up.
            TimedOut: it did not answer.
        """
        return self._qmp.execute(command, arguments)

    def savevm(self, tag: str, *, timeout_s: float = 300) -> None:
        """Save the whole machine in its disks; see Snapshots.save.

        What was attached while it ran must be detached first: the machine that loads the
        snapshot starts without it.
        """
        if self._attached:
            raise MachineFailed(
                f"The disks {', '.join(self._attached)} must be detached before a snapshot."
            )
        self.snapshots.save(tag, timeout_s=timeout_s)

    def attach_disk(self, path: Path, disk_id: str, disk_format: DiskFormat = "raw") -> None:
        """Plug in a read-only disk, which the guest finds as /dev/disk/by-id/virtio-ID.

        Raises:
            MachineFailed: all ports are taken, or QEMU refused; with its text.
        """
        disk = Disk(id=disk_id, path=path, format=disk_format, read_only=True)
        ports = [f"hotplug{number}" for number in range(self.spec.hotplug_ports)]
        free = [port for port in ports if port not in self._attached.values()]
        if not free:
            raise MachineFailed(f"All {len(ports)} hot-plug ports of the machine are taken.")
        self._qmp.execute("blockdev-add", disk.node())
        try:
            self._qmp.execute("device_add", {**disk.front_end(), "bus": free[0]})
        except VmbakeError:
            with contextlib.suppress(VmbakeError):
                self._qmp.execute("blockdev-del", {"node-name": disk.id})
            raise
        self._attached[disk_id] = free[0]

    def detach_disk(self, disk_id: str, *, timeout_s: float = 60) -> None:
        """Unplug a disk that `attach_disk` plugged in; the guest must agree to it.

        Raises:
            TimedOut: the guest did not let go of it.
        """
        since = self._watch.mark()
        self._qmp.execute("device_del", {"id": f"{disk_id}-device"})
        self._watch.wait_event(
            "DEVICE_DELETED",
            since=since,
            timeout_s=timeout_s,
            what=f"let go of the disk {disk_id}",
            hint="It does so only when its kernel runs and handles PCI hot-plug.",
            device=f"{disk_id}-device",
        )
        self._qmp.execute("blockdev-del", {"node-name": disk_id})
        del self._attached[disk_id]

    def leave_running(self) -> None:
        """Let it go on when the block ends; it must have been made with `keep`."""
        self._left_running = True

    def abandon(self) -> None:
        """End it for good, also one that was to be kept; harmless if it has ended."""
        self._quit()
        self.process.stop()

    def quit(self) -> None:
        """End QEMU now, whatever the guest does; its disks are written and closed.

        Raises:
            MachineFailed: it did not end in order, so the disks are not to be trusted.
        """
        self._qmp.execute("quit", timeout_s=QUIT_TIMEOUT_S)
        status = self.process.wait(EXIT_TIMEOUT_S)
        if status != 0:
            how = "did not end" if status is None else f"failed ({describe_status(status)})"
            raise MachineFailed(
                f"QEMU {how} when it was asked to.",
                log=self._qemu.log,
                tail=last_words(self._qemu.log),
            )

    def poweroff(self, timeout_s: float, ask: Callable[[], None] | None = None) -> None:
        """Have the guest shut down, and wait until QEMU has written everything and ended.

        Args:
            ask: asks the guest, over SSH for example; None presses the power button.

        Raises: as `wait_shutdown`.
        """
        if ask is None:
            self._qmp.execute("system_powerdown")
        else:
            ask()
        self.wait_shutdown(timeout_s)

    def wait_shutdown(self, timeout_s: float) -> None:
        """Wait for the guest to shut down by itself and for QEMU's end.

        Raises:
            MachineFailed: it reset instead, the guest died, or QEMU ended with an error.
            TimedOut: it still ran after `timeout_s` seconds: its disks are not to be trusted.
        """
        event = self._watch.wait_event(
            "SHUTDOWN",
            since=0,
            timeout_s=timeout_s,
            what="shut down",
            hint=f"Its console: {self.console_log}.",
            even_after_end=True,
        )
        reason = event.data.get("reason")
        if reason != "guest-shutdown":
            raise MachineFailed(
                f"The guest was to shut down, and ended otherwise ({reason}).",
                log=self.console_log,
                tail=self._watch.tail,
            )
        status = self.process.wait(EXIT_TIMEOUT_S)
        if status is None:
            raise TimedOut(f"QEMU did not end within {EXIT_TIMEOUT_S:.0f} s of the shutdown.")
        if status != 0:
            raise MachineFailed(
                f"QEMU failed after the guest's shutdown ({describe_status(status)}).",
                log=self._qemu.log,
                tail=last_words(self._qemu.log),
            )
