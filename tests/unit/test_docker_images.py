"""What is asked of an engine, what it answers, and what a commit must keep."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import BadInput, VerificationFailed
from tasks.docker.commit import Changes, refuse_volumes, settings, verify
from tasks.docker.files import archive
from tasks.docker.images import Image, environment_from, image_from
from tasks.docker.spec import ContainerSpec, request


def test_a_request_says_all_and_no_more() -> None:
    spec = ContainerSpec(
        image="vdsm:7.41",
        name="dsm",
        env={"KVM": "N", "ARGUMENTS": "-qmp unix:/x,server=on"},
        labels={"a": "b"},
        ports={5000: 0, 445: 4450},
        caps=("NET_ADMIN",),
        devices=("/dev/net/tun",),
        mounts={Path("/cache/dsm.pat"): "/boot.pat"},
        stop_signal="SIGTERM",
        grace_s=120,
    )
    assert request(spec, {"run": "1"}) == {
        "Image": "vdsm:7.41",
        "Env": ["KVM=N", "ARGUMENTS=-qmp unix:/x,server=on"],
        "Labels": {"a": "b", "run": "1"},
        "ExposedPorts": {"5000/tcp": {}, "445/tcp": {}},
        "StopSignal": "SIGTERM",
        "StopTimeout": 120,
        "HostConfig": {
            "NetworkMode": "bridge",
            "PortBindings": {
                "5000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
                "445/tcp": [{"HostIp": "127.0.0.1", "HostPort": "4450"}],
            },
            "CapAdd": ["NET_ADMIN"],
            "Devices": [
                {
                    "PathOnHost": "/dev/net/tun",
                    "PathInContainer": "/dev/net/tun",
                    "CgroupPermissions": "rwm",
                }
            ],
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/cache/dsm.pat",
                    "Target": "/boot.pat",
                    "ReadOnly": True,
                }
            ],
            "SecurityOpt": ["no-new-privileges"],
        },
    }
    changed = replace(spec, entrypoint=("/bin/sh", "-c"), command=("a b",), hostname="dsm")
    body = request(changed, {})
    assert (body["Entrypoint"], body["Cmd"], body["Hostname"]) == (
        ["/bin/sh", "-c"],
        ["a b"],
        "dsm",
    )


def test_archives_are_the_same_every_time() -> None:
    entry = tarfile.TarInfo("disk.img")
    entry.size = 3
    assert archive([(entry, b"abc")]) == archive([(entry, b"abc")])
    with tarfile.open(fileobj=io.BytesIO(archive([(entry, b"abc")]))) as tar:
        assert tar.getmember("disk.img").mtime == 0


FOUND: dict[str, Any] = {
    "Id": "sha256:1",
    "RepoTags": ["vdsm:7.41"],
    "RepoDigests": None,
    "Created": "2026-11-22T12:42:43.738738999Z",
    "Size": 1982291,
    "Architecture": "amd64",
    "RootFS": {"Type": "layers", "Layers": ["sha256:a"]},
    "Config": {
        "Env": ["A=1=2", "EMPTY=", 'QUOTED="x y"'],
        "Labels": None,
        "Entrypoint": ["/usr/bin/tini"],
        "Volumes": {"/storage": {}},
        "ExposedPorts": {"5000/tcp": {}},
        "Healthcheck": {"Test": ["CMD-SHELL", "/run/check.sh"]},
    },
}


def test_an_image_is_read_from_the_answer() -> None:
    image = image_from(FOUND)
    assert image.env == {"A": "1=2", "EMPTY": "", "QUOTED": '"x y"'}
    assert image.created == datetime(2026, 11, 22, 12, 42, 43, 738738, tzinfo=UTC)
    assert (image.labels, image.command, image.digests) == ({}, (), ())
    assert image.healthcheck == {"Test": ["CMD-SHELL", "/run/check.sh"]}


def test_an_image_without_settings() -> None:
    image = image_from({**FOUND, "Config": None, "RepoTags": None, "RootFS": {"Type": "layers"}})
    assert (image.env, image.entrypoint, image.volumes) == ({}, (), frozenset())
    assert (image.tags, image.layers) == ((), ())
    assert environment_from(None) == {}


def test_settings_name_entrypoint_and_command_always() -> None:
    changes = Changes(env={"A": 'x "y" $z'}, labels={"record": "{}"}, ports=("445/tcp",))
    assert settings(image_from(FOUND), changes) == {
        "Env": ['A=x "y" $z'],
        "Labels": {"record": "{}", "org.vmbake.run": ""},
        "Entrypoint": ["/usr/bin/tini"],
        "Cmd": [],
        "ExposedPorts": {"445/tcp": {}},
    }
    own = settings(image_from(FOUND), Changes(entrypoint=("/e",), command=("c",)))
    assert (own["Entrypoint"], own["Cmd"]) == (["/e"], ["c"])


LOST: list[tuple[str, dict[str, Any]]] = [
    ("variables", {"env": {"EMPTY": "", "QUOTED": '"x y"', "NEW": "1"}}),
    ("variables", {"env": {"A": "1=2", "EMPTY": "", "QUOTED": '"x y"', "NEW": "0"}}),
    ("labels", {"labels": {}}),
    ("labels", {"labels": {"l": "1", "org.vmbake.run": "0123"}}),
    ("volumes", {"volumes": frozenset()}),
    ("ports", {"ports": frozenset({"5000/tcp"})}),
    ("health check", {"healthcheck": {}}),
    ("layers", {"layers": ("sha256:b", "sha256:a")}),
]


def committed(base: Image, changes: Changes) -> Image:
    return replace(
        base,
        env={**base.env, **changes.env},
        labels={**base.labels, **changes.labels, "org.vmbake.run": ""},
        ports=base.ports | set(changes.ports),
        layers=(*base.layers, "sha256:new"),
    )


@pytest.mark.parametrize(("what", "loss"), LOST)
def test_a_commit_that_lost_something_is_noticed(what: str, loss: dict[str, Any]) -> None:
    base = image_from(FOUND)
    changes = Changes(env={"NEW": "1"}, labels={"l": "1"}, ports=("445/tcp",))
    spec = ContainerSpec(image=base.id, name="x")
    right = committed(base, changes)
    verify(right, base, spec, changes)
    with pytest.raises(VerificationFailed, match=f"mixed up its {what}"):
        verify(replace(right, **loss), base, spec, changes)


@pytest.mark.parametrize("path", ["/storage", "/storage/disk.img", "storage/x", "/", "", "../x"])
def test_no_transplant_into_a_volume(path: str) -> None:
    with pytest.raises(BadInput, match=r"volume|absolute"):
        refuse_volumes(image_from(FOUND), ("/local/disk.img", path))


def test_a_folder_with_a_volume_in_it_is_refused_and_its_neighbour_is_not() -> None:
    base = replace(image_from(FOUND), volumes=frozenset({"/local/storage"}))
    with pytest.raises(BadInput, match="/local/storage is a volume"):
        refuse_volumes(base, ("/local",))
    refuse_volumes(base, ("/local/storage2", "/storage"))
