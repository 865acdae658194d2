"""A real registry on loopback: push, pull, logins, and one name for two architectures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import CommandFailed, DownloadFailed
from tasks.core.process import Runner
from tasks.docker import images
from tasks.docker.commit import Changes, commit
from tasks.docker.container import Container
from tasks.docker.engine import Engine, connect
from tasks.docker.registry import Platform, RegistryFailed, push, push_index
from tasks.docker.runs import Run
from tasks.docker.spec import ContainerSpec
from tests.standins import docker_registry
from tests.standins.ports import free_port
from tests.standins.tiny_image import TinyImage

pytest_plugins = ("tests.standins.engine",)
pytestmark = pytest.mark.integration

# tester:tested, as `htpasswd -nbB` makes it
HTPASSWD = "tester:$2b$05$abcdefghijklmnopqrstuuNVQLRXwkQuVBGVbGHyZUPG/tKnsypKG\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return docker_registry.program(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def registry(program: Path, tmp_path: Path) -> Iterator[str]:
    with docker_registry.serving(program, tmp_path / "registry") as address:
        yield address


@pytest.fixture
def names(engine: Engine) -> Iterator[list[str]]:
    """Names of images that are taken away in the end."""
    given: list[str] = []
    yield given
    for name in given:
        images.untag(engine, name)


def test_what_is_pushed_can_be_pulled_by_its_digest(
    engine: Engine, run: Run, tiny: TinyImage, registry: str, names: list[str]
) -> None:
    name = f"{registry}/vmbake/tiny"
    with Container.created(run, ContainerSpec(image=tiny.reference, name="test")) as c:
        c.write_files({"/more": b"x" * 100_000})
        image = commit(c, Changes(), message="")
    images.tag(engine, image.id, f"{name}:1")
    told: list[tuple[int, int | None]] = []
    digest = push(engine, f"{name}:1", lambda done, total: told.append((done, total)))
    assert digest.startswith("sha256:")
    assert told[-1][0] == told[-1][1]
    assert f"{name}@{digest}" in images.require(engine, image.id).digests
    images.remove(engine, image.id)
    assert images.find(engine, f"{name}@{digest}") is None

    pulled = images.pull(engine, f"{name}@{digest}")
    assert pulled.digest == digest
    assert pulled.image.id == image.id
    by_tag = images.pull(engine, f"{name}:1")
    names += by_tag.image.tags
    assert (by_tag.digest, by_tag.image.id) == (digest, image.id)
    images.remove(engine, image.id)
    assert images.find(engine, image.id) is None


def test_two_architectures_under_one_name(
    engine: Engine, run: Run, tiny: TinyImage, registry: str, names: list[str], tmp_path: Path
) -> None:
    name = f"{registry}/vmbake/tiny"
    members: dict[str, Platform] = {}
    with Container.created(run, ContainerSpec(image=tiny.reference, name="test")) as c:
        for platform in (Platform(architecture="amd64"), Platform(architecture="arm64")):
            image = commit(c, Changes(labels={"for": platform.architecture}), message="")
            images.tag(engine, image.id, f"{name}:{platform.architecture}")
            names.append(f"{name}:{platform.architecture}")
            members[f"{name}:{platform.architecture}"] = platform
    digests = {push(engine, member) for member in members}

    runner = Runner(tmp_path / "log")
    digest = push_index(runner, tmp_path / "cli", f"{name}:1", members, insecure=True)

    index = inspect(runner, tmp_path / "cli", f"{name}@{digest}")
    assert {entry["digest"] for entry in index["manifests"]} == digests
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    pulled = images.pull(engine, f"{name}:1")
    names += set(pulled.image.tags) - set(names)
    assert pulled.digest == digest
    assert pulled.image.labels["for"] == engine.facts.architecture

    with pytest.raises(RegistryFailed, match="has no such image") as caught:
        push_index(runner, tmp_path / "cli2", f"{name}:2", {f"{name}:missing": Platform(
            architecture="amd64")}, insecure=True)  # fmt: skip
    assert caught.value.log == tmp_path / "log"
    # What the CLI notes down stays where it was told to.
    assert (tmp_path / "cli").is_dir()


def inspect(runner: Runner, config: Path, reference: str) -> Any:
    argv: list[str | Path] = ["docker", "--config", config]
    argv += ["manifest", "inspect", "--insecure", reference]
    return json.loads(runner.output(argv, env={"DOCKER_CONTEXT": "default"}))


def test_a_login_is_needed_and_found(
    program: Path,
    tiny: TinyImage,
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with docker_registry.serving(program, tmp_path / "registry", HTPASSWD) as address:
        reference = f"{address}/vmbake/tiny:1"
        names.append(reference)
        login(tmp_path / "none", {}, monkeypatch)
        with connect() as engine:
            images.tag(engine, tiny.find_in(engine).id, reference)
            with pytest.raises(RegistryFailed, match="wants a login") as caught:
                push(engine, reference)
            assert "docker login" in caught.value.hint
            with pytest.raises(DownloadFailed, match="wants a login"):
                images.pull(engine, reference)
        login(tmp_path / "wrong", {address: "tester:wrong"}, monkeypatch)
        with connect() as engine, pytest.raises(RegistryFailed, match="wants a login"):
            push(engine, reference)
        login(tmp_path / "right", {address: "tester:tested"}, monkeypatch)
        with connect() as engine:
            digest = push(engine, reference)
            assert images.pull(engine, reference).digest == digest
        runner = Runner(tmp_path / "log")
        index = f"{address}/vmbake/tiny:index"
        members = {reference: Platform(architecture="amd64")}
        assert push_index(runner, tmp_path / "cli", index, members, insecure=True) != digest
        login(tmp_path / "none", {}, monkeypatch)
        with pytest.raises(RegistryFailed, match="wants a login"):
            push_index(runner, tmp_path / "cli2", index, members, insecure=True)


def login(folder: Path, accounts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the user who has these logins."""
    folder.mkdir(exist_ok=True)
    auths = {
        address: {"auth": base64.b64encode(account.encode()).decode()}
        for address, account in accounts.items()
    }
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


def test_a_registry_that_is_not_there(
    engine: Engine, tiny: TinyImage, names: list[str], registry: str
) -> None:
    reference = f"127.0.0.1:{free_port()}/vmbake/tiny:1"
    names.append(reference)
    images.tag(engine, tiny.find_in(engine).id, reference)
    with pytest.raises(RegistryFailed, match="does not answer"):
        push(engine, reference)
    with pytest.raises(DownloadFailed, match="does not answer"):
        images.pull(engine, reference)
    with pytest.raises(DownloadFailed, match="no such image"):
        images.pull(engine, f"{registry}/vmbake/missing:1")
    with pytest.raises(DownloadFailed, match="no such image"):
        images.pull(engine, f"{registry}/vmbake/missing@sha256:{'0' * 64}")
    with pytest.raises(CommandFailed, match="find the image"):
        push(engine, f"{registry}/vmbake/never-made:1")
