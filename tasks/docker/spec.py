"""What a container is to be, and the request to the engine that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
GRACE_S = 10


def unexplained(code: int) -> str:
    """What an exit code means if nobody knows."""
    return ""


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """A container.

    Args:
        image: id or reference; it must be there.
        name: the stem of its name, which is made unique.
        env: variables. The engine keeps them with the container and with every image that is
            made from it: nothing secret. The same holds for labels and command.
        ports: TCP port in the container to the port on 127.0.0.1, 0 for any free one.
        caps: capabilities to add, such as NET_ADMIN.
        devices: device files of the engine's machine, such as /dev/net/tun.
        mounts: file or folder of the engine's machine to its place in the container, read-only.
        entrypoint, command: instead of the image's own.
        network: bridge, none, or the name of one that there is.
        hostname: None: the engine's choice.
        stop_signal: None: the image's own.
        grace_s: how long it may take to stop before it is killed.
        security: options as for `docker run --security-opt`.
        exit_reason: what an exit code of it means, in words that complete "exit code 88 (…)".
        exit_remedy: what to do about it, in a sentence.
    """

    image: str
    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[int, int] = field(default_factory=dict)
    caps: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    mounts: Mapping[Path, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    network: str = "bridge"
    hostname: str | None = None
    stop_signal: str | None = None
    grace_s: int = GRACE_S
    security: tuple[str, ...] = ("no-new-privileges",)
    exit_reason: Callable[[int], str] = unexplained
    exit_remedy: Callable[[int], str] = unexplained


def request(spec: ContainerSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    """The body of the Engine API's ContainerCreate; labels are added to the spec's own."""
    wanted: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": {**spec.labels, **labels},
        "ExposedPorts": {f"{port}/tcp": {} for port in spec.ports},
        "Entrypoint": words(spec.entrypoint),
        "Cmd": words(spec.command),
        "Hostname": spec.hostname,
        "StopSignal": spec.stop_signal,
        "StopTimeout": spec.grace_s,
        "HostConfig": host_config(spec),
    }
    return {key: value for key, value in wanted.items() if value is not None}


def host_config(spec: ContainerSpec) -> dict[str, Any]:
    """The part of the request that is about the engine's machine."""
    return {
        "NetworkMode": spec.network,
        "PortBindings": {
            f"{port}/tcp": [{"HostIp": HOST, "HostPort": str(host_port or "")}]
            for port, host_port in spec.ports.items()
        },
        "CapAdd": list(spec.caps),
        "Devices": [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"}
            for path in spec.devices
        ],
        "Mounts": [
            {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}
            for source, target in spec.mounts.items()
        ],
        "SecurityOpt": list(spec.security),
    }


def words(argv: tuple[str, ...] | None) -> list[str] | None:
    """A command line for JSON."""
    return None if argv is None else list(argv)
