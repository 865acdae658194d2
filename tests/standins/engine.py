"""Fixtures with a real Docker engine, for `pytest_plugins = ("tests.standins.engine",)`."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.errors import CannotRun
from tasks.docker.engine import Engine, connect
from tasks.docker.runs import Run, containers_of
from tests.standins.dockerd import PrivateEngine
from tests.standins.tiny_image import TinyImage


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an engine, which is in DOCKER_HOST if it is a private one.

    The one that runs already is taken; else one is started, and ended after the last test.
    """
    if (address := running_engine()) is not None:
        yield address
        return
    with pytest.MonkeyPatch.context() as patch:
        private = PrivateEngine(tmp_path_factory.mktemp("dockerd"), network=True)
        try:
            private.start()
            patch.setenv("DOCKER_HOST", private.address)
            yield private.address
        finally:
            private.destroy()


def running_engine() -> str | None:
    with contextlib.suppress(CannotRun), connect() as running:
        return running.address
    return None


@pytest.fixture
def engine(docker_engine: str) -> Iterator[Engine]:
    """A connection to the engine."""
    with connect() as connected:
        yield connected


@pytest.fixture
def run(engine: Engine, tmp_path: Path) -> Iterator[Run]:
    """A run, which must have left no container and no lock in the end."""
    with Run(engine, tmp_path / "state") as own:
        yield own
    assert containers_of(engine, own.id) == []
    assert list((tmp_path / "state").rglob("*.lock")) == []


@pytest.fixture(scope="session")
def tiny(docker_engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyImage]:
    """An image with busybox, some settings, and a volume."""
    image = TinyImage(tmp_path_factory.mktemp("tiny"))
    with connect() as engine:
        image.import_into(engine)
        yield image
        image.remove_from(engine)


@pytest.fixture
def private_engine(
    docker_engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PrivateEngine]:
    """An engine that a test may end and start again, by DOCKER_HOST. Its
    published ports are in a network of its own.

    A test that goes on without it needs `forgive_the_sdk`.
    """
    private = PrivateEngine(tmp_path / "d", network=False)
    try:
        private.start()
        monkeypatch.setenv("DOCKER_HOST", private.address)
        yield private
    finally:
        private.destroy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
