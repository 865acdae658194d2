"""Two trees of files, and what differs between them beyond what may."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ALLOWED = Path(__file__).parents[1] / "e2e" / "differences.toml"
PRESENCE = "presence"
FIELDS = {"mode", "owner", "xattrs", "target", "sha256", PRESENCE}

# Path to what is there, by field.
Tree = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """One entry of differences.toml, which has what its fields mean."""

    path: str
    may: frozenset[str]
    variants: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs and may not, with both sides; and entries that nothing needed."""

    different: Mapping[str, tuple[Any, Any]]
    unused: frozenset[str]


def allowed(variant: str, file: Path = ALLOWED) -> list[Allowed]:
    """The entries for one variant."""
    found = []
    for entry in tomllib.loads(file.read_text())["difference"]:
        assert entry.keys() <= {"path", "may", "variants", "why"}, entry
        made = Allowed(
            path=entry["path"],
            may=frozenset(entry["may"]),
            variants=frozenset(entry.get("variants", [variant])),
        )
        assert made.may
        assert made.may <= FIELDS, f"{made.path}: {made.may - FIELDS}"
        if variant in made.variants:
            found.append(made)
    return found


def compare(one: Tree, two: Tree, entries: list[Allowed]) -> Comparison:
    """Compare two trees, but for what the entries allow."""
    different, used = {}, set()
    for path in sorted(one.keys() | two.keys()):
        sides = one.get(path), two.get(path)
        fields = differing(*sides)
        fitting = [entry for entry in entries if fnmatch(path, entry.path)]
        used |= {entry.path for entry in fitting if fields & entry.may}
        if fields - frozenset().union(*(entry.may for entry in fitting)):
            different[path] = sides
    return Comparison(different=different, unused=frozenset(entry.path for entry in entries) - used)


def differing(one: Mapping[str, Any] | None, two: Mapping[str, Any] | None) -> set[str]:
    """In which fields two files differ."""
    if one is None or two is None:
        present = one or two or {}
        # Whatever is in a folder is a difference by itself.
        return {PRESENCE} if present["mode"].startswith("d") else {PRESENCE, "sha256", "target"}
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
