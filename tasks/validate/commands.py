"""The validation's task: boot images and check that they are what they should be."""

from __future__ import annotations

import functools
from typing import Any

from invoke.collection import Collection
from invoke.parser.argument import Argument
from invoke.tasks import task

from tasks.core.stage import Stage, Step
from tasks.core.words import Words
from tasks.validate import request
from tasks.validate.options import OPTIONS


class TakingImages(Stage):
    """An action that is given images by the words after its name."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The flags, with `images` as the words."""
        words = Words("images", help=OPTIONS["images"].help)
        others = super().get_arguments(ignore_unknown_help)
        return [words, *(argument for argument in others if argument.names[0] != "images")]


action = functools.partial(task, klass=TakingImages, options=OPTIONS, kind="action")


@action(
    check=request.problems,
    requires=("qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen", "sfdisk", "debugfs"),
)
def image(
    step: Step,
    images: str,
    accel: str,
    firmware: str,
    memory: int,
    boot_timeout: int,
    ssh_timeout: int,
    quick: bool,
    verbose: bool,
) -> Any:
    """Boot images (all of output/ by default), check them."""
    settings = request.settings(step, accel, firmware, memory, boot_timeout, ssh_timeout, quick)
    request.carry_out(step, images, settings, verbose=verbose)


namespace = Collection(image)
