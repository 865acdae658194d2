"""Builds of Virtual-DSM images that are killed or fail: what is said, left, and gone on with."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tasks.core.errors import BadInput, Busy, MachineFailed, NoRoom, ProvisionFailed
from tasks.docker import images
from tasks.docker.engine import Engine, connect
from tasks.docker.runs import remove_container
from tasks.vdsm import kept
from tests.e2e.dsm_house import (
    Built,
    House,
    edited_step,
    house,
    remove_traces,
    upstream_of_this_run,
)
from tests.standins import engine_door
from tests.standins.dockerd import PrivateEngine, forgive_the_sdk
from tests.standins.engine_door import EngineDoor
from tests.standins.release_server import ReleaseServer, held
from tests.standins.tiny_image import TinyImage
from tests.standins.vdsm import image as standin

pytest_plugins = ("tests.standins.engine", "tests.e2e.dsm_fixtures")
pytestmark = pytest.mark.e2e

BAD_INPUT, BUSY, MACHINE_FAILED, NO_ROOM, PROVISION_FAILED = (
    error.exit_code for error in (BadInput, Busy, MachineFailed, NoRoom, ProvisionFailed)
)


class Kill(NamedTuple):
    """When to kill a build, and what it may go on with: the same stage, if nothing is said.

    Args:
        sign: what the stage says then.
        request: what the engine has been sent then, in an address or a body, instead of a sign:
            it is at work, and goes on alone.
    """

    stage: str
    sign: str = ""
    request: str = ""
    next: tuple[str, ...] = ()


# In the order in which a build comes to them.
KILLS = (
    Kill("vdsm.fetch-pat", "30 % of"),
    Kill("vdsm.base-image", f"{standin.REPOSITORY}:"),
    # The engine may finish what it has begun, here and below.
    Kill("vdsm.base-image", request="repo=vmbake-base", next=("vdsm.base-image", "vdsm.boot")),
    Kill("vdsm.boot", "wait-for-boot: "),
    # A machine that runs is nothing to go on from.
    Kill("vdsm.savevm", request="savevm start-ready", next=("vdsm.boot",)),
    Kill("vdsm.commit", request="tag=ckpt-start-ready", next=("vdsm.boot", "vdsm.configure-admin")),
    Kill("vdsm.configure-admin", "waiting for QEMU"),
    Kill("vdsm.configure-admin", "configure-admin: screen: admin"),
    Kill("vdsm.post-wizard", request="savevm post-wizard"),
    Kill("vdsm.provision", "configure-system: screen: "),
    Kill("vdsm.provision", request="savevm final"),
    Kill("vdsm.provision", request="tag=ckpt-final", next=("vdsm.provision", "vdsm.flatten")),
    Kill("vdsm.flatten", "10 %"),
    Kill("vdsm.flatten", request="comment=vmbake%3A+DSM", next=("vdsm.flatten", "vdsm.smoke-test")),
    Kill("vdsm.smoke-test", "waiting for DSM"),
    Kill("build.tcg", request="/tag?"),
)


def test_a_build_that_is_killed_in_every_stage_gets_to_its_end(
    engine: Engine, server: ReleaseServer, pat: Path, pat_url: str, tmp_path: Path
) -> None:
    # It is also the one with the newer layout, a checkpoint after each step, and a wizard that
    # misbehaves.
    faults = "dead-click=two-factor,reordered,reset-after-admin"
    base = upstream_of_this_run("7.63", faults=faults)
    server.misbehave(f"/{pat.name}", held(pat.stat().st_size // 2))
    before = volumes(engine)
    with engine_door.opened(tmp_path / "docker.sock", engine.address) as door:
        own = house(
            tmp_path / "house", pat_url, "two",
            DSM_BASE_IMAGE=base, DSM_CHECKPOINTS="all", DOCKER_HOST=door.address,
        )  # fmt: skip
        try:
            swept = get_to_the_end(own, door, engine)
            assert swept
            assert server.requests_for(f"/{pat.name}")[-1].range, "the download began anew"
            assert remains(own, engine) == before
            assert nameless(engine, own) == []
            out, _ = own.inv("vdsm.checkpoints")
            assert re.findall(r"^\S+ +(\S+)", out, re.MULTILINE) == [
                *("start-ready", "configure-admin", "post-wizard", "final"),
            ]
            with edited_step(own):
                states = own.states("build.tcg")
            assert [stage for stage, state in states.items() if state == "stale"] == [
                *("vdsm.provision", "vdsm.flatten", "vdsm.smoke-test", "build.tcg"),
            ]
        finally:
            remove_traces(engine, own)


def get_to_the_end(own: House, door: EngineDoor, engine: Engine) -> list[str]:
    """Kill a build by all of KILLS and finish it; the containers that it says it has removed."""
    said: list[str] = []
    left: set[str] = set()
    goes_on: tuple[str, ...] = (KILLS[0].stage,)
    before = volumes(engine)
    for kill in KILLS:
        lines = killed(own, door, kill)
        assert first_of(lines) in goes_on, kill
        now = remains(own, engine) - before
        assert now & left == set(), f"what {kill} found is still there"
        said += lines
        left, goes_on = now, kill.next or (kill.stage,)
    out, err = own.inv("build.tcg")
    assert first_of(err.splitlines()) in goes_on
    assert out.split() == [f"{own.name}:latest", f"{own.name}:7.2.2"]
    return re.findall(r"removed the container of a killed run: (\S+)", "".join(said) + err)


def killed(own: House, door: EngineDoor, kill: Kill) -> list[str]:
    """Start a build and kill it when it has come to where the kill says; what it said."""
    door.watch_for(kill.request)
    process = own.start("build.tcg")
    said: list[str] = []
    if kill.request:
        door.wait(lambda: process.poll() is not None)
    else:
        said = heard(process, f"{kill.stage}: {kill.sign}")
    process.send_signal(signal.SIGKILL)
    _, rest = process.communicate()
    said += rest.splitlines(keepends=True)
    # It was in that stage: begun, and not done.
    assert process.returncode == -signal.SIGKILL, kill
    assert any(line.startswith(f"{kill.stage}: started") for line in said), kill
    assert not any(line.startswith(f"{kill.stage}: done after") for line in said), kill
    return said


def heard(process: subprocess.Popen[str], sign: str) -> list[str]:
    """Listen to a run until a line begins with the sign; what it said until then."""
    assert process.stderr
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(sign):
            return said
    raise AssertionError(f"it never said {sign!r}:\n{''.join(said)}")


def first_of(said: list[str]) -> str:
    """The stage that a run began with, after what was kept."""
    return next(line.partition(":")[0] for line in said if line.rstrip().endswith(": started"))


def remains(own: House, engine: Engine) -> set[str]:
    """Containers, volumes and work folders, of which a run leaves none."""
    work = {path.name for path in own.root.glob(".vmbake/work/*")}
    return volumes(engine) | set(own.containers(engine)) | work


def volumes(engine: Engine) -> set[str]:
    return {each["Name"] for each in engine.api.volumes()["Volumes"] or ()}


def nameless(engine: Engine, own: House) -> list[str]:
    """The images of a checkout's builds that nobody finds by a name."""
    found = images.by_labels(engine, {kept.REPOSITORY: own.name})
    return [image.id for image in found if not image.tags]


def test_a_checkpoint_of_another_accelerator_is_refused(built: Built, engine: Engine) -> None:
    words = ("vdsm.smoke-test", "--accel", "kvm", "--from-checkpoint", "start-ready")
    own = built.house
    _, err = own.inv(*words, status=BAD_INPUT)
    assert f"There is no checkpoint 'start-ready' of {own.settings['DSM_IMAGE_NAME']}-kvm" in err
    other = f"{own.settings['DSM_IMAGE_NAME']}-kvm:ckpt-start-ready"
    images.tag(engine, images.require(engine, f"{own.name}:ckpt-start-ready").id, other)
    try:
        _, err = own.inv(*words, status=BAD_INPUT)
    finally:
        images.untag(engine, other)
    assert "The accelerator is kvm; the snapshot was saved with tcg" in err


def test_a_port_in_use_is_named(built: Built, engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, err = built.house.inv("build.tcg", "--explore", "--port", str(port), status=BUSY)
    assert f"Port {port} of this machine is in use" in err
    assert built.house.containers(engine) == []


def test_a_wrong_password_is_told_from_a_dsm_that_is_down(built: Built, engine: Engine) -> None:
    _, err = built.house.inv(
        "vdsm.smoke-test", "--accel", "tcg", "--from-checkpoint", "final", "--keep",
        env={"DSM_ADMIN_PASS": "Wr0ng.word"}, status=BAD_INPUT,
    )  # fmt: skip
    assert "password" in err
    # What failed can be looked at.
    name = re.search(r"docker rm -fv (\S+)", err)
    assert name
    assert engine.api.inspect_container(name[1])["State"]["Running"]
    remove_container(engine, name[1])


def test_a_container_that_dies_ends_the_build_at_once(
    engine: Engine, pat_url: str, tmp_path: Path
) -> None:
    own = house(
        tmp_path, pat_url, "bad", DSM_BASE_IMAGE=standin.build("7.41", faults="exit=64")
    )  # fmt: skip
    _, err = own.inv("build.tcg", status=MACHINE_FAILED)
    assert "exit code 64" in err
    assert "the PAT" in err
    assert "Take another PAT" in err
    assert own.containers(engine) == []
    assert images.find(engine, f"{own.name}:latest") is None


def test_an_image_of_another_layout_is_refused(
    docker_engine: str, pat_url: str, tmp_path: Path, tiny: TinyImage
) -> None:
    own = house(tmp_path, pat_url, "bad", DSM_BASE_IMAGE=tiny.reference)
    _, err = own.inv("build.tcg", status=BAD_INPUT)
    assert "no vdsm/virtual-dsm of a known layout" in err


@forgive_the_sdk
def test_an_engine_that_is_restarted_and_a_page_that_nobody_knows(
    private_engine: PrivateEngine, pat: Path, tmp_path: Path
) -> None:
    own = house(
        tmp_path / "house", pat.as_uri(), "three", engine=private_engine,
        DSM_BASE_IMAGE=standin.build("7.41", faults="unknown=account"), DSM_SLOW="1",
    )  # fmt: skip
    process = own.start("build.tcg")
    heard(process, "vdsm.boot: wait-for-boot: ")
    private_engine.kill()
    private_engine.start()
    _, err = process.communicate()
    assert process.returncode == MACHINE_FAILED, err
    assert "The Docker engine went away" in err
    assert "Traceback" not in err

    _, err = own.inv("build.tcg", status=PROVISION_FAILED)
    assert first_of(err.splitlines()) == "vdsm.boot"
    assert "post-wizard: the wizard shows a page that the script does not know." in err
    assert "Choose the colour of your VirtualDSM" in err
    left = {path.suffix for path in (own.root / "videos").glob("post-wizard.*")}
    assert left == {".webm", ".png", ".html", ".zip"}
    with connect() as engine:
        assert engine.api.containers(all=True) == []
        assert volumes(engine) == set()
        assert images.find(engine, f"{own.name}:ckpt-start-ready")
        assert images.find(engine, f"{own.name}:latest") is None


def test_an_engine_without_room_is_told_before_anything_is_done(
    pat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = PrivateEngine(tmp_path / "d", network=False, room_bytes=1 << 30)
    monkeypatch.setenv("DOCKER_HOST", small.address)
    own = house(tmp_path / "house", pat.as_uri(), "bad")
    try:
        small.start()
        _, err = own.inv("build.tcg", status=NO_ROOM)
    finally:
        small.destroy()
    assert "Installing DSM needs 15.0 GB" in err
    assert "started" not in err


def test_without_an_engine_nothing_begins(pat_url: str, tmp_path: Path) -> None:
    own = house(tmp_path, pat_url, "bad", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    process = own.start("build.tcg")
    _, err = process.communicate()
    assert process.returncode not in (0, 1)
    assert "No Docker engine" in err
    assert "Traceback" not in err
