"""Images on a real engine: named, removed, committed, and flattened without a builder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core.errors import BadInput, Busy, CommandFailed, VerificationFailed
from tasks.docker import commit as commits
from tasks.docker import images
from tasks.docker.commit import Changes, commit, transplant
from tasks.docker.container import Container
from tasks.docker.engine import Engine
from tasks.docker.files import Content
from tasks.docker.runs import Run
from tasks.docker.spec import ContainerSpec
from tests.standins.tiny_image import TinyImage

pytest_plugins = ("tests.standins.engine",)
pytestmark = pytest.mark.integration

SOON_S = 30.0
MIB = 1 << 20


@pytest.fixture
def mark(engine: Engine) -> Iterator[dict[str, str]]:
    """A label for the images of one test, which are removed."""
    label = {"org.vmbake.test.mark": secrets.token_hex(8)}
    yield label
    for image in images.by_labels(engine, label):
        images.remove(engine, image.id)
    assert images.by_labels(engine, label) == []


def spec(tiny: TinyImage, text: str, **env: str) -> ContainerSpec:
    return ContainerSpec(
        image=tiny.reference, name="test", command=(text,), env=env, network="none"
    )


def test_an_image_is_found_and_described(engine: Engine, tiny: TinyImage) -> None:
    image = images.require(engine, tiny.reference)
    assert image == images.find(engine, image.id)
    assert image.tags == (tiny.reference,)
    assert image.env == {"KEPT": "a b", "CHANGED": "old"}
    assert image.labels == {"org.vmbake.test": "tiny"}
    assert (image.entrypoint, image.command) == (("/bin/sh", "-c"), ("echo hello",))
    assert (image.volumes, image.ports) == (frozenset({"/data"}), frozenset({"5000/tcp"}))
    assert image.healthcheck["Test"] == ["CMD-SHELL", "true"]
    assert len(image.layers) == 1
    assert image.size_bytes > MIB
    assert image.architecture == engine.facts.architecture
    assert images.find(engine, "vmbake-no-such-image:1") is None
    assert images.find(engine, f"sha256:{'0' * 64}") is None
    with pytest.raises(CommandFailed, match="no image vmbake-no-such-image"):
        images.require(engine, "vmbake-no-such-image:1")


def test_names_come_and_go(engine: Engine, tiny: TinyImage) -> None:
    image = images.require(engine, tiny.reference)
    for name in ("vmbake-second:2", "127.0.0.1:5000/vmbake-third:3"):
        images.tag(engine, image.id, name)
        assert images.require(engine, name).id == image.id
        images.untag(engine, name)
        assert images.find(engine, name) is None
        images.untag(engine, name)
    assert images.require(engine, image.id).tags == (tiny.reference,)
    with pytest.raises(CommandFailed, match="tag"):
        images.tag(engine, image.id, "Not A Name:1")


def test_labels_find_images_newest_first(
    engine: Engine, run: Run, tiny: TinyImage, mark: dict[str, str]
) -> None:
    with Container.created(run, spec(tiny, "true")) as c:
        made = [commit(c, Changes(labels={**mark, "n": str(n)}), message="") for n in range(3)]
    # One with a child of its own and no name is found like the others.
    with Container.created(run, ContainerSpec(image=made[0].id, name="child")) as c:
        made.append(commit(c, Changes(labels={"n": "3"}), message=""))
    found = images.by_labels(engine, mark)
    assert [image.labels["n"] for image in found] == ["3", "2", "1", "0"]
    assert [image.id for image in found] == [image.id for image in reversed(made)]
    assert [image.id for image in images.by_labels(engine, {**mark, "n": "1"})] == [made[1].id]

    with pytest.raises(Busy, match="dependent child"):
        images.remove(engine, made[0].id)
    images.tag(engine, made[3].id, "vmbake-test-child:1")
    images.remove(engine, made[3].id)
    assert images.find(engine, "vmbake-test-child:1") is None
    # Its nameless parent is not taken with it.
    assert images.find(engine, made[0].id) is not None
    images.remove(engine, made[3].id)


def test_an_image_in_use_is_not_removed(
    engine: Engine, run: Run, tiny: TinyImage, mark: dict[str, str], tmp_path: Path
) -> None:
    with Container.created(run, spec(tiny, "true")) as c:
        image = commit(c, Changes(labels=mark), message="")
    images.tag(engine, image.id, "vmbake-test-used:1")
    with Container.created(run, ContainerSpec(image=image.id, name="user")) as user:
        with pytest.raises(Busy, match=f"in use by {user.name}"):
            images.remove(engine, image.id)
        with pytest.raises(Busy, match="is using its referenced image"):
            images.untag(engine, "vmbake-test-used:1")
        assert images.require(engine, image.id).tags == ("vmbake-test-used:1",)
    images.remove(engine, image.id)
    assert images.find(engine, image.id) is None


def test_a_commit_keeps_the_settings_and_takes_the_changes(
    engine: Engine, run: Run, tiny: TinyImage, mark: dict[str, str], tmp_path: Path
) -> None:
    base = tiny.find_in(engine)
    changes = Changes(
        env={"CHANGED": 'new "q" $x', "MORE": "1=2"},
        labels={**mark, "org.vmbake.record": '{"a": "b c"}'},
        ports=("445/tcp",),
    )
    text = "echo content >/made; echo lost >/data/made; sleep 600"
    with Container.started(run, spec(tiny, text, RUN="time"), log=tmp_path / "log") as c:
        c.wait_until(lambda: c.find_file("/data/made"), what="file", timeout_s=SOON_S)
        image = commit(c, changes, message="checkpoint start-ready", name="vmbake-test-made:1")
        assert c.ended is None
    assert image.env == {
        "KEPT": "a b", "CHANGED": 'new "q" $x', "MORE": "1=2", "RUN": "time"
    }  # fmt: skip
    assert image.labels == {
        **base.labels, **changes.labels, "org.vmbake.run": ""
    }  # fmt: skip
    # The container's own command is not the image's, and so not in its history either.
    assert (image.entrypoint, image.command) == (base.entrypoint, base.command)
    assert (image.volumes, image.ports) == (base.volumes, base.ports | {"445/tcp"})
    assert image.healthcheck == base.healthcheck
    assert image.layers[:-1] == base.layers
    assert image.tags == ("vmbake-test-made:1",)
    assert image.created > base.created
    with Container.started(
        run, ContainerSpec(image=image.id, name="look", network="none",
                           command=("cat /made; ls /data; echo $CHANGED",)), log=tmp_path / "look",
    ) as c:  # fmt: skip
        assert c.wait_end(SOON_S).code == 0
        assert c.tail == ("content", 'new "q" $x')


def test_entrypoint_and_command_can_be_changed(
    run: Run, tiny: TinyImage, mark: dict[str, str]
) -> None:
    changes = Changes(labels=mark, entrypoint=("/bin/cat",), command=("/etc/x y",))
    with Container.created(run, spec(tiny, "true")) as c:
        image = commit(c, changes, message="")
    assert (image.entrypoint, image.command) == (("/bin/cat",), ("/etc/x y",))


def test_a_commit_that_went_wrong_leaves_no_image(
    engine: Engine,
    run: Run,
    tiny: TinyImage,
    mark: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = commits.settings
    monkeypatch.setattr(commits, "settings", lambda *args: {**right(*args), "Env": ["KEPT=other"]})
    with (
        Container.created(run, spec(tiny, "true")) as c,
        pytest.raises(VerificationFailed, match="mixed up its variables"),
    ):
        commit(c, Changes(labels=mark), message="")
    assert images.by_labels(engine, mark) == []


def checkpoint(run: Run, tiny: TinyImage, mark: dict[str, str], files: dict[str, Content]) -> str:
    with Container.created(run, spec(tiny, "true")) as c:
        c.write_files(files)
        return commit(c, Changes(labels={**mark, "kind": "checkpoint"}), message="").id


def test_a_transplant_takes_the_files_and_nothing_else(
    engine: Engine, run: Run, tiny: TinyImage, mark: dict[str, str], tmp_path: Path
) -> None:
    base = tiny.find_in(engine)
    disk, small = os.urandom(24 * MIB), b"02:11:32:00:00:01\n"
    source = images.require(
        engine,
        checkpoint(
            run,
            tiny,
            mark,
            {
                "/storage/dsm/disk.img": Content(data=disk, mode=0o600, owner=7),
                "/storage/dsm/mac": Content(data=small),
                "/storage/tmp/boot.pat": Content(data=bytes(4 * MIB)),
                "/cookie": Content(data=b"secret"),
            },
        ),
    )
    told: list[tuple[int, int | None]] = []
    image = transplant(
        run,
        source,
        base,
        ("/storage/dsm", "/storage/tmp/boot.pat"),
        Changes(labels={**mark, "kind": "flat"}, env={"STORAGE": "/storage"}),
        message="flatten",
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert image.layers[:-1] == base.layers
    assert 28 * MIB <= image.size_bytes - base.size_bytes < 28.1 * MIB
    assert image.env == {**base.env, "STORAGE": "/storage"}
    assert (image.entrypoint, image.command) == (base.entrypoint, base.command)
    assert image.volumes == base.volumes
    assert told[-1] == (4 * MIB, 4 * MIB)
    assert told[0][1] is None
    with Container.created(run, ContainerSpec(image=image.id, name="look")) as c:
        assert c.read_file("/storage/dsm/disk.img") == disk
        assert c.read_file("/storage/dsm/mac") == small
        assert c.find_file("/cookie") is None
        c.start(tmp_path / "log")
        looked = c.wait_end(SOON_S)
    assert looked.code == 0
    body = ("stat -c '%n %a %u' /storage /storage/dsm /storage/dsm/disk.img",)
    with Container.started(
        run, ContainerSpec(image=image.id, name="look", command=body), log=tmp_path / "stat"
    ) as c:
        c.wait_end(SOON_S)
        assert c.tail == (
            "/storage 755 0", "/storage/dsm 755 0", "/storage/dsm/disk.img 600 7"
        )  # fmt: skip
    images.remove(engine, image.id)


def test_a_transplant_that_fails_leaves_nothing(
    engine: Engine, run: Run, tiny: TinyImage, mark: dict[str, str]
) -> None:
    base = tiny.find_in(engine)
    source = images.require(
        engine, checkpoint(run, tiny, mark, {"/storage/a": Content(data=bytes(8 * MIB))})
    )
    flat = Changes(labels={**mark, "kind": "flat"})

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    before = volumes(engine)
    with pytest.raises(KeyboardInterrupt):
        transplant(run, source, base, ("/storage",), flat, message="", on_progress=interrupt)
    with pytest.raises(CommandFailed, match="/storage/missing"):
        transplant(run, source, base, ("/storage/a", "/storage/missing"), flat, message="")
    for path in ("/data", "/data/x", "relative", "/"):
        with pytest.raises(BadInput, match=r"volume|absolute"):
            transplant(run, source, base, (path,), flat, message="")
    assert images.by_labels(engine, {**mark, "kind": "flat"}) == []
    assert containers(engine, run) == []
    assert volumes(engine) <= before
    # The engine itself was not harmed.
    image = transplant(run, source, base, ("/storage",), flat, message="")
    assert image.size_bytes - base.size_bytes == pytest.approx(8 * MIB, rel=0.01)


def containers(engine: Engine, run: Run) -> list[str]:
    found = engine.api.containers(all=True, filters={"name": run.id})
    return [name for entry in found for name in entry["Names"]]


def volumes(engine: Engine) -> set[str]:
    return {entry["Name"] for entry in engine.api.volumes()["Volumes"] or ()}


def test_a_base_without_a_command(
    engine: Engine, run: Run, tiny: TinyImage, mark: dict[str, str]
) -> None:
    bare = replace(tiny.find_in(engine), entrypoint=(), command=())
    with Container.created(run, commits.idle(bare, "bare")) as c:
        assert c.inspect()["State"]["Status"] == "created"
