"""The state of a stopped machine, RAM and devices, saved to a file and loaded from one.

QEMU gets one end of a pipe over QMP, so it starts no program and opens no file (its sandbox forbids
the first), and any QEMU can do it. What passes through is compressed here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import MachineFailed, NoRoom, VerificationFailed, VmbakeError
from tasks.qemu.channels import JOIN_TIMEOUT_S
from tasks.qemu.qmp import Qmp
from tasks.qemu.watch import Watch

# Of a booted Debian's 264 MB, level 1 leaves 89 MB in 0.6 s, level 3 82 MB in 0.9 s, and level 9
# 76 MB in 4.2 s; unpacking takes 0.3 s for each, beside QEMU's own work.
LEVEL = 1
CHUNK_BYTES = 1 << 20
NAME = "state"
# QEMU's own limit (128 MB/s) is for networks, and it keeps to it even when the guest stands still.
UNLIMITED_BYTES_PER_S = 1 << 40
SAVED = ("completed", "failed", "cancelled")
# A QEMU that can't load a state says so on its stderr and ends, right after the event `failed`.
LOADED = ("completed",)


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a saved state comes to.

    Args:
        sha256: of the file.
        state_bytes: what QEMU wrote, before compression.
    """

    sha256: str
    size_bytes: int
    state_bytes: int


class Migration:
    """Saves and loads the state of one machine; its disks are the caller's matter."""

    def __init__(self, qmp: Qmp, watch: Watch) -> None:
        self._qmp = qmp
        self._watch = watch

    def save(self, target: Path, *, timeout_s: float) -> Saved:
        """Stop the guest and write its state, compressed by zstd, to a new file.

        The guest stays stopped, and QEMU lets go of its disks: all that can be done then is to
        end it. When it fails, no `target` is left.

        Raises:
            NoRoom: the disk is full.
            MachineFailed: QEMU could not save it.
            TimedOut: it took longer than `timeout_s` seconds.
        """
        self._qmp.execute("stop")
        source, sink = os.pipe()
        try:
            with Pump(lambda: compressed(source, target), closes=source) as pump:
                with closing(sink):
                    self._prepare(sink)
                self._run("migrate", SAVED, pump, timeout_s)
                # All is in the file only when the other end of the pipe was read to its end.
                saved = pump.result()
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        assert saved is not None
        return saved

    def load(self, source: Path, *, timeout_s: float) -> None:
        """Give a machine that was started with `incoming` the state of a file, and let it go on.

        Raises:
            VerificationFailed: the file is not complete, or damaged.
            MachineFailed: the state doesn't fit this machine; QEMU is gone then.
            TimedOut: it took longer than `timeout_s` seconds.
        """
        intake, outlet = os.pipe()
        with Pump(lambda: unpacked(source, outlet), closes=outlet) as pump:
            with closing(intake):
                self._prepare(intake)
            self._run("migrate-incoming", LOADED, pump, timeout_s)
        self._qmp.execute("cont")

    def _prepare(self, descriptor: int) -> None:
        self._qmp.execute(
            "migrate-set-capabilities",
            {"capabilities": [{"capability": "events", "state": True}]},
        )
        self._qmp.execute("migrate-set-parameters", {"max-bandwidth": UNLIMITED_BYTES_PER_S})
        self._qmp.send_descriptor(descriptor, NAME)

    def _run(self, command: str, endings: tuple[str, ...], pump: Pump, timeout_s: float) -> None:
        since = self._watch.mark()
        try:
            self._qmp.execute(command, {"uri": f"fd:{NAME}"})
            status = self._wait(since, endings, timeout_s)
        except MachineFailed:
            # If it was refused, QEMU still has its end of the pipe, and the pump would wait for it.
            with contextlib.suppress(VmbakeError):
                self._qmp.execute("closefd", {"fdname": NAME})
            pump.blame()
            raise
        pump.blame()
        if status != "completed":
            why = self._qmp.execute("query-migrate").get("error-desc", status)
            raise MachineFailed(f"QEMU could not save the machine's state: {why}.")

    def _wait(self, since: int, endings: tuple[str, ...], timeout_s: float) -> str:
        def ended() -> str | None:
            for event in self._watch.events(since):
                if event.name == "MIGRATION" and event.data.get("status") in endings:
                    return str(event.data["status"])
            return None

        return self._watch.wait(
            ended, timeout_s=timeout_s, what="have its state moved", even_after_end=True
        )


class Pump:
    """A thread that moves a state through a pipe while the block lasts.

    Args:
        work: moves it all.
        closes: our end of the pipe; it is closed when the work is done or failed, so that QEMU
            notices.
    """

    def __init__(self, work: Callable[[], Saved | None], *, closes: int) -> None:
        self._work = work
        self._closes = closes
        self._result: Saved | None = None
        self._error: OSError | VmbakeError | None = None
        self._thread = threading.Thread(target=self._run, name="migration", daemon=True)

    def __enter__(self) -> Pump:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error QEMU may still hold its end of the pipe; then the thread ends with QEMU.
        self._thread.join(None if kind is None else JOIN_TIMEOUT_S)

    def result(self) -> Saved | None:
        """Wait for its end.

        Raises: as `blame`.
        """
        self._thread.join()
        self.blame()
        return self._result

    def blame(self) -> None:
        """Raise what went wrong in it, if that is the cause of what QEMU reports.

        Raises:
            NoRoom, VerificationFailed, OSError: see Migration.
        """
        self._thread.join()
        if self._error is not None and not isinstance(self._error, BrokenPipeError):
            raise self._error

    def _run(self) -> None:
        try:
            self._result = self._work()
        except (OSError, VmbakeError) as error:
            self._error = error
        finally:
            os.close(self._closes)


def compressed(source: int, target: Path) -> Saved:
    """Read a pipe to its end into a new file, compressed and synced.

    Raises:
        NoRoom: the disk is full.
    """
    import zstandard

    digest, size_bytes, state_bytes = hashlib.sha256(), 0, 0
    packer = zstandard.ZstdCompressor(level=LEVEL, threads=-1, write_checksum=True).compressobj()
    try:
        with target.open("xb") as stream:

            def write(data: bytes) -> None:
                nonlocal size_bytes
                size_bytes += len(data)
                digest.update(data)
                stream.write(data)

            while chunk := os.read(source, CHUNK_BYTES):
                state_bytes += len(chunk)
                write(packer.compress(chunk))
            write(packer.flush())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(
                f"The disk filled up while the machine's state was written to {target}.",
                hint="Make room there, and run it again.",
            ) from error
        raise
    return Saved(sha256=digest.hexdigest(), size_bytes=size_bytes, state_bytes=state_bytes)


def unpacked(source: Path, sink: int) -> None:
    """Write the content of a compressed state into a pipe.

    Raises:
        VerificationFailed: it is not complete, or damaged.
    """
    import zstandard

    unpacker = zstandard.ZstdDecompressor().decompressobj()
    try:
        with source.open("rb") as stream, os.fdopen(sink, "wb", closefd=False) as pipe:
            while chunk := stream.read(CHUNK_BYTES):
                pipe.write(unpacker.decompress(chunk))
        complete = unpacker.eof
    except zstandard.ZstdError as error:
        raise VerificationFailed(f"The saved state {source} is damaged: {error}.") from error
    if not complete:
        raise VerificationFailed(f"The saved state {source} is not complete.")


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[None]:
    """Close a file descriptor at the end of the block."""
    try:
        yield
    finally:
        os.close(descriptor)
