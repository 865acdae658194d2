"""A PAT, its server, and one finished build; for `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.docker.engine import connect
from tests.e2e.dsm_house import Built, house, remove_traces, upstream_of_this_run
from tests.standins.release_server import ReleaseServer, serving
from tests.standins.vdsm.guest import make_pat


@pytest.fixture(scope="session")
def pat() -> Path:
    """The stand-in's installation file."""
    return make_pat()


@pytest.fixture(scope="session")
def server(pat: Path) -> Iterator[ReleaseServer]:
    """A server that has it."""
    with serving(pat.parent) as running:
        yield running


@pytest.fixture(scope="session")
def pat_url(server: ReleaseServer, pat: Path) -> str:
    """Where it is there."""
    return f"{server.url}/{pat.name}"


@pytest.fixture(scope="session")
def built(
    docker_engine: str, pat_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    """One build that every test may look at; its engine keeps the images until the end."""
    folder = tmp_path_factory.mktemp("house")
    own = house(folder, pat_url, "one", DSM_BASE_IMAGE=upstream_of_this_run("7.41"))
    out, err = own.inv("build.tcg")
    yield Built(house=own, out=out, err=err)
    with connect() as engine:
        remove_traces(engine, own)
