"""The base image: vdsm/virtual-dsm with scripts that attach qcow2 disks."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

from tasks.core.digest import digest_of
from tasks.core.errors import Busy
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.docker import images
from tasks.docker.commit import Changes, commit
from tasks.docker.container import Container
from tasks.docker.engine import Engine
from tasks.docker.files import Content
from tasks.docker.images import Image
from tasks.docker.spec import ContainerSpec
from tasks.vdsm import kept, layout
from tasks.vdsm.contract import STORAGE
from tasks.vdsm.dsm import docker_run
from tasks.vdsm.layout import Layout

# One for each image of upstream's, so that no nameless ones pile up.
NAME = "vmbake-base"
ID_DIGITS = 12


def make(step: Step, reference: str) -> Facts:
    """Fetch the image if it is not there, change its scripts, and prove what was changed.

    Raises:
        BadInput: it is no vdsm/virtual-dsm of a known layout.
        CommandFailed, DownloadFailed: it can't be fetched.
    """
    with docker_run(step) as run:
        upstream = images.find(run.engine, reference)
        if upstream is None:
            step.say(f"pulling {reference}")
            upstream = images.pull(run.engine, reference, step.progress).image
        spec = ContainerSpec(image=upstream.id, name="base-image")
        with Container.created(run, spec) as container:
            texts = scripts_of(container)
            found = layout.recognise(texts)
            step.tell(f"{reference} is {found}")
            changed = layout.patched(found, texts)
            container.write_files(
                {path: Content(data=text.encode(), mode=0o755) for path, text in changed.items()}
                # Releases up to 7.47 want the folder to be there.
                | {f"{STORAGE}/.vmbake": Content(data=b"", mode=0o644)}
            )
            facts = {
                "reference": reference,
                "upstream": upstream.id,
                "layout": asdict(found),
                "scripts": digest_of(changed),
            }
            name = f"{NAME}:{upstream.id.removeprefix('sha256:')[:ID_DIGITS]}"
            before = images.find(run.engine, name)
            if before and is_made(before, step):
                return facts | {"image": before.id}
            # Whatever is made from it has that label, too.
            changes = Changes(labels={**kept.labels(step, facts), kept.UPSTREAM: upstream.id})
            image = commit(container, changes, message="vmbake: qcow2 disks", name=name)
        if before and before.id != image.id:
            remove_unused(run.engine, before)
    return facts | {"image": image.id}


def is_made(image: Image, step: Step) -> bool:
    """Whether it is what the stage makes: a build of another checkout was faster, and uses it."""
    same = image.labels.get(kept.FINGERPRINT) == step.fingerprint
    return same and not step.params["no_cache"]


def remove_unused(engine: Engine, image: Image) -> None:
    """Remove the image that had the name before, unless something was made from it."""
    with contextlib.suppress(Busy):
        images.remove(engine, image.id)


def scripts_of(container: Container) -> dict[str, str]:
    """The texts of the upstream files that matter, of those that the image has."""
    found = {path: container.find_file(path) for path in layout.FILES}
    return {path: data.decode() for path, data in found.items() if data is not None}


def layout_of(result: Result) -> Layout:
    """The layout of the base image that is the result of a stage."""
    facts: dict[str, Any] = result.facts
    return Layout(**facts["layout"])
