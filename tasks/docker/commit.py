"""New images from containers: as they are, or only some of their files over a base image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tasks.core.errors import BadInput, VerificationFailed, VmbakeError
from tasks.docker import files, images
from tasks.docker.container import Container
from tasks.docker.engine import Engine, Progress
from tasks.docker.failures import translated
from tasks.docker.images import Image
from tasks.docker.registry import split_reference
from tasks.docker.runs import RUN_LABEL, Run
from tasks.docker.spec import ContainerSpec

# Gigabytes are read and written, with no word from the engine in between.
COMMIT_TIMEOUT_S = 3600.0
# The engine wants a command for every container, also for one that is never started.
NO_COMMAND = ("none",)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What an image shall have that its container doesn't; all else is inherited.

    Args:
        env, labels: added, or instead of those of the same name. Everybody can read them.
        entrypoint, command: instead of those of the container's image.
        ports: to be exposed as well, such as `5000/tcp`.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    ports: tuple[str, ...] = ()


def commit(container: Container, changes: Changes, *, message: str, name: str = "") -> Image:
    """Make an image of a container's files. Volumes are not in it.

    Of the settings it has those of the container's image, the variables and labels that the
    container was made with, and `changes`; not the container's command.

    Args:
        message: for the image's history, where everybody can read it.
        name: `NAME:TAG` to give it, if it is to have one. The engine does so at once, so that
            nobody who is killed leaves an image that he can't find by its name.

    Raises:
        NoRoom: the engine's disk is full.
        VerificationFailed: the image is not what it should be; it was removed.
        CommandFailed, EngineGone, TimedOut: the engine did not do it.
    """
    engine = container.engine
    base = images.require(engine, str(container.inspect()["Image"]))
    repository, tag = split_reference(name) if name else (None, None)
    with (
        engine.client(COMMIT_TIMEOUT_S) as api,
        translated(f"commit the container {container.name}"),
    ):
        made = api.commit(
            container.id, repository, tag, message=message, conf=settings(base, changes)
        )
    with removed_on_failure(engine, str(made["Id"])):
        image = images.require(engine, str(made["Id"]))
        verify(image, base, container.spec, changes)
    return image


def transplant(
    run: Run,
    source: Container | Image,
    base: Image,
    paths: tuple[str, ...],
    changes: Changes,
    *,
    message: str,
    on_progress: Progress | None = None,
) -> Image:
    """Make an image of `base` and some files of `source`, in one layer more than the base has.

    Nothing is started, and no builder is needed.

    Args:
        source: a container, which should not change meanwhile, or an image.
        paths: absolute paths of files or folders, in the source and in the result.
        on_progress: called for each path with the bytes done, and their total if it is a file.

    Raises:
        BadInput: a path is in a volume of the base, where an image keeps nothing.
        CommandFailed: the source has no such path, or the engine refused.
        NoRoom, EngineGone, TimedOut, VerificationFailed: as `commit`. Nothing is left behind.
    """
    refuse_volumes(base, paths)
    with ExitStack() as stack:
        if isinstance(source, Image):
            source = stack.enter_context(Container.created(run, idle(source, "source")))
        target = stack.enter_context(Container.created(run, idle(base, "target")))
        with run.engine.client(COMMIT_TIMEOUT_S) as api:
            for path in paths:
                files.copy(api, source.name, target.name, path, on_progress)
        return commit(target, changes, message=message)


def idle(image: Image, name: str) -> ContainerSpec:
    """A container of an image that is not to be started."""
    has_command = image.entrypoint or image.command
    return ContainerSpec(
        image=image.id, name=name, network="none", command=None if has_command else NO_COMMAND
    )


def refuse_volumes(base: Image, paths: tuple[str, ...]) -> None:
    """Check that an image of the base can hold these paths.

    Raises:
        BadInput: one is not absolute, or in a volume.
    """
    for path in map(PurePosixPath, paths):
        if not path.is_absolute() or path == PurePosixPath("/"):
            raise BadInput(f"{path} is no absolute path of a file or folder.")
        for volume in base.volumes:
            if path.is_relative_to(volume) or PurePosixPath(volume).is_relative_to(path):
                raise BadInput(
                    f"{path} can't be put into an image of {base.id}: {volume} is a volume there, "
                    "and an image keeps nothing of a volume.",
                    hint="Keep the files in another folder.",
                )


def settings(base: Image, changes: Changes) -> dict[str, Any]:
    """The settings to send with a commit.

    The engine adds what is missing from the container's own, name by name: variables, labels,
    ports, volumes, the health check. Entrypoint and command are named always, lest the container's
    own get into the image.
    """
    entrypoint = base.entrypoint if changes.entrypoint is None else changes.entrypoint
    command = base.command if changes.command is None else changes.command
    return {
        "Env": [f"{name}={value}" for name, value in changes.env.items()],
        # The container's says which run it is of; the image is of none.
        "Labels": {**changes.labels, RUN_LABEL: ""},
        "Entrypoint": list(entrypoint),
        "Cmd": list(command),
        "ExposedPorts": {port: {} for port in changes.ports},
    }


def verify(image: Image, base: Image, spec: ContainerSpec, changes: Changes) -> None:
    """Check that an image has what its base has, and the changes.

    Raises:
        VerificationFailed: it has not.
    """
    wrong = [
        name
        for name, right in {
            "variables": {**base.env, **spec.env, **changes.env}.items() <= image.env.items(),
            "labels": {**base.labels, **changes.labels, RUN_LABEL: ""}.items()
            <= image.labels.items(),
            "volumes": base.volumes <= image.volumes,
            "ports": base.ports | set(changes.ports) <= image.ports,
            "health check": base.healthcheck == image.healthcheck,
            "layers": image.layers[: len(base.layers)] == base.layers,
        }.items()
        if not right
    ]
    if wrong:
        raise VerificationFailed(
            f"The image that was made from {base.id} lost or mixed up its {', '.join(wrong)}."
        )


@contextlib.contextmanager
def removed_on_failure(engine: Engine, image_id: str) -> Iterator[None]:
    """Leave no image behind if the block fails."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(VmbakeError):
            images.remove(engine, image_id)
        raise
