"""The end of a build: the tested image gets its names, and what it replaces goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from tasks.core.errors import VmbakeError
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.docker import images
from tasks.docker.engine import Engine, connect
from tasks.vdsm import kept
from tasks.vdsm.variant import checkpoint_reference, repository


def publish(step: Step, flat: Result, accel: str, image_tag: str, dsm_version: str) -> Facts:
    """Tag the flattened image, which has passed its smoke test.

    Raises:
        CommandFailed, EngineGone: the engine did not do it.
    """
    image_name = str(step.params["image_name"])
    name = repository(image_name, accel)
    references = list(dict.fromkeys(f"{name}:{tag}" for tag in (image_tag, dsm_version)))
    made = {
        result_name: result
        for result_name, result in step.stands_on.items()
        if isinstance(result, Result) and "image" in result.facts
    }
    with connect() as engine:
        for reference in references:
            images.tag(engine, kept.image_id(flat), reference)
            step.show(reference)
        for result in made.values():
            if checkpoint := result.facts.get("checkpoint"):
                reference = checkpoint_reference(image_name, accel, checkpoint)
                images.tag(engine, kept.image_id(result), reference)
        if not step.params["disable_image_cleanup"]:
            clean_up(step, engine, name, {kept.image_id(result) for result in made.values()})
    return {"image": kept.image_id(flat), "references": references}


def clean_up(step: Step, engine: Engine, name: str, current: Iterable[str]) -> None:
    """Remove the variant's images that have no name any more and that nothing current needs."""
    for image in images.by_labels(engine, {kept.REPOSITORY: name}):
        if image.tags or image.id in current:
            continue
        # An image that another one is made from stays as long as that one.
        with contextlib.suppress(VmbakeError):
            images.remove(engine, image.id)
            step.tell(f"removed the image {image.id[:19]}, which this build replaces")


class Tags(kept.InEngine):
    """The keeper of a finished build: its names must still name the image."""

    def find(self, stage: str, fingerprint: str) -> None:
        """A name carries no label: it is given anew, which costs nothing."""

    def damage(self, result: Result) -> str:
        """Which name is gone or another image's."""
        with connect() as engine:
            for reference in result.facts["references"]:
                found = images.find(engine, reference)
                if found is None or found.id != result.facts["image"]:
                    return f"{reference} is not the image that was built"
        return ""


KEEPER = Tags()
