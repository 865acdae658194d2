"""The options of the CI tasks. Their defaults are in invoke.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.core.options import Option, Options, listed, within, words_of
from tasks.guest import cloudconfig

ROOT = Path(__file__).parents[2]
ACCELS = ("kvm", "tcg")
# They become a folder, a key of caches, and part of file names.
PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
COMMIT = re.compile(r"[0-9a-f]{7,64}")
LABEL = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,99}")


def option(name: str, help: str, **words: Any) -> Option:  # noqa: A002 - the field's name
    """An option of this room; no result depends on any, because the room keeps none."""
    return Option(
        name=name,
        help=help,
        key=f"ci.{name}",
        env=f"CI_{name.upper()}",
        matters=False,
        **words,
    )


def some_of(known: Callable[[], tuple[str, ...]]) -> Callable[[str], str]:
    """A check for lists of known words, with at least one in them."""

    def check(value: str) -> str:
        words = words_of(value)
        unknown = [word for word in words if word not in known()]
        if words and not unknown:
            return ""
        return f"it must be some of {listed(known())}, separated by commas."

    return check


def variants() -> tuple[str, ...]:
    """The variants that there are."""
    return cloudconfig.variants(ROOT / "cloud-init")


def plain_name(value: str) -> str:
    """What is wrong with the number of a build; empty means: on a desk."""
    if not value or PLAIN.fullmatch(value):
        return ""
    return "it becomes a folder's name: letters, digits and . _ - only, 64 at most."


def commit_digest(value: str) -> str:
    """What is wrong with a commit."""
    if not value or COMMIT.fullmatch(value):
        return ""
    return "a commit is 7 to 64 hexadecimal digits."


def runner_labels(value: str) -> str:
    """What is wrong with a table of runner labels."""
    for word in words_of(value):
        accel, _, label = word.partition("=")
        if accel not in ACCELS or not LABEL.fullmatch(label):
            return "it must be like kvm=ubuntu-24.04,tcg=ubuntu-24.04."
    return ""


OPTIONS = Options(
    [
        option("variants", "Variants to build, separated by commas", check=some_of(variants)),
        option("accel", "How QEMU runs guests", choices=("auto", *ACCELS)),
        option("into", "Folder that gets a folder per build; empty: OUTPUT/ci"),
        option("keep", "Builds whose folders stay; 0: all", kind=int, check=within(0, 10_000)),
        option("tag", "Tag, as v1.2.3, whose version the images get"),
        option("build_number", "Number of this build", check=plain_name),
        option("commit_sha", "Commit that is built", check=commit_digest),
        option("sign_key", "PEM file of the key that signs; empty: unsigned"),
        option("webhook_url", "Where the result is posted", secret=True),
        option("webhook_format", "Form of what is posted", choices=("json", "slack")),
        option("accels", "Accelerators of the matrix", check=some_of(lambda: ACCELS)),
        option("runners", "Label of the runner for each accelerator", check=runner_labels),
    ]
)
