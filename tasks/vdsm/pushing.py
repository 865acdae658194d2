"""Pushing to a registry, which Synology's EULA forbids in most cases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tasks.core.errors import BadInput, VmbakeError
from tasks.core.options import words_of
from tasks.core.stage import Site, Step
from tasks.docker import images, registry
from tasks.docker.engine import Engine, connect
from tasks.docker.registry import Platform

ARCHITECTURE = re.compile(r"[a-z0-9]+")


def problems(
    site: Site, *, accel: str, accept_eula: bool, architectures: str, **_: Any
) -> Iterator[VmbakeError]:
    """Why nothing is pushed."""
    if not accept_eula:
        yield BadInput(
            "Nothing was pushed. Synology's EULA lets DSM run on Synology's hardware only, and an "
            "image of it is a copy that others can fetch.",
            hint="If you may distribute it, a registry of your own company's say: --accept-eula.",
        )
    if architectures and accel == "kvm":
        yield BadInput(
            "--architectures is for TCG images: with KVM, DSM runs on amd64 only.",
            hint="Leave it out, or add --accel tcg.",
        )
    for name in words_of(architectures):
        if not ARCHITECTURE.fullmatch(name):
            yield BadInput(f"{name!r} in --architectures is no architecture; amd64 and arm64 are.")


def push(step: Step, name: str, tag: str, push_to: str, architectures: str) -> None:
    """Push an image; or its tag for this architecture, and a manifest list of all of them.

    Each architecture's image is built and pushed on a machine of its own; whoever pushes with all
    architectures named, when all are there, makes the list.

    Raises:
        BadInput: the image was not built.
        DownloadFailed: the registry did not take it.
    """
    target = push_to or name
    members = words_of(architectures)
    with connect() as engine:
        source = images.find(engine, f"{name}:{tag}")
        if source is None:
            raise BadInput(
                f"There is no image {name}:{tag} to push.", hint="Build it first: inv build.tcg"
            )
        own_tag = f"{tag}-{source.architecture}" if members else tag
        send(step, engine, source.id, f"{target}:{own_tag}")
    if members:
        step.say("assembling the manifest list")
        digest = registry.push_index(
            step.runner,
            step.work,
            f"{target}:{tag}",
            {f"{target}:{tag}-{each}": Platform(architecture=each) for each in members},
            insecure=is_loopback(target),
        )
        step.show(f"{target}:{tag}@{digest}")


def send(step: Step, engine: Engine, image_id: str, reference: str) -> None:
    """Push one image under a name, which it keeps."""
    images.tag(engine, image_id, reference)
    step.say(f"pushing {reference}")
    step.show(f"{reference}@{registry.push(engine, reference, step.progress)}")


def is_loopback(name: str) -> bool:
    """Whether a repository is on this machine, where Docker, too, takes plain HTTP."""
    host = name.partition("/")[0].rpartition(":")[0]
    return host in ("localhost", "127.0.0.1")
