"""Whose containers are whose: so that what a killed run left behind is found, and nothing else.

A run's containers have its id in their names, and the run holds a lock while it lives. A
container that is to stay gets another name. Labels could not tell that: they can't be changed,
and every image made from a container inherits them.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tasks.core.errors import CommandFailed
from tasks.docker.failures import CONFLICT, NOT_FOUND, status_of, translated

if TYPE_CHECKING:
    from filelock import FileLock

    from tasks.docker.engine import Engine

# For people (`docker ps --filter label=…`); nothing is decided by it.
RUN_LABEL = "org.vmbake.run"
PREFIX = "vmbake-run"
REMOVE_TIMEOUT_S = 300.0


class Run:
    """What one process does in an engine. Leaving the block gives up the claim on what is left.

    Args:
        state: the checkout's state folder.

    Raises (on entering the block):
        EngineGone: the engine does not answer.
    """

    def __init__(self, engine: Engine, state: Path) -> None:
        self.engine = engine
        self.id = secrets.token_hex(6)
        self._state = state
        self._count = 0
        self._lock: FileLock | None = None
        self._claimed: set[str] = set()

    def __enter__(self) -> Self:
        from filelock import FileLock

        folder = lock_folder(self.engine, self._state)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / f"{self.id}.lock")
        self._lock.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._lock is not None
        # What could not be removed is left to a sweep, which goes by this file.
        if not self._claimed:
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def claim(self, stem: str) -> str:
        """A new container's name, which makes it this run's to remove."""
        self._count += 1
        name = f"{prefix_of(self.id)}{self._count}-{stem}"
        self._claimed.add(name)
        return name

    def remove(self, name: str) -> None:
        """Remove a claimed container, whatever it does; harmless if there is none.

        Raises:
            EngineGone, TimedOut: it may still be there; a later sweep removes it.
        """
        remove_container(self.engine, name)
        self._claimed.discard(name)

    def give_up(self, name: str) -> str:
        """Let a container outlive this run: no sweep touches it. Returns its new name.

        Raises:
            EngineGone, CommandFailed: it still belongs to this run.
        """
        stem = name.removeprefix(prefix_of(self.id)).partition("-")[2]
        new_name = f"vmbake-{stem}-{secrets.token_hex(3)}"
        with translated(f"rename the container {name}"):
            self.engine.api.rename(name, new_name)
        self._claimed.discard(name)
        return new_name


def sweep(engine: Engine, state: Path) -> tuple[str, ...]:
    """Remove the containers, with their volumes, of this checkout's runs that were killed.

    Returns:
        The names of the containers.

    Raises:
        EngineGone, TimedOut: the engine did not do it; the next sweep tries again.
    """
    from filelock import FileLock, Timeout

    swept: list[str] = []
    for path in sorted(lock_folder(engine, state).glob("*.lock")):
        # Whoever holds it lives.
        with contextlib.suppress(Timeout), FileLock(path, timeout=0):
            for name in containers_of(engine, path.stem):
                remove_container(engine, name)
                swept.append(name)
            path.unlink(missing_ok=True)
    return tuple(swept)


def containers_of(engine: Engine, run_id: str) -> list[str]:
    """The names of a run's containers, running or not."""
    with translated("list containers"):
        found = engine.api.containers(all=True, filters={"name": prefix_of(run_id)})
    # The engine's filter finds the text anywhere in a name.
    names = [name.removeprefix("/") for entry in found for name in entry["Names"]]
    return sorted(name for name in names if name.startswith(prefix_of(run_id)))


def remove_container(engine: Engine, name: str) -> None:
    """Kill and remove a container with its anonymous volumes; harmless if it is gone.

    Raises:
        EngineGone, TimedOut: the engine did not do it.
    """
    # Deleting many gigabytes takes a while.
    with engine.client(REMOVE_TIMEOUT_S) as api:
        try:
            with translated(f"remove the container {name}"):
                api.remove_container(name, v=True, force=True)
        except CommandFailed as error:
            # It is gone, or somebody else is removing it at this moment.
            if status_of(error) not in (NOT_FOUND, CONFLICT):
                raise


def lock_folder(engine: Engine, state: Path) -> Path:
    """Where the locks of this checkout's runs in this engine are."""
    return state / "docker" / hashlib.sha256(engine.id.encode()).hexdigest()[:12]


def prefix_of(run_id: str) -> str:
    """How the names of a run's containers begin."""
    return f"{PREFIX}-{run_id}-"
