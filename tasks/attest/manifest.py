"""Reads what the manifest of an image says (tasks/vexfs/manifest.py writes it)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.core.errors import BadInput


def read(path: Path) -> dict[str, Any]:
    """A manifest from its file.

    Raises:
        BadInput: it can't be read or is no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no manifest of an image: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no manifest of an image.")
    return found


def image_name(manifest: Mapping[str, Any]) -> str:
    """The file name of the image itself; those of its compressed forms begin with it.

    Raises:
        KeyError, TypeError, ValueError: the manifest is none.
    """
    return min((str(name) for name in manifest["artifacts"]), key=len)


def compression(manifest: Mapping[str, Any]) -> str:
    """The ending of the compressed form; "" if there is none."""
    longest = max((str(name) for name in manifest["artifacts"]), key=len)
    return longest.removeprefix(image_name(manifest)).removeprefix(".")


def lifetime(manifest: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """When the first of an image's stages began, and when the last one was done.

    Raises:
        KeyError, TypeError, ValueError: the manifest is none.
    """
    ends = [
        (datetime.fromisoformat(stage["finished"]).astimezone(UTC), float(stage["seconds"]))
        for stage in manifest["stages"].values()
    ]
    if not ends:
        raise ValueError("no stages")
    return min(end - timedelta(seconds=took) for end, took in ends), max(end for end, _ in ends)


def vendor_of(packages: Mapping[str, str]) -> str:
    """Whose packages these are (name to version), as package URLs call it."""
    return "ubuntu" if "ubuntu" in packages.get("base-files", "") else "debian"
