"""Killed runs, killed engines: what is left is found and removed, and nothing else is touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.errors import CannotRun, MachineFailed, NoRoom
from tasks.docker import images
from tasks.docker.commit import Changes, commit
from tasks.docker.container import Container
from tasks.docker.engine import Engine, connect
from tasks.docker.failures import EngineGone
from tasks.docker.runs import Run, containers_of, remove_container, sweep
from tasks.docker.spec import ContainerSpec
from tests.standins.dockerd import PrivateEngine, forgive_the_sdk
from tests.standins.tiny_image import TinyImage

pytest_plugins = ("tests.standins.engine",)
pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SOON_S = 30.0
MIB = 1 << 20
# A build that does not get to its end.
VICTIM = """
import sys
from pathlib import Path
from tasks.docker.commit import Changes, commit
from tasks.docker.container import Container
from tasks.docker.engine import connect
from tasks.docker.runs import Run
from tasks.docker.spec import ContainerSpec

state, image = sys.argv[1:]
spec = ContainerSpec(image=image, name="victim", command=("sleep 600",), network="none")
with (
    connect() as engine,
    Run(engine, Path(state)) as run,
    Container.started(run, spec, log=Path(state, "log")) as c,
    Container.created(run, spec) as idle,
    Container.started(run, spec, log=Path(state, "kept.log")) as kept,
):
    print(run.id, c.name, idle.name, kept.keep(), flush=True)
    sys.stdin.read()
"""


def spec(tiny: TinyImage, text: str = "echo here; sleep 600") -> ContainerSpec:
    return ContainerSpec(
        image=tiny.reference,
        name="test",
        command=(text,),
        network="none",
        stop_signal="SIGKILL",  # an engine that ends, or begins, stops it with this
    )


def exists(engine: Engine, name: str) -> bool:
    return bool(engine.api.containers(all=True, filters={"name": name}))


def killed_run(state: Path, tiny: TinyImage) -> list[str]:
    """The id of a run that was killed, and the names of its containers: two are left behind,
    the third one is kept on purpose."""
    state.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, state, tiny.reference],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout is not None
        said = victim.stdout.readline().split()
        victim.send_signal(signal.SIGKILL)
    assert len(said) == 4
    return said


def test_a_sweep_removes_what_a_killed_run_left(
    engine: Engine, run: Run, tiny: TinyImage, tmp_path: Path
) -> None:
    state = tmp_path / "killed"
    run_id, running, idle, kept = killed_run(state, tiny)
    with contextlib.ExitStack() as stack:
        for name in (running, idle, kept):
            stack.callback(remove_container, engine, name)
        mounts = engine.api.inspect_container(running)["Mounts"]
        # An image that somebody made from it has its label, and so have that image's containers.
        image_id = engine.api.commit(running)["Id"]
        stack.callback(images.remove, engine, image_id)
        body = {"Image": image_id, "Cmd": ["true"]}
        heir = engine.api.create_container_from_config(body, name=f"heir-of-{running}")["Id"]
        stack.callback(remove_container, engine, heir)
        assert engine.api.inspect_container(heir)["Config"]["Labels"]["org.vmbake.run"] == run_id
        living = stack.enter_context(Container.started(run, spec(tiny), log=tmp_path / "log"))

        # Another checkout, whose own runs live or not, has nothing to do with it.
        assert sweep(engine, tmp_path / "elsewhere") == ()
        assert sweep(engine, tmp_path / "state") == ()
        assert containers_of(engine, run_id) == [running, idle]

        assert sweep(engine, state) == (running, idle)
        assert containers_of(engine, run_id) == []
        assert not engine.api.volumes(filters={"name": mounts[0]["Name"]})["Volumes"]
        assert engine.api.inspect_container(kept)["State"]["Running"]
        assert engine.api.inspect_container(heir)["State"]["Status"] == "created"
        assert living.ended is None
        assert sweep(engine, state) == ()
        assert list(state.rglob("*.lock")) == []


def lose_engine(private_engine: PrivateEngine, run: Run, tiny: TinyImage, log: Path) -> None:
    with Container.started(run, spec(tiny), log=log) as c:
        c.wait_until(lambda: c.tail or None, what="line", timeout_s=SOON_S)
        private_engine.kill()
        c.wait_until(lambda: None, what="DSM", timeout_s=SOON_S)


@forgive_the_sdk
def test_an_engine_that_is_killed_ends_every_wait(
    tiny: TinyImage, private_engine: PrivateEngine, tmp_path: Path
) -> None:
    with connect() as engine:
        image = tiny.import_into(engine)
        with Run(engine, tmp_path / "state") as run:
            with pytest.raises(EngineGone, match=r"went away .*while waiting for DSM") as caught:
                lose_engine(private_engine, run, tiny, tmp_path / "log")
            assert caught.value.tail == ("here",)
        with pytest.raises(CannotRun, match="No Docker engine answers"):
            connect()
        with pytest.raises(EngineGone, match="went away when it was to describe itself"):
            engine.facts  # noqa: B018
        private_engine.start()
        # The connection serves again, and the container that could not be removed is.
        assert engine.facts.cores == os.cpu_count()
        assert len(sweep(engine, tmp_path / "state")) == 1
        assert engine.api.containers(all=True) == []
        images.remove(engine, image.id)


@forgive_the_sdk
def test_an_engine_that_is_stopped_ends_a_stream(
    tiny: TinyImage, private_engine: PrivateEngine, tmp_path: Path
) -> None:
    with connect() as engine:
        tiny.import_into(engine)
        with (
            Run(engine, tmp_path / "state") as run,
            contextlib.suppress(EngineGone),  # of the removal
            Container.started(run, spec(tiny, "exec sleep 600"), log=tmp_path / "log") as c,
            c.open_stream(["cat"]) as stream,
        ):
            stream.settimeout(SOON_S)
            stream.sendall(b"word")
            assert stream.recv(100) == b"word"
            private_engine.stop()
            assert stream.recv(100) == b""
            with pytest.raises(MachineFailed):
                c.exec(["true"])


def test_an_engine_whose_disk_is_full(
    tiny: TinyImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = PrivateEngine(tmp_path / "d", network=False, room_bytes=40 * MIB)
    monkeypatch.setenv("DOCKER_HOST", small.address)
    try:
        small.start()
        with connect() as engine, Run(engine, tmp_path / "state") as run:
            image = tiny.import_into(engine)
            with (
                Container.created(run, spec(tiny)) as c,
                pytest.raises(NoRoom, match=r"disk is full; it could not write /big"),
            ):
                c.write_files({"/big": bytes(60 * MIB)})
            with Container.created(run, spec(tiny)) as c:
                c.write_files({"/big": os.urandom(20 * MIB)})
                with pytest.raises(NoRoom, match=r"disk is full; it could not commit"):
                    commit(c, Changes(), message="")
            assert engine.api.images(all=True, quiet=True) == [image.id]
            assert engine.api.containers(all=True) == []
    finally:
        small.destroy()
