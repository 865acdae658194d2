"""A store and an output folder on small file systems of their own, and builds that meet faults."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.core.errors import MachineFailed, NoRoom
from tests.standins.processes import alive, wait_until
from tests.standins.traces import daemons, descendants, left_of

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
DONE = re.compile(r"^(\S+): done after", re.MULTILINE)
Kind = Literal["killed", "daemon dies", "store is full", "output is full"]


class Fault(NamedTuple):
    """What befalls a build as soon as it says the sign of a stage.

    Args:
        sign: "": it is so from the start.
        inside: it waits until the stage has a disk open.
    """

    kind: Kind
    stage: str
    sign: str
    inside: bool = False


class FileSystem:
    """A file system of its own, in memory, whose room can be taken away at any moment."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self.size_bytes = size_bytes

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        self.folder.mkdir()
        mount(f"size={self.size_bytes}", self.folder)
        try:
            yield self.folder
        finally:
            # Lazily: a test that failed may have left somebody at work.
            subprocess.run(["umount", "--lazy", self.folder], check=True)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """While the block lasts, there is no room but that of files that are removed."""
        self._fill()
        try:
            yield
        finally:
            mount(f"remount,size={self.size_bytes}", self.folder)

    def _fill(self) -> None:
        # The kernel refuses a size below what is in use, which grows meanwhile.
        while True:
            stat = os.statvfs(self.folder)
            used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
            with contextlib.suppress(subprocess.CalledProcessError):
                mount(f"remount,size={used}", self.folder)
                return


def mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


@dataclass(kw_only=True)
class Place:
    """Where builds go on one after the other, each with what the one before it left.

    Args:
        settings: a file to be written that overrides invoke.yaml.
        done: how often each stage was done.
    """

    store: FileSystem
    output: FileSystem
    settings: Path
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        places = {"state": str(self.store.folder), "output": str(self.output.folder)}
        self.settings.write_text(json.dumps({"vmbake": places}))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *words],
            cwd=ROOT,
            env={
                **os.environ,
                "INVOKE_RUNTIME_CONFIG": str(self.settings),
                "VEXFS_ENGINE": "native",
                "VEXFS_VARIANT": "minimal",
                # One stage after the other, so that a fault meets the one that it is for.
                "VMBAKE_JOBS": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def inv(self, *words: str, status: int = 0) -> tuple[str, str]:
        process = self.start(*words)
        out, err = process.communicate()
        assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
        self.done.update(DONE.findall(err))
        return out, err

    def suffer(self, fault: Fault) -> str:
        """Start a build up to the fault's stage and let that happen; all that the build said."""
        if not fault.sign:
            with self.store.full():
                _, said = self.inv(fault.stage, status=NoRoom.exit_code)
            return said
        # Whoever is killed doesn't come to what follows; the stage itself may take no time at all.
        killed = fault.kind == "killed"
        process = self.start("vexfs.image" if killed else fault.stage)
        assert process.stderr
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith(f"{fault.stage}: {fault.sign}"):
                break
        else:
            raise AssertionError(f"it never said {fault.sign!r}:\n{said}")
        if fault.inside:
            wait_until(lambda: bool(daemons(self.store.folder)), "no disk was opened")
        helpers = descendants(process.pid) if killed else set()
        with self._befalling(fault, process):
            said += process.communicate()[1]
        self.done.update(DONE.findall(said))
        check_end(fault, process.returncode, said)
        wait_until(lambda: not any(map(alive, helpers)), "something outlived the build")
        wait_until(lambda: left_of(self.store.folder) == self._mounts(), "something was left")
        return said

    @contextlib.contextmanager
    def _befalling(self, fault: Fault, process: subprocess.Popen[str]) -> Iterator[None]:
        match fault.kind:
            case "killed":
                process.send_signal(signal.SIGKILL)
                yield
            case "daemon dies":
                for daemon in daemons(self.store.folder):
                    os.kill(daemon, signal.SIGKILL)
                yield
            case "store is full":
                with self.store.full():
                    yield
            case "output is full":
                with self.output.full():
                    yield

    def _mounts(self) -> list[str]:
        """The file system itself."""
        return [line for line in left_of(self.store.folder) if line.startswith("tmpfs ")]

    def results(self, stage: str) -> list[Path]:
        return sorted((self.store.folder / "results" / stage).glob("*"))

    def check_output(self) -> None:
        """Whatever has a final name is whole; what is written has a hidden one."""
        made = {
            output["sha256"]
            for stage in ("vexfs.compress", "vexfs.checksum")
            for result in self.results(stage)
            for output in json.loads((result / "record.json").read_text())["outputs"].values()
        }
        for path in self.output.folder.glob("[!.]*"):
            if path.name.endswith(".manifest.json"):
                for name, artifact in json.loads(path.read_text())["artifacts"].items():
                    assert sha256(path.with_name(name)) == artifact["sha256"]
            else:
                assert sha256(path) in made, f"{path.name} is half"

    def check_tidy(self) -> None:
        """Nothing of any of the builds is left that is no result, log or cache."""
        assert list((self.store.folder / "work").iterdir()) == []
        assert list(self.output.folder.glob(".*")) == []


def check_end(fault: Fault, status: int, said: str) -> None:
    """A build ends as its fault has it, and says so."""
    assert "Traceback" not in said, said
    match fault.kind:
        case "killed":
            assert status == -signal.SIGKILL
        case "daemon dies":
            assert status == MachineFailed.exit_code, said
            assert "A daemon that gives access to the image died" in said
            assert "qemu-storage-daemon ended before its time" in said
        case "store is full" | "output is full":
            assert status == NoRoom.exit_code, said
            assert re.search(r"^error: .*disk (filled up|is full)", said, re.MULTILINE), said
            assert "Free some " in said or "Make room" in said


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
