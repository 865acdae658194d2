"""`inv build.tcg`, whole, against the stand-in: real engine, real QEMU, real browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.docker import images
from tasks.docker.container import Container
from tasks.docker.engine import Engine, connect
from tasks.docker.runs import Run
from tasks.docker.spec import ContainerSpec
from tasks.vdsm import probes
from tests.standins import docker_registry
from tests.standins.release_server import ReleaseServer, serving
from tests.standins.tiny_image import TinyImage
from tests.standins.vdsm import image as standin
from tests.standins.vdsm.guest import make_pat

pytest_plugins = ("tests.standins.engine",)
pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PASSWORD = "Tr0ub4dor.and.3"  # a word that is found nowhere by accident
BAD_INPUT, NO_TOOL, MACHINE_FAILED, PROVISION_FAILED = 2, 3, 8, 13
STEPS = ("wait-for-boot", "configure-admin", "post-wizard", "configure-system")
WEB, NFS = 5000, 2049


@dataclass(kw_only=True)
class House:
    """A checkout of its own, whose builds have names of their own in the engine."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.settings['DSM_IMAGE_NAME']}-tcg"

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *words],
            cwd=self.root,
            env={**os.environ, **self.settings, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def inv(
        self, *words: str, status: int = 0, env: dict[str, str] | None = None
    ) -> tuple[str, str]:
        process = self.start(*words, **(env or {}))
        out, err = process.communicate()
        assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
        return out, err

    def made(self, err: str) -> list[str]:
        """The stages that a run made, by what it said."""
        return re.findall(r"^(\S+): done after", err, re.MULTILINE)

    def states(self, *words: str) -> dict[str, str]:
        out, _ = self.inv("explain", "--json", *words)
        return {entry["stage"]: entry["state"] for entry in json.loads(out)}

    def containers(self, engine: Engine) -> list[str]:
        """Those of this checkout's runs, wherever they are in their lives."""
        names = [each["Names"][0] for each in engine.api.containers(all=True)]
        runs = {path.stem for path in self.root.glob(".vmbake/docker/*/*.lock")}
        return [name for name in names if any(run in name for run in runs)]


def checkout(folder: Path) -> Path:
    """The files of this checkout, also those that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def pat() -> Path:
    return make_pat()


@pytest.fixture(scope="session")
def server(pat: Path) -> Iterator[ReleaseServer]:
    with serving(pat.parent) as running:
        yield running


def house(folder: Path, server: ReleaseServer, pat: Path, name: str, **settings: str) -> House:
    return House(
        root=checkout(folder),
        settings={
            "DSM_PAT_URL": f"{server.url}/{pat.name}",
            "DSM_VERSION": "7.2.2",
            # Of a listed build, the real file's size would be enforced.
            "DSM_BUILD": "99999",
            "DSM_IMAGE_NAME": f"vmbake-e2e/{name}",
            "DSM_MEMORY": "512",
            "DSM_CPUS": "1",
            "DSM_SLOW": "3",
            "DSM_ADMIN_PASS": PASSWORD,
            **settings,
        },
    )


def remove_images(engine: Engine, name: str) -> None:
    for found in engine.api.images(name=name):
        with contextlib.suppress(Exception):
            engine.api.remove_image(found["Id"], force=True)


@dataclass(frozen=True, kw_only=True)
class Built:
    house: House
    out: str
    err: str


@pytest.fixture(scope="session")
def built(
    docker_engine: str, server: ReleaseServer, pat: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    """One build that every test may look at; its engine keeps the images until the end."""
    own = house(
        tmp_path_factory.mktemp("house"), server, pat, "one", DSM_BASE_IMAGE=standin.build("7.41")
    )
    out, err = own.inv("build.tcg")
    yield Built(house=own, out=out, err=err)
    with connect() as engine:
        remove_images(engine, own.name)


def test_the_build_goes_from_the_pat_to_a_tested_image(built: Built, engine: Engine) -> None:
    assert built.house.made(built.err) == [
        *("vdsm.fetch-pat", "vdsm.base-image", "vdsm.boot", "vdsm.savevm", "vdsm.commit"),
        *("vdsm.provision", "vdsm.flatten", "vdsm.smoke-test", "build.tcg"),
    ]
    name = built.house.name
    assert built.out.split() == [f"{name}:latest", f"{name}:7.2.2"]
    latest = images.require(engine, f"{name}:latest")
    assert images.require(engine, f"{name}:7.2.2").id == latest.id
    assert built.house.containers(engine) == []
    for step in STEPS:
        video = (built.house.root / "videos" / f"{step}.webm").read_bytes()
        assert video[:4] == b"\x1a\x45\xdf\xa3", f"{step}.webm is no Matroska file"


def test_the_image_has_the_base_and_the_disks_and_nothing_else(
    built: Built, engine: Engine
) -> None:
    latest = images.require(engine, f"{built.house.name}:latest")
    upstream = images.require(engine, built.house.settings["DSM_BASE_IMAGE"])
    # One layer with our scripts, one with the disks.
    assert latest.layers[:-2] == upstream.layers
    assert latest.volumes == upstream.volumes
    assert latest.ports >= upstream.ports
    assert set(upstream.env) <= set(latest.env)
    assert "-loadvm final" in latest.env["ARGUMENTS"]
    assert latest.labels["org.opencontainers.image.version"] == "7.2.2-99999"
    with Run(engine, built.house.root) as run:
        spec = ContainerSpec(image=latest.id, name="look", entrypoint=("/bin/sh",),
                             command=("-c", "exec sleep 600"))  # fmt: skip
        log = built.house.root / "look.log"
        with Container.started(run, spec, log=log) as container:
            listed = container.exec(["ls", "-A", "/dsm", "/"]).stdout
    assert b".pat" not in listed
    assert {b"DSM_VirtualDSM.boot.img", b"DSM_VirtualDSM.system.img", b"data.qcow2"} <= set(
        listed.split()
    )


def test_the_password_is_nowhere(built: Built, engine: Engine) -> None:
    written = [built.out, built.err]
    written += [
        path.read_text(errors="replace")
        for path in (built.house.root / ".vmbake").rglob("*")
        if path.suffix != ".pat" and path.is_file()
    ]
    for tag in ("latest", "ckpt-start-ready", "ckpt-final"):
        reference = f"{built.house.name}:{tag}"
        written.append(json.dumps(engine.api.inspect_image(reference)))
        written += images.history(engine, reference)
    assert [text[:200] for text in written if PASSWORD in text] == []


@pytest.mark.parametrize("arguments", [None, "-name mine"])
def test_a_user_starts_it_and_has_a_dsm(
    built: Built, engine: Engine, tmp_path: Path, arguments: str | None
) -> None:
    # As the documentation says: no rights, no devices. Whoever sets ARGUMENTS replaces the
    # image's own, and still gets the frozen DSM.
    spec = ContainerSpec(
        image=f"{built.house.name}:latest",
        name="user",
        ports={WEB: 0, NFS: 0},
        env={"ARGUMENTS": arguments} if arguments else {},
    )
    with Run(engine, tmp_path) as run, Container.started(run, spec, log=tmp_path / "log") as dsm:
        web, nfs = dsm.port(WEB), dsm.port(NFS)
        dsm.wait_until(lambda: probes.is_dsm(web) or None, what="DSM", timeout_s=60)
        probes.login(web, "ciadmin", PASSWORD)
        dsm.wait_until(lambda: probes.answers_nfs(nfs) or None, what="NFS", timeout_s=60)


def test_a_second_build_does_nothing(built: Built) -> None:
    out, err = built.house.inv("build.tcg")
    assert out == built.out
    assert built.house.made(err) == []
    assert set(built.house.states("build.tcg").values()) == {"fresh", "live"}


def test_an_edited_step_runs_again_from_the_checkpoint(built: Built, engine: Engine) -> None:
    before = images.require(engine, f"{built.house.name}:latest").id
    with edited_step(built.house):
        states = built.house.states("build.tcg")
        stale = [stage for stage, state in states.items() if state == "stale"]
        assert stale == ["vdsm.provision", "vdsm.flatten", "vdsm.smoke-test", "build.tcg"]
        _, err = built.house.inv("build.tcg")
        assert built.house.made(err) == stale
    assert images.require(engine, f"{built.house.name}:latest").id != before
    # What the new image replaced is gone, the checkpoint that it was made from is not.
    assert images.find(engine, before) is None
    assert images.find(engine, f"{built.house.name}:ckpt-start-ready")


@contextlib.contextmanager
def edited_step(house: House) -> Iterator[None]:
    """Say something else in the step that enables NFS, and take it back."""
    script = house.root / "scripts" / "provision_dsm.py"
    text = script.read_text()
    head, name, body = text.partition("\ndef configure_system(")
    assert name
    first, _, rest = body.partition('"""\n')
    second, _, rest = rest.partition("\n")
    script.write_text(f'{head}{name}{first}"""\n    assert True\n{second}\n{rest}')
    try:
        yield
    finally:
        script.write_text(text)


def test_a_checkpoint_can_be_named_and_must_fit(built: Built) -> None:
    own = built.house
    states = own.states("build.tcg", "--from-checkpoint", "ckpt-start-ready")
    assert states["vdsm.commit"] == "fresh"
    _, err = own.inv("build.tcg", "--from-checkpoint", "start-ready", "--memory", "600",
                     status=BAD_INPUT)  # fmt: skip
    assert "RAM" in err
    assert "512" in err
    _, err = own.inv("build.tcg", "--from-checkpoint", "post-wizard", status=BAD_INPUT)
    assert "There are: start-ready, final." in err
    _, err = own.inv("build.tcg", "--from-checkpoint", "nonsense", status=BAD_INPUT)
    assert "start-ready" in err
    out, _ = own.inv("vdsm.checkpoints")
    assert re.findall(r"^\S+ +(\S+)", out, re.MULTILINE) == ["start-ready", "final"]


def test_a_checkpoint_can_be_explored(built: Built, engine: Engine, tmp_path: Path) -> None:
    out, _ = built.house.inv("build.tcg", "--explore", "--from-checkpoint", "start-ready")
    address = re.search(r"http://127\.0\.0\.1:(\d+)", out)
    remove = re.search(r"docker rm -fv (\S+)", out)
    assert address
    assert remove
    try:
        # A later run must leave it alone.
        built.house.inv("vdsm.explore", "--accel", "tcg", "--from-checkpoint", "x", status=2)
        assert probes.is_dsm(int(address[1]), timeout_s=60)
    finally:
        engine.api.remove_container(remove[1], force=True, v=True)


def test_a_wrong_password_is_told_from_a_dsm_that_is_down(built: Built) -> None:
    _, err = built.house.inv(
        "vdsm.smoke-test", "--accel", "tcg", "--from-checkpoint", "final",
        env={"DSM_ADMIN_PASS": "Wr0ng.word"}, status=BAD_INPUT,
    )  # fmt: skip
    assert "password" in err


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When to kill a build, and how to make it come to that."""

    stage: str
    sign: str
    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


KILLS = (
    Kill(stage="vdsm.provision", sign="waiting for QEMU", words=("build.tcg",),
         env={"DSM_SERVER_NAME": "killed"}),
    Kill(stage="vdsm.provision", sign="post-wizard", words=("build.tcg",),
         env={"DSM_SERVER_NAME": "killed2"}),
    Kill(stage="vdsm.flatten", sign="10 %", words=("build.tcg", "--dsm-build", "99998")),
    Kill(stage="vdsm.smoke-test", sign="waiting for DSM", words=("build.tcg",),
         env={"DSM_BUILD": "99997"}),
)  # fmt: skip


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill.stage}: {kill.sign}")
def test_a_killed_build_goes_on_where_it_was(built: Built, engine: Engine, kill: Kill) -> None:
    own = built.house
    words = (*kill.words, "--from-checkpoint", "start-ready")
    killed(own, kill, words)
    _, err = own.inv(*words, env=kill.env)
    assert own.made(err)[0] == kill.stage
    assert own.containers(engine) == []


def test_what_a_killed_first_boot_left_is_removed(built: Built, engine: Engine) -> None:
    boot = Kill(stage="vdsm.boot", sign="wait-for-boot", words=())
    killed(built.house, boot, ("vdsm.boot", "--accel", "tcg", "--mac", "02:11:32:00:00:01"))
    assert built.house.containers(engine) != []
    volumes = engine.api.volumes()["Volumes"]
    _, err = built.house.inv("vdsm.smoke-test", "--accel", "tcg", "--no-cache",
                             "--from-checkpoint", "final")  # fmt: skip
    assert "removed the container of a killed run" in err
    assert built.house.containers(engine) == []
    assert len(engine.api.volumes()["Volumes"] or []) < len(volumes)


def killed(own: House, kill: Kill, words: tuple[str, ...]) -> None:
    """Start a build and kill it as soon as it says the sign."""
    process = own.start(*words, **kill.env)
    assert process.stderr
    sign = f"{kill.stage}: {kill.sign}"
    assert any(line.startswith(sign) for line in process.stderr), f"it never said {sign}"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_the_newer_layout_with_a_checkpoint_after_each_step(
    docker_engine: str, server: ReleaseServer, pat: Path, tmp_path: Path, engine: Engine
) -> None:
    faults = "dead-click=two-factor,reordered,reset-after-admin"
    own = house(
        tmp_path, server, pat, "two",
        DSM_BASE_IMAGE=standin.build("7.63", faults=faults), DSM_CHECKPOINTS="all",
    )  # fmt: skip
    try:
        own.inv("build.tcg")
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
        remove_images(engine, own.name)


def test_nothing_is_pushed_without_leave_and_a_list_is_made_with_it(
    built: Built, engine: Engine, tmp_path: Path
) -> None:
    words = ("vdsm.push", "--accel", "tcg", "--architectures", "amd64", "--push-to")
    registry = docker_registry.program(tmp_path / "program")
    with docker_registry.serving(registry, tmp_path / "registry") as address:
        target = f"{address}/team/dsm"
        _, err = built.house.inv(*words, target, status=BAD_INPUT)
        assert "EULA" in err
        assert not (tmp_path / "registry" / "images").exists()
        try:
            out, _ = built.house.inv(*words, target, "--accept-eula")
        finally:
            images.untag(engine, f"{target}:latest-amd64")
        member, listed = (line.rpartition("@")[2] for line in out.split())
        accept = "application/vnd.docker.distribution.manifest.list.v2+json"
        request = urllib.request.Request(
            f"http://{address}/v2/team/dsm/manifests/latest", headers={"Accept": accept}
        )
        with urllib.request.urlopen(request) as answer:
            found = json.loads(answer.read())
            assert answer.headers["Docker-Content-Digest"] == listed
    (entry,) = found["manifests"]
    assert (entry["digest"], entry["platform"]["architecture"]) == (member, "amd64")


def test_a_kept_container_is_left_running_and_says_how_to_end_it(
    built: Built, engine: Engine
) -> None:
    _, err = built.house.inv("vdsm.smoke-test", "--accel", "tcg", "--no-cache", "--keep",
                             "--from-checkpoint", "final")  # fmt: skip
    name = re.search(r"docker rm -fv (\S+)", err)
    assert name
    assert engine.api.inspect_container(name[1])["State"]["Running"]
    engine.api.remove_container(name[1], force=True, v=True)


def failing(
    folder: Path, server: ReleaseServer, pat: Path, faults: str, *words: str, status: int
) -> str:
    own = house(folder, server, pat, "bad", DSM_BASE_IMAGE=standin.build("7.41", faults=faults))
    _, err = own.inv(*words, status=status)
    with connect() as engine:
        assert own.containers(engine) == []
        assert images.find(engine, f"{own.name}:latest") is None
    return err


def test_a_container_that_dies_ends_the_build_at_once(
    docker_engine: str, server: ReleaseServer, pat: Path, tmp_path: Path
) -> None:
    err = failing(tmp_path, server, pat, "exit=64", "build.tcg", status=MACHINE_FAILED)
    assert "exit code 64" in err
    assert "the PAT" in err


def test_an_image_of_another_layout_is_refused(
    docker_engine: str, server: ReleaseServer, pat: Path, tmp_path: Path, tiny: TinyImage
) -> None:
    own = house(tmp_path, server, pat, "bad", DSM_BASE_IMAGE=tiny.reference)
    _, err = own.inv("build.tcg", status=BAD_INPUT)
    assert "no vdsm/virtual-dsm of a known layout" in err


def test_without_an_engine_nothing_begins(server: ReleaseServer, pat: Path, tmp_path: Path) -> None:
    own = house(tmp_path, server, pat, "bad", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    process = own.start("build.tcg")
    _, err = process.communicate()
    assert process.returncode not in (0, 1)
    assert "No Docker engine" in err
    assert "Traceback" not in err
