"""Whose containers are whose: what a sweep removes, and what it leaves."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

import pytest
from filelock import FileLock

from tasks.core.errors import MachineFailed
from tasks.docker.engine import Engine
from tasks.docker.failures import EngineGone
from tasks.docker.runs import Run, lock_folder, sweep


class FakeApi:
    """An engine's containers, by name."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.broken = False

    def containers(self, *, all: bool, filters: dict[str, str]) -> list[dict[str, list[str]]]:  # noqa: A002
        assert all
        return [{"Names": [f"/{name}"]} for name in self.names if filters["name"] in name]

    def remove_container(self, name: str, *, v: bool, force: bool) -> None:
        assert v
        assert force
        if self.broken:
            raise ConnectionResetError
        self.names.remove(name)

    def rename(self, name: str, new_name: str) -> None:
        self.names[self.names.index(name)] = new_name


class FakeEngine:
    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.id = "ID"

    def client(self, timeout_s: float) -> Any:
        return contextlib.nullcontext(self.api)


def fake_engine(api: FakeApi) -> Engine:
    return cast("Engine", FakeEngine(api))


def test_a_sweep_goes_by_locks_and_names(tmp_path: Path) -> None:
    api = FakeApi(
        *("vmbake-run-dead-1-dsm", "vmbake-run-dead-2-dsm", "vmbake-run-alive-1-dsm"),
        *("my-vmbake-run-dead-1-dsm", "vmbake-run-unknown-1-dsm", "vmbake-dsm-123456"),
    )
    engine = fake_engine(api)
    folder = lock_folder(engine, tmp_path)
    folder.mkdir(parents=True)
    (folder / "dead.lock").touch()
    with FileLock(folder / "alive.lock"):
        assert sweep(engine, tmp_path) == ("vmbake-run-dead-1-dsm", "vmbake-run-dead-2-dsm")
    assert api.names == [
        *("vmbake-run-alive-1-dsm", "my-vmbake-run-dead-1-dsm"),
        *("vmbake-run-unknown-1-dsm", "vmbake-dsm-123456"),
    ]
    assert [path.name for path in folder.iterdir()] == ["alive.lock"]


def test_a_run_leaves_a_lock_only_for_what_it_could_not_remove(tmp_path: Path) -> None:
    api = FakeApi()
    engine = fake_engine(api)
    with Run(engine, tmp_path) as run:
        api.names = [run.claim("removed"), run.claim("kept")]
        assert sweep(engine, tmp_path) == ()
        kept = run.give_up(api.names[1])
        run.remove(api.names[0])
        assert api.names == [kept]
    assert list(tmp_path.rglob("*.lock")) == []

    with Run(engine, tmp_path) as run:
        api.names.append(run.claim("stuck"))
        api.broken = True
        with pytest.raises(EngineGone):
            run.remove(api.names[1])
        with pytest.raises(MachineFailed):
            run.remove(api.names[1])
    api.broken = False
    assert [path.stem for path in tmp_path.rglob("*.lock")] == [run.id]
    assert len(sweep(engine, tmp_path)) == 1
    assert api.names == [kept]
    assert list(tmp_path.rglob("*.lock")) == []
