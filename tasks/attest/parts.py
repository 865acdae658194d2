"""What is in an image beside the distribution's packages: module, tool, the tool's crates."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks.core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Part:
    """One component.

    Args:
        sha256: of its file; "" for a crate, which is no file in the image.
        registry: whether it is from the registry of crates; else it is of the user's source.
        needs: indices into the parts, of what it is made of.
        license: as it says itself; "" if that is not known.
    """

    kind: Literal["module", "tool", "crate"]
    name: str
    version: str
    sha256: str = ""
    registry: bool = False
    needs: tuple[int, ...] = ()
    license: str = ""


def parts_of(manifest: Mapping[str, Any], cargo_lock: Path | None) -> tuple[Part, ...]:
    """The parts of an image: module, tool, then the crates that the tool is made of.

    Raises:
        BadInput: the Cargo.lock is none.
        KeyError, TypeError: the manifest is none.
    """
    # Images of older versions say nothing of licenses.
    licenses: Mapping[str, str] = manifest["tool"].get("licenses", {})
    own_license = {
        "module": manifest["module"].get("license", ""),
        "tool": license_of(manifest["tool"]["file"], licenses),
    }
    module, tool = (
        Part(
            kind=kind,
            name=manifest[kind]["file"],
            version=manifest["version"],
            sha256=manifest[kind]["sha256"],
            license=own_license[kind],
        )
        for kind in ("module", "tool")
    )
    crates = tuple(
        crate if crate.registry else replace(crate, license=licenses.get(crate.name, ""))
        for crate in (crates_of(cargo_lock, first=2) if cargo_lock else ())
    )
    # A workspace may have several crates of its own; the tool is made of them all.
    own = tuple(2 + index for index, crate in enumerate(crates) if not crate.registry)
    return (module, replace(tool, needs=own), *crates)


def license_of(tool: str, licenses: Mapping[str, str]) -> str:
    """That of the crate with the tool's name, or the one that all have; "" if there is neither."""
    different = set(licenses.values())
    return licenses.get(tool, different.pop() if len(different) == 1 else "")


def crates_of(cargo_lock: Path, first: int) -> tuple[Part, ...]:
    """The crates in a Cargo.lock, which get the indices from `first` on.

    https://doc.rust-lang.org/cargo/guide/cargo-toml-vs-cargo-lock.html; a dependency is named as
    briefly as it is unambiguous: `NAME`, `NAME VERSION` or `NAME VERSION (SOURCE)`.

    Raises:
        BadInput: it is no Cargo.lock.
    """
    try:
        listed = tomllib.loads(cargo_lock.read_text(encoding="utf-8")).get("package", [])
        named: dict[str, int] = {}
        for index, crate in enumerate(listed, first):
            brief = f"{crate['name']} {crate['version']}"
            for name in (crate["name"], brief, f"{brief} ({crate.get('source')})"):
                named[name] = index
        return tuple(
            Part(
                kind="crate",
                name=crate["name"],
                version=crate["version"],
                registry="source" in crate,
                needs=tuple(named[name] for name in crate.get("dependencies", [])),
            )
            for crate in listed
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{cargo_lock} is no Cargo.lock ({type(error).__name__}: {error}).",
            hint="`cargo generate-lockfile` writes it anew.",
        ) from None
