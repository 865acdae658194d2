"""A PAT, its server, and one finished build; for `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
    """One build that every test may look at; its engine keeps the images until the end.

    At the same time another checkout builds on the same image of upstream's.
    """
    base = upstream_of_this_run("7.41")
    own, beside = (
        house(tmp_path_factory.mktemp("house"), pat_url, name, DSM_BASE_IMAGE=base)
        for name in ("one", "beside")
    )
    other = beside.start("build.tcg")
    try:
        out, err = own.inv("build.tcg")
    finally:
        other_out, other_err = other.communicate()
    built = Built(house=own, out=out, err=err)
    built_beside = Built(house=beside, out=other_out, err=other_err)
    yield replace(built, beside=built_beside)
    with connect() as engine:
        remove_traces(engine, own, beside)
