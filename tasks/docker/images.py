"""Images in the engine: found, fetched, named and removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tasks.core.errors import Busy, CommandFailed
from tasks.docker.engine import Engine, Progress
from tasks.docker.failures import CONFLICT, NOT_FOUND, status_of, translated
from tasks.docker.registry import registry_trouble, split_reference, transfer


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image as the engine has it.

    Args:
        id: `sha256:…`, of its settings and layers.
        size_bytes: the sum of its layers, also of those that it shares.
        layers: the digests of its layers, the lowest first.
        tags: names with tag under which it is known.
        digests: `NAME@sha256:…` of where it was pulled from or pushed to.
        architecture: amd64, arm64 and so on.
        ports: TCP and UDP ports that it exposes, such as `5000/tcp`.
    """

    id: str
    size_bytes: int
    layers: tuple[str, ...]
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    created: datetime
    architecture: str
    env: Mapping[str, str]
    labels: Mapping[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    volumes: frozenset[str]
    ports: frozenset[str]
    stop_signal: str
    healthcheck: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """An image that was fetched, and the digest by which its registry knows it (`sha256:…`)."""

    image: Image
    digest: str


def find(engine: Engine, reference: str) -> Image | None:
    """The image of a name, an id, or `NAME@sha256:…`; None if the engine has none.

    Raises:
        EngineGone: the engine does not answer.
    """
    try:
        with translated(f"look for the image {reference}"):
            return image_from(engine.api.inspect_image(reference))
    except CommandFailed as error:
        if status_of(error) == NOT_FOUND:
            return None
        raise


def require(engine: Engine, reference: str) -> Image:
    """As `find`, for an image that must be there.

    Raises:
        CommandFailed: the engine has none.
        EngineGone: the engine does not answer.
    """
    image = find(engine, reference)
    if image is None:
        raise CommandFailed(f"The Docker engine has no image {reference}.")
    return image


def by_labels(engine: Engine, labels: Mapping[str, str]) -> list[Image]:
    """All images that have these labels with these values, newest first.

    An image inherits the labels of the one that it was made from.

    Raises:
        EngineGone: the engine does not answer.
    """
    filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
    with translated("list images"):
        # Without all=True it hides untagged images from which others were made.
        found = engine.api.images(all=True, quiet=True, filters=filters)
    # Another process may remove one meanwhile.
    images = [image for image in (find(engine, each) for each in set(found)) if image]
    return sorted(images, key=lambda image: image.created, reverse=True)


def pull(engine: Engine, reference: str, on_progress: Progress | None = None) -> Pulled:
    """Fetch an image; the engine verifies `NAME@sha256:…` itself.

    The SDK sets no limit to how long a registry may be silent here: only the run's own ends it.

    Args:
        on_progress: called with the bytes done and their total so far.

    Raises:
        DownloadFailed: no registry delivered it, with the reason.
        NoRoom: the engine's disk is full.
        EngineGone: the engine ended in the middle.
    """
    name, tag = split_reference(reference)
    with registry_trouble(f"pull {reference}"):
        messages = engine.api.pull(name, tag=tag, stream=True, decode=True)
        digest = transfer(messages, f"pull {reference}", "Downloading", on_progress)
    return Pulled(image=require(engine, reference), digest=digest)


def tag(engine: Engine, image_id: str, reference: str) -> None:
    """Give an image a name, `NAME:TAG`; it is taken from the image that has it now.

    Raises:
        CommandFailed: there is no such image, or the name is not usable.
        EngineGone: the engine does not answer.
    """
    name, tag_ = split_reference(reference)
    with translated(f"tag {image_id} as {reference}"):
        engine.api.tag(image_id, name, tag=tag_)


def untag(engine: Engine, reference: str) -> None:
    """Take a name away; harmless if there is none. The image stays if it has another one.

    Raises:
        Busy: it is the last name, and a container uses the image.
        EngineGone: the engine does not answer.
    """
    with removing(reference):
        engine.api.remove_image(reference, noprune=True)


def remove(engine: Engine, image_id: str) -> None:
    """Remove an image with all its names; harmless if it is gone.

    Images below it stay, also those without a name.

    Raises:
        Busy: a container uses it, running or not, or other images were made from it.
        EngineGone: the engine does not answer.
    """
    users = containers_using(engine, image_id)
    if users:
        raise Busy(
            f"The image {image_id} is in use by {', '.join(users)}.",
            hint="docker rm removes a container.",
        )
    with removing(image_id):
        engine.api.remove_image(image_id, force=True, noprune=True)


def history(engine: Engine, reference: str) -> list[str]:
    """The commands that an image says it was made with, the last one first.

    Raises:
        CommandFailed: there is no such image.
        EngineGone: the engine does not answer.
    """
    with translated(f"show the history of {reference}"):
        return [str(entry["CreatedBy"]) for entry in engine.api.history(reference)]


def containers_using(engine: Engine, image_id: str) -> list[str]:
    """The names of the containers that were made from an image itself, running or not.

    Raises:
        EngineGone: the engine does not answer.
    """
    with translated("list containers"):
        # The filter finds those of images made from it, too.
        found = engine.api.containers(all=True, filters={"ancestor": image_id})
    return [
        ", ".join(name.removeprefix("/") for name in entry["Names"])
        for entry in found
        if entry["ImageID"] == image_id
    ]


@contextlib.contextmanager
def removing(reference: str) -> Iterator[None]:
    """Errors while an image or a name is removed; that it is gone is none."""
    try:
        with translated(f"remove the image {reference}"):
            yield
    except CommandFailed as error:
        if status_of(error) == CONFLICT:
            raise Busy(error.what) from error
        if status_of(error) != NOT_FOUND:
            raise


def image_from(found: Mapping[str, Any]) -> Image:
    """An image from what ImageInspect answers; what newer engines leave out is empty."""
    config = found.get("Config") or {}
    return Image(
        id=found["Id"],
        size_bytes=int(found["Size"]),
        layers=tuple(found["RootFS"].get("Layers") or ()),
        tags=tuple(found.get("RepoTags") or ()),
        digests=tuple(found.get("RepoDigests") or ()),
        created=datetime.fromisoformat(found["Created"]),
        architecture=found["Architecture"],
        env=environment_from(config.get("Env")),
        labels=dict(config.get("Labels") or {}),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        volumes=frozenset(config.get("Volumes") or ()),
        ports=frozenset(config.get("ExposedPorts") or ()),
        stop_signal=config.get("StopSignal") or "",
        healthcheck=dict(config.get("Healthcheck") or {}),
    )


def environment_from(variables: list[str] | None) -> dict[str, str]:
    """Variables as the engine writes them, `NAME=value`; a value may hold anything."""
    return {name: value for name, _, value in (entry.partition("=") for entry in variables or ())}
