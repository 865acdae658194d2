"""Results on disk, each under its stage and the fingerprint of its inputs.

A result is written aside and renamed into place when it is complete, so whatever is there is
whole; if two runs make the same one, the first wins. What is found is verified before use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.digest import Digests, digest_of, files_under
from tasks.core.errors import Busy

RECORD = "record.json"
KEPT_LOGS = 20


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A file that a stage puts where the user looks for it."""

    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished stage: its files, its facts, and the record of how it came to be."""

    directory: Path
    record: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        return dict(self.record["facts"])

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """File name to `sha256` and `size_bytes`."""
        return dict(self.record["outputs"])

    @property
    def published(self) -> list[Publication]:
        return [
            Publication(path=Path(entry["path"]), sha256=entry["sha256"])
            for entry in self.record["published"]
        ]

    @property
    def finished(self) -> float:
        """When it was made, in seconds since the epoch."""
        return datetime.fromisoformat(self.record["finished"]).timestamp()

    @property
    def digest(self) -> str:
        """What stages that stand on this one depend on: content, not history."""
        files = {name: output["sha256"] for name, output in self.outputs.items()}
        return digest_of({"files": files, "facts": self.facts})

    def path(self, name: str) -> Path:
        """A file of the result.

        Raises:
            KeyError: the stage left no such file.
        """
        self.outputs[name]
        return self.directory / name


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """What the store has for a fingerprint: a result, or why it can't be used ("": none)."""

    result: Result | None = None
    damage: str = ""


class Store:
    """All results, work folders and logs of one checkout."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.results = state / "results"
        self.work = state / "work"
        self.logs = state / "logs"
        self.locks = state / "locks"
        self.damaged = state / "damaged"
        self.digests = Digests(state / "cache" / "digests.json")
        self._workspaces: Counter[str] = Counter()
        self._counting = threading.Lock()

    def find(self, stage: str, key: str) -> Lookup:
        """The verified result of a stage with that fingerprint."""
        found = self._read(stage, key)
        if found.result and (damage := self.damage(found.result, self.digests.of)):
            return Lookup(damage=damage)
        return found

    def everything(self) -> Iterator[tuple[str, str, Lookup]]:
        """Stage, fingerprint and what is there, for all results; only their records are read."""
        for directory in sorted(self.results.glob("*/*")):
            stage, key = directory.parent.name, directory.name
            yield stage, key, self._read(stage, key)

    def _read(self, stage: str, key: str) -> Lookup:
        directory = self.results / stage / key
        try:
            record = json.loads((directory / RECORD).read_text())
        except FileNotFoundError:
            return Lookup()
        except (OSError, ValueError) as error:
            return Lookup(damage=f"its record can't be read ({error})")
        return Lookup(result=Result(directory=directory, record=record))

    @staticmethod
    def damage(result: Result, digest: Callable[[Path], str]) -> str:
        """What is no longer as the record says; "" if all is.

        Args:
            digest: the SHA256 of a file, from its content or from memory.
        """
        promised = {
            **{result.directory / name: out["sha256"] for name, out in result.outputs.items()},
            **{publication.path: publication.sha256 for publication in result.published},
        }
        for path, sha256 in promised.items():
            if not (path.is_file() or path.is_symlink()):
                return f"{path.name} is missing"
            if digest(path) != sha256:
                return f"{path.name} was changed"
        return ""

    def records(self, stage: str) -> list[dict[str, Any]]:
        """The records of all results of a stage, newest first."""
        records = []
        for path in (self.results / stage).glob(f"*/{RECORD}"):
            with contextlib.suppress(OSError, ValueError):
                records.append(json.loads(path.read_text()))
        return sorted(records, key=lambda record: str(record["finished"]), reverse=True)

    def commit(self, out: Path, record: dict[str, Any], known_digests: dict[str, str]) -> Result:
        """Make `out` the result; its files become read-only and their digests are recorded."""
        record["outputs"] = {}
        for path in files_under([out]):
            name = str(path.relative_to(out))
            sha256 = known_digests.get(name) or self.digests.of(path)
            record["outputs"][name] = {"sha256": sha256, "size_bytes": path.lstat().st_size}
            if not path.is_symlink():  # where it leads is not ours to change
                path.chmod(path.stat().st_mode & 0o555)
                flush(path)
        (out / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))
        flush(out / RECORD)
        directory = self.results / record["stage"] / record["key"]
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            out.rename(directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Somebody finished the same stage first; theirs is as good.
        flush(directory.parent)
        result = Result(directory=directory, record=json.loads((directory / RECORD).read_text()))
        for name, output in result.outputs.items():
            self.digests.remember(directory / name, output["sha256"])
        return result

    def adopt(self, record: dict[str, Any]) -> Result:
        """Record a result that has no files here and is known to be somewhere else."""
        with self.workspace(record["stage"], keep=False) as folder:
            out = folder / "out"
            out.mkdir()
            return self.commit(out, record, {})

    def discard(self, stage: str, key: str) -> None:
        """Remove a result that can't be used."""
        shutil.rmtree(self.results / stage / key, ignore_errors=True)

    def set_aside(self, stage: str, key: str) -> Path:
        """Move a result that can't be used out of the way; returns where it can be looked at."""
        self.damaged.mkdir(parents=True, exist_ok=True)
        place = self.damaged / f"{stage}.{key}"
        shutil.rmtree(place, ignore_errors=True)
        return (self.results / stage / key).rename(place)

    def take_away(self, stage: str, key: str) -> None:
        """Remove a result in one piece: whoever is killed meanwhile leaves none that is half."""
        with self.workspace(stage, keep=False) as folder:
            (self.results / stage / key).rename(folder / "gone")
        (self.locks / f"{stage}.{key}").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(
        self, stage: str, key: str, timeout_s: float, on_wait: Callable[[], None]
    ) -> Iterator[None]:
        """Hold the right to make one result; waits for another run that makes it.

        Args:
            on_wait: called before it waits.

        Raises:
            Busy: the other run holds it for longer than `timeout_s` seconds.
        """
        from filelock import FileLock, Timeout

        path = self.locks / f"{stage}.{key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            try:
                lock.acquire(timeout=timeout_s)
            except Timeout:
                raise Busy(
                    f"Another run has been making {stage} for {timeout_s:.0f} s.",
                    hint="Wait for it or end it; this one has changed nothing.",
                ) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While the block lasts, nothing is taken away; waits until nobody is about to."""
        with self._locked_as_a_whole(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While the block lasts, no run uses the store.

        Raises:
            Busy: one does.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._locked_as_a_whole(fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                raise Busy(
                    f"A run uses the store {self.state}.",
                    hint="Try again when it has ended; nothing was changed.",
                ) from None
            yield

    @contextlib.contextmanager
    def _locked_as_a_whole(self, how: int) -> Iterator[None]:
        # flock(2) itself, because what wraps it has no lock that several may hold. It ends with
        # the process, however that ends.
        path = self.locks / "store"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            fcntl.flock(stream, how)
            yield

    def mark_used(self, results: Iterable[Result]) -> None:
        """Note that results were good for something; a record's modification time tells when."""
        for result in results:
            if result.directory.is_relative_to(self.results):
                with contextlib.suppress(OSError):
                    os.utime(result.directory / RECORD)

    @contextlib.contextmanager
    def workspace(self, name: str, *, keep: bool) -> Iterator[Path]:
        """A folder for one stage in progress; gone afterwards unless `keep`."""
        from filelock import FileLock

        self.work.mkdir(parents=True, exist_ok=True)
        folder = self.work / f"{name}.{os.getpid()}{self._suffix(name)}"
        # Locked before it is there: another run's `sweep` may look at any moment.
        with FileLock(folder.with_suffix(f"{folder.suffix}.lock")) as lock:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            try:
                yield folder
            finally:
                if not keep:
                    shutil.rmtree(folder, ignore_errors=True)
                    Path(lock.lock_file).unlink(missing_ok=True)

    def _suffix(self, name: str) -> str:
        """What tells the workspaces of one name apart: one run may make two variants of a stage."""
        with self._counting:
            self._workspaces[name] += 1
            number = self._workspaces[name]
        return f".{number}" if number > 1 else ""

    def sweep(self) -> list[Path]:
        """Remove the work folders of runs that were killed, and old logs; returns the former.

        A folder's owner holds its lock while it lives. A kept folder (`--no-cleanup`) goes with
        the next run, too.
        """
        from filelock import FileLock, Timeout

        swept = []
        found = list(self.work.glob("*.*"))
        # A run that was killed at the right moment leaves a lock without a folder.
        for folder in {path.with_suffix("") if path.suffix == ".lock" else path for path in found}:
            lock = folder.with_suffix(f"{folder.suffix}.lock")
            with contextlib.suppress(Timeout), FileLock(lock, timeout=0):
                if folder.exists():
                    swept.append(folder)
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
        runs = sorted(self.logs.glob("*"))
        for old in runs[:-KEPT_LOGS]:
            shutil.rmtree(old, ignore_errors=True)
        return swept


def new_record(
    stage: str, key: str, inputs: Mapping[str, str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What every record says; `Store.commit` adds the outputs."""
    return {
        "format": 1,
        "stage": stage,
        "key": key,
        "inputs": dict(inputs),
        "facts": dict(facts),
        "published": [],
        "seconds": 0.0,
        "finished": datetime.now(UTC).isoformat(),
        "log": "",
    }


def flush(path: Path) -> None:
    """Have a file or folder on the disk before what depends on it is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
