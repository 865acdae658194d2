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
from tests.standins.file_system import FileSystem
from tests.standins.processes import alive, wait_until
from tests.standins.traces import daemons, descendants, left_of

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
# A compiler in an emulated guest takes its time to begin.
LOGGED_S = 300
DONE = re.compile(r"^(\S+): done after", re.MULTILINE)
Kind = Literal["killed", "daemon dies", "QEMU dies", "store is full", "output is full"]
Opener = Literal["", "qemu-storage-daemon", "qemu-system"]


class Fault(NamedTuple):
    """What befalls a build as soon as it says the sign of a stage.

    Args:
        sign: "": it is so from the start.
        by: it waits until this program has a disk of the stage open.
        logged: it waits until this is in the stage's log, too.
    """

    kind: Kind
    stage: str
    sign: str
    by: Opener = ""
    logged: str = ""


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

    def suffer(self, fault: Fault, *flags: str) -> str:
        """Start a build up to the fault's stage and let that happen; all that the build said."""
        if not fault.sign:
            with self.store.full():
                _, said = self.inv(fault.stage, *flags, status=NoRoom.exit_code)
            return said
        killed = fault.kind == "killed"
        # A stage that takes no time at all is over by then, and what follows is not.
        goal = "vexfs.image" if fault.sign == "started" else fault.stage
        with self.start(goal, *flags) as process:
            try:
                said = self._until(fault, process)
                helpers = descendants(process.pid) if killed else set()
                with self._befalling(fault, process):
                    said += process.communicate()[1]
            finally:
                process.kill()
        self.done.update(DONE.findall(said))
        check_end(fault, process.returncode, said)
        self.check_store(killed=killed)
        wait_until(lambda: not any(map(alive, helpers)), "something outlived the build")
        wait_until(lambda: left_of(self.store.folder) == self._mounts(), "something was left")
        return said

    def _until(self, fault: Fault, process: subprocess.Popen[str]) -> str:
        """Wait for the moment of the fault; all that the build has said so far."""
        assert process.stderr
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith(f"{fault.stage}: {fault.sign}"):
                break
        else:
            raise AssertionError(f"it never said {fault.sign!r}:\n{said}")
        if fault.by:
            wait_until(lambda: bool(self._openers(fault.by)), "no disk was opened")
        if fault.logged:
            wait_until(lambda: self._has_logged(fault, process), "it was not logged", LOGGED_S)
        return said

    @contextlib.contextmanager
    def _befalling(self, fault: Fault, process: subprocess.Popen[str]) -> Iterator[None]:
        match fault.kind:
            case "killed":
                process.send_signal(signal.SIGKILL)
                yield
            case "daemon dies" | "QEMU dies":
                assert fault.by
                for opener in self._openers(fault.by):
                    os.kill(opener, signal.SIGKILL)
                yield
            case "store is full":
                with self.store.full():
                    yield
            case "output is full":
                with self.output.full():
                    yield

    def _openers(self, program: Opener) -> list[int]:
        return daemons(self.store.folder, program)

    def _has_logged(self, fault: Fault, process: subprocess.Popen[str]) -> bool:
        (log,) = self.store.folder.glob(f"logs/*.{process.pid}/{fault.stage}.log")
        text = log.read_text(errors="replace")
        assert process.poll() is None, text
        return fault.logged in text

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

    def check_store(self, *, killed: bool) -> None:
        """Results are whole; work files are left only by a build that could not remove them."""
        for result in self.store.folder.glob("results/*/*"):
            record = json.loads((result / "record.json").read_text())
            assert all((result / name).exists() for name in record["outputs"]), f"{result} is half"
        assert killed or list((self.store.folder / "work").iterdir()) == []

    def check_tidy(self) -> None:
        """Nothing of any of the builds is left that is no result, log or cache."""
        assert list((self.store.folder / "work").iterdir()) == []
        assert list(self.output.folder.glob(".*")) == []


def check_end(fault: Fault, status: int, said: str) -> None:
    """A build ends as its fault has it, and says so."""
    assert "Traceback" not in said, said
    assert (f"{fault.stage}: failed after" in said) == (fault.kind != "killed"), said
    match fault.kind:
        case "killed":
            assert status == -signal.SIGKILL
            # What takes no time at all may be done by then.
            assert fault.sign == "started" or f"{fault.stage}: done" not in said
        case "daemon dies":
            assert status == MachineFailed.exit_code, said
            assert "A daemon that gives access to the image died" in said
            assert "qemu-storage-daemon ended before its time" in said
        case "QEMU dies":
            assert status == MachineFailed.exit_code, said
            assert re.search(r"^error: .*QEMU (ended|hung up)", said, re.MULTILINE), said
        case "store is full" | "output is full":
            assert status == NoRoom.exit_code, said
            assert re.search(r"^error: .*disk (filled up|is full)", said, re.MULTILINE), said
            assert "Free some " in said or "Make room" in said


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
