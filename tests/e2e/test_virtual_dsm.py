"""`inv build.tcg`, whole, against the stand-in: real engine, real QEMU, real browser."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest

from tasks.core.errors import BadInput
from tasks.docker import images
from tasks.docker.container import Container
from tasks.docker.engine import Engine
from tasks.docker.runs import Run
from tasks.docker.spec import ContainerSpec
from tasks.vdsm import probes
from tests.e2e.dsm_house import PASSWORD, Built, edited_step
from tests.standins import docker_registry

pytest_plugins = ("tests.standins.engine", "tests.e2e.dsm_fixtures")
pytestmark = pytest.mark.e2e

BAD_INPUT = BadInput.exit_code
STAGES = (
    *("vdsm.fetch-pat", "vdsm.base-image", "vdsm.boot", "vdsm.savevm", "vdsm.commit"),
    *("vdsm.provision", "vdsm.flatten", "vdsm.smoke-test", "build.tcg"),
)
STEPS = ("wait-for-boot", "configure-admin", "post-wizard", "configure-system")
WEB, NFS = 5000, 2049


def test_the_build_goes_from_the_pat_to_a_tested_image(built: Built, engine: Engine) -> None:
    # The base image may be that of the build beside it.
    assert {*built.house.made(built.err), "vdsm.base-image"} == set(STAGES)
    assert re.search(r"flatten: [\d.]+ [MG]B before, [\d.]+ [MG]B flattened", built.err)
    assert re.search(r"smoke-test: DSM answers [\d.]+ s after the start", built.err)
    name = built.house.name
    assert built.out.split() == [f"{name}:latest", f"{name}:7.2.2"]
    latest = images.require(engine, f"{name}:latest")
    assert images.require(engine, f"{name}:7.2.2").id == latest.id
    assert built.house.containers(engine) == []
    for step in STEPS:
        video = (built.house.root / "videos" / f"{step}.webm").read_bytes()
        assert video[:4] == b"\x1a\x45\xdf\xa3", f"{step}.webm is no Matroska file"


def test_a_build_beside_it_was_not_disturbed(built: Built, engine: Engine) -> None:
    beside = built.beside
    assert beside
    assert {*beside.house.made(beside.err), "vdsm.base-image"} == set(STAGES), beside.err
    name = beside.house.name
    assert beside.out.split() == [f"{name}:latest", f"{name}:7.2.2"]
    assert beside.house.containers(engine) == []


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
    assert latest.labels["org.opencontainers.image.base.digest"] == upstream.id
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
