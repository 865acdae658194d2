"""Has images and validations vouched for; what can't be done is told, and stops nothing."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks.artifacts.checks import Check
from tasks.attest import collection, images
from tasks.attest.build import DESK, Build, Variant
from tasks.ci.building import Attempt, Image
from tasks.ci.origin import Origin
from tasks.ci.timelines import records_of
from tasks.ci.validating import FOLDER, Record
from tasks.core.errors import BadInput, VmbakeError

if TYPE_CHECKING:
    from tasks.attest.signing import PrivateKey
    from tasks.core.store import Store

GROUP = "artifacts"
# What the stages keep for the bill of materials: stage, file.
DPKG_STATUS = ("seal", "dpkg-status")
CARGO_LOCK = ("compile-vexfs", "Cargo.lock")


def build_of(
    origin: Origin, attempts: Sequence[Attempt], records: Sequence[Record], started: datetime
) -> Build:
    """The run, as statements tell of it."""
    return Build(
        builder=origin.builder or DESK,
        invocation=origin.run_url,
        number=origin.build,
        commit=origin.commit,
        tag=origin.tag,
        repository=origin.repository,
        started=started.isoformat(),
        finished=datetime.now(UTC).isoformat(),
        versions={"python": platform.python_version()},
        variants=tuple(variant_of(attempt, records) for attempt in attempts),
    )


def variant_of(attempt: Attempt, records: Sequence[Record]) -> Variant:
    """What became of a variant."""
    if attempt.image is None:
        return Variant(name=attempt.name, outcome="failed", reason=attempt.reason)
    name = attempt.image.disk.name
    own = [record.validation for record in records if record.validation.image == name]
    outcome: Literal["passed", "failed", "built"] = "built"
    if own:
        outcome = "passed" if all(each.passed for each in own) else "failed"
    bad = [each for each in own if not each.passed]
    reason = next((each.error or "A check failed." for each in bad), "")
    files = tuple(path.name for path in attempt.image.files)
    return Variant(name=attempt.name, outcome=outcome, reason=reason, files=files)


def vouch(
    folder: Path,
    build: Build,
    made: Sequence[Image],
    store: Store,
    key: PrivateKey | None,
    say: Callable[[str], None],
) -> Iterator[Check]:
    """Write bills of materials, provenance and test results into `folder`; a check for each image.

    Args:
        made: the images whose files are in the folder.
    """
    for image in made:
        say(f"describing {image.name}")
        yield attempted(
            f"bill of materials and provenance of {image.name}",
            functools.partial(attest_image, folder, build, image, store, key),
        )
    for path in sorted((folder / FOLDER).glob("*.json")):
        yield attempted(
            f"test result {path.name}",
            functools.partial(images.attest_validation, path, key=key),
        )


def attest_image(
    folder: Path, build: Build, image: Image, store: Store, key: PrivateKey | None
) -> None:
    """Describe one image from what its stages kept.

    Raises:
        VmbakeError: something is missing, or not what the manifest says.
    """
    status, lock = kept(image, store, *DPKG_STATUS), kept(image, store, *CARGO_LOCK)
    if status is None:
        raise BadInput(
            f"The store has no list of the packages in {image.name} any more.",
            hint="inv vexfs.image --no-cache makes it anew.",
        )
    images.attest_image(
        folder / image.manifest.name, build, dpkg_status=status, cargo_lock=lock, key=key
    )


def kept(image: Image, store: Store, stage: str, name: str) -> Path | None:
    """A file that one of the image's stages left, if it is there."""
    for record in records_of(image, store):
        path = Path(store.results, record["stage"], record["key"], name)
        if record["stage"].endswith(f".{stage}") and path.is_file():
            return path
    return None


def attempted(name: str, act: Callable[[], object]) -> Check:
    """A check that passes if `act` does."""
    passed = Check(group=GROUP, name=name, command="", expected="It is written.", outcome="passed")
    try:
        act()
    except VmbakeError as error:
        return replace(passed, outcome="failed", reason=str(error))
    return passed


def seal(folder: Path, build: Build, key: PrivateKey | None) -> None:
    """Write what vouches for the folder as a whole, when all else is in it."""
    collection.seal(folder, build, key=key)


def links_to_seals() -> Iterable[str]:
    """The files that `seal` will write, whoever signs."""
    return (collection.BUILD_MANIFEST, collection.CHECKSUMS)
