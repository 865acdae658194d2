"""Builds the variants one after the other; one that fails does not stop the others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.ci.rooms import Ended, Rooms

MANIFEST = ".manifest.json"
NO_MANIFEST = "It ended well, but named no manifest that is there."


@dataclass(frozen=True, kw_only=True)
class Image:
    """A finished image where its room has published it.

    Args:
        manifest: its path.
        document: what is in it.
    """

    manifest: Path
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """As in reports: `vexfs-minimal-1.0.0`."""
        return self.manifest.name.removesuffix(MANIFEST)

    @property
    def disk(self) -> Path:
        """The image itself: of its artifacts the one that is not compressed."""
        first = min(self.document["artifacts"], key=len)
        return self.manifest.with_name(first)

    @property
    def sha256(self) -> str:
        """The digest of the disk that the manifest promises."""
        return str(self.document["artifacts"][self.disk.name]["sha256"])

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that belong to it, the manifest last."""
        folder = self.manifest.parent
        names = list(self.document["artifacts"])
        sums = [f"{name}.sha256" for name in names if (folder / f"{name}.sha256").is_file()]
        return (*(folder / name for name in (*names, *sums)), self.manifest)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What became of the build of one variant.

    Args:
        image: None: it failed.
        reason: why it failed.
        stage: the stage that failed, and the seconds that it took; "": none did.
        started: when, in ISO 8601, UTC.
    """

    variant: str
    image: Image | None
    reason: str = ""
    stage: str = ""
    stage_seconds: float = 0.0
    started: str
    seconds: float

    @property
    def name(self) -> str:
        """As in reports; an image that isn't there has no version."""
        return self.image.name if self.image else f"vexfs-{self.variant}"


def build(rooms: Rooms, variant: str, flags: Sequence[str], say: Callable[[str], None]) -> Attempt:
    """Build one variant, whatever comes of it."""

    def tell(line: str) -> None:
        if line.startswith("vexfs."):
            say(f"{variant}: {line}")

    say(f"building {variant}")
    since, started = time.monotonic(), datetime.now(UTC).isoformat()
    timeout = ("--timeout", str(rooms.limit_s))
    words = ("vexfs.image", "--variant", variant, *flags, *timeout)
    ended = rooms.run(f"build-{variant}", words, tell)
    seconds = time.monotonic() - since
    image = find_image(ended, rooms.root) if ended.status == 0 else None
    stage, stage_seconds = ended.failed_stage
    return Attempt(
        variant=variant,
        image=image,
        reason="" if image else ended.reason or NO_MANIFEST,
        stage=stage,
        stage_seconds=stage_seconds,
        started=started,
        seconds=seconds,
    )


def not_tried(variant: str, reason: str) -> Attempt:
    """What is known of a variant whose build was not even begun."""
    started = datetime.now(UTC).isoformat()
    return Attempt(variant=variant, image=None, reason=reason, started=started, seconds=0.0)


def find_image(ended: Ended, root: Path) -> Image | None:
    """The image whose manifest the task named; a path is relative to where it ran."""
    for line in reversed(ended.lines):
        if line.endswith(MANIFEST) and (image := read_image(root / line.strip())):
            return image
    return None


def read_image(manifest: Path) -> Image | None:
    """The image of a manifest; None if there is no such manifest, or not all of its files."""
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
        image = Image(manifest=manifest, document=document)
        whole = bool(image.sha256) and all(path.is_file() for path in image.files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return image if whole else None
