"""Results that are images: the engine keeps them, and their labels say what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.core.errors import BadInput
from tasks.core.stage import Facts, Site, Step
from tasks.core.store import Result, new_record
from tasks.docker import images
from tasks.docker.engine import Engine, connect
from tasks.docker.images import Image
from tasks.vdsm import restore
from tasks.vdsm.variant import (
    CHECKPOINTS,
    checkpoint_named,
    checkpoint_reference,
    machine_of,
    repository,
)

STAGE = "org.vmbake.stage"
FINGERPRINT = "org.vmbake.fingerprint"
FACTS = "org.vmbake.facts"
# The variant that an image belongs to; only images with its own label are cleaned up.
REPOSITORY = "org.vmbake.repository"
CHECKPOINT = "org.vmbake.checkpoint"
# The image of vdsm/virtual-dsm below; its QEMU is a part of the machine that a snapshot fits.
UPSTREAM = "org.vmbake.upstream"


class InEngine:
    """The keeper of stages whose result is an image."""

    def find(self, stage: str, fingerprint: str) -> Facts | None:
        """The facts of an image with that fingerprint; its other facts are on a label."""
        with connect() as engine:
            image = labelled(engine, stage, fingerprint)
        return json.loads(image.labels[FACTS]) | {"image": image.id} if image else None

    def damage(self, result: Result) -> str:
        """Why the image can't be used any more."""
        with connect() as engine:
            found = images.find(engine, str(result.facts["image"]))
        return "" if found else "its image was removed from the Docker engine"


class Bases(InEngine):
    """The keeper of base images; they are made from what a name stands for, which may change."""

    def find(self, stage: str, fingerprint: str) -> Facts | None:
        """As for every image, if it was made from what has the name now."""
        facts = super().find(stage, fingerprint)
        return facts if facts and not moved(facts) else None

    def damage(self, result: Result) -> str:
        """Why the image can't be used any more."""
        return super().damage(result) or moved(result.facts)


def moved(facts: Mapping[str, Any]) -> str:
    """What a base image's name stands for now, if it is another image of upstream's."""
    reference, upstream = str(facts["reference"]), str(facts["upstream"])
    with connect() as engine:
        now = images.find(engine, reference)
    # Without it, a build goes on with what was made from it.
    if now is None or now.id == upstream:
        return ""
    return f"{reference} is another image now ({now.id[:19]}, not {upstream[:19]})"


KEEPER = InEngine()
BASES = Bases()


def labelled(engine: Engine, stage: str, fingerprint: str) -> Image | None:
    """The newest image that a stage made under that fingerprint."""
    found = images.by_labels(engine, {STAGE: stage, FINGERPRINT: fingerprint})
    return next((image for image in found if FACTS in image.labels), None)


def labels(step: Step, facts: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a stage's image. Its facts have to be there for who has lost the record."""
    return {
        STAGE: step.name,
        FINGERPRINT: step.fingerprint,
        FACTS: json.dumps(facts, sort_keys=True),
    }


def image_id(result: Result) -> str:
    """The image that is the result of a stage."""
    return str(result.facts["image"])


def chosen(checkpoint: str) -> Any:
    """A hook for the stage that makes `checkpoint`: the one that the user named, if it is that."""

    def given(
        site: Site, *, accel: str, image_name: str, from_checkpoint: str, **params: Any
    ) -> Result | None:
        named = checkpoint_named(from_checkpoint)
        # Whichever stage is asked first says that there is no such name.
        if named != checkpoint and named in ("", *CHECKPOINTS):
            return None
        with connect() as engine:
            image = require_checkpoint(engine, image_name, accel, named)
        refuse_mismatch(image, checkpoint, accel=accel, **params)
        facts = json.loads(image.labels[FACTS]) | {"image": image.id}
        record = new_record(image.labels[STAGE], image.labels[FINGERPRINT], {}, facts)
        return Result(directory=site.state, record={**record, "outputs": {}})

    return given


def require_checkpoint(engine: Engine, image_name: str, accel: str, name: str) -> Image:
    """The image of a checkpoint of this variant.

    Raises:
        BadInput: there is none; those that there are, are listed.
    """
    checkpoint = checkpoint_named(name)
    if checkpoint in CHECKPOINTS:
        image = images.find(engine, checkpoint_reference(image_name, accel, checkpoint))
        if image is not None and image.labels.get(CHECKPOINT) == checkpoint:
            return image
    there = [found.labels[CHECKPOINT] for found in all_of(engine, image_name, accel)]
    if there:
        hint = f"There are: {', '.join(there)}."
    else:
        hint = f"There is none yet: build them with `inv build.{accel}`."
    raise BadInput(
        f"There is no checkpoint {checkpoint!r} of {repository(image_name, accel)}.", hint=hint
    )


def refuse_mismatch(image: Image, checkpoint: str, **params: Any) -> None:
    """Check that a snapshot fits the machine that is asked for.

    Raises:
        BadInput: it doesn't; QEMU itself would not always say so.
    """
    if reasons := restore.mismatches(machine_of(**params), image.labels):
        raise BadInput(
            f"The checkpoint {checkpoint} can't be restored: {' '.join(reasons)}",
            hint="Ask for the machine that it was saved on, or build it anew without "
            "--from-checkpoint.",
        )


def all_of(engine: Engine, image_name: str, accel: str) -> list[Image]:
    """The checkpoints of a variant that have their tag, in the order in which they come to be."""
    prefix = repository(image_name, accel)
    found = {
        name: images.find(engine, checkpoint_reference(image_name, accel, name))
        for name in CHECKPOINTS
    }
    return [
        image
        for name, image in found.items()
        if image is not None
        and image.labels.get(CHECKPOINT) == name
        and image.labels.get(REPOSITORY) == prefix
    ]
