"""The manifest of an image: what it is, what went into it, and what it contains."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.core.store import Result

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Names:
    """The file names of one image in the output folder."""

    image: str
    compressed: str
    manifest: str


def names(variant: str, version: str, ending: str) -> Names:
    """The names for a variant and version; `ending` is that of the compressed form."""
    stem = f"vexfs-{variant}-{version}"
    return Names(
        image=f"{stem}.qcow2",
        compressed=f"{stem}.qcow2{ending}",
        manifest=f"{stem}.manifest.json",
    )


def compose(
    *,
    variant: str,
    version: str,
    base: str,
    made: Mapping[str, Result],
    artifacts: Mapping[str, str],
) -> str:
    """The manifest as JSON text. Sizes are in bytes, times in seconds, digests SHA256 in hex.

    Args:
        made: the results that the image stands on, by task name.
        artifacts: the published name of each file of the result of `compress`.
    """
    disk, compiled, sealed = made["build-cloudimg"], made["compile-vexfs"], made["seal"]
    compressed = made["compress"]
    document = {
        "format": FORMAT,
        "name": "vexfs",
        "version": version,
        "variant": variant,
        "base": {
            "name": base,
            **disk.facts["origin"],
            "sha256": disk.outputs["disk.qcow2"]["sha256"],
        },
        "engine": sealed.record["inputs"]["engine"],
        "kernel": sealed.facts["kernel"],
        "module": compiled.facts["module"] | {"vermagic": sealed.facts["vermagic"]},
        "tool": compiled.facts["tool"] | {"version": sealed.facts["tool_version"]},
        "source": compiled.facts["source"],
        "packages": sealed.facts["packages"],
        "artifacts": {artifacts[name]: output for name, output in compressed.outputs.items()},
        "virtual_size_bytes": compressed.facts["virtual_size_bytes"],
        "stages": {name: timing(result) for name, result in made.items()},
        "tools": tools_of(made.values()),
    }
    return json.dumps(document, indent=1) + "\n"


def timing(result: Result) -> dict[str, Any]:
    """When a stage was made, how long it took, and from what."""
    record = result.record
    return {
        "seconds": record["seconds"],
        "finished": record["finished"],
        "fingerprint": record["key"],
    }


def tools_of(results: Iterable[Result]) -> dict[str, str]:
    """The versions of the outside programs that the stages used."""
    prefix = "tool "
    return {
        name.removeprefix(prefix): value
        for result in results
        for name, value in result.record["inputs"].items()
        if name.startswith(prefix)
    }
