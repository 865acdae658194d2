"""The user's source tree: which files belong to it, and how it is built."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYOUTS = Path(__file__).with_name("layouts.toml")
SAMPLE = Path(__file__).parents[2] / "samples" / "vexfs"
# What builds and version control leave in a tree, and no build needs.
LEFT_OUT_FOLDERS = {".git", ".hg", ".svn", "__pycache__", ".tmp_versions"}
# Cargo's results lie beside its manifest; elsewhere a folder of that name may be a Rust module.
CARGO_MANIFEST, CARGO_RESULTS = "Cargo.toml", "target"
LEFT_OUT_ENDINGS = (".ko", ".o", ".mod", ".mod.c", ".cmd", ".order", ".symvers", ".d")
PARTS = ("module_command", "module_file", "tool_command", "tool_file")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a tree is built: two commands, and the file (or pattern) that each leaves."""

    layout: str
    module_command: str
    module_file: str
    tool_command: str
    tool_file: str


def tree_of(source: str, root: Path) -> Path:
    """The folder that `--source` names; relative paths count from the checkout."""
    return (root / Path(source).expanduser()).resolve()


def files_of(tree: Path) -> list[Path]:
    """The files of a source tree, sorted, without version control and build results."""
    found = []
    for folder, names, files in os.walk(tree):
        left_out = LEFT_OUT_FOLDERS | ({CARGO_RESULTS} if CARGO_MANIFEST in files else set())
        names[:] = [name for name in names if name not in left_out]
        kept = [Path(folder, name) for name in files if not name.endswith(LEFT_OUT_ENDINGS)]
        # A socket or a pipe that a program left there has no content.
        found += [path for path in kept if path.is_symlink() or path.is_file()]
        found += [Path(folder, name) for name in names if Path(folder, name).is_symlink()]
    return sorted(found)


def overrides(params: Mapping[str, Any]) -> dict[str, str]:
    """The parts of the recipe that the user gave."""
    return {part: str(params[part]) for part in PARTS}


def recipe_of(tree: Path, overrides: dict[str, str]) -> Recipe:
    """The recipe for a tree: its layout's, with the parts that the user gave.

    The caller has checked the tree with `problems_of`.
    """
    layout = next(iter(layouts_for(tree)), {"name": "as given"})
    parts = {part: overrides.get(part) or layout.get(part, "") for part in PARTS}
    return Recipe(layout=layout["name"], **parts)


def problems_of(tree: Path, overrides: dict[str, str]) -> Iterator[str]:
    """What keeps a tree from being built, in paragraphs."""
    if not tree.is_dir():
        yield f"The source {tree} is not a folder. --source names the tree of the file system."
        return
    recipe = recipe_of(tree, overrides)
    missing = [part for part in PARTS if not getattr(recipe, part)]
    if missing:
        expected = "; or ".join(
            f"{' and '.join(layout['recognised'])} (layout {layout['name']})"
            for layout in layouts()
        )
        flags = ", ".join(f"--{part.replace('_', '-')}" for part in missing)
        yield (
            f"The source {tree} has none of the layouts that vmbake knows: {expected}. "
            f"Name a tree that has one, or say how to build this one with {flags}."
        )


def layouts() -> list[dict[str, Any]]:
    """All layouts, in the order in which they are tried."""
    return list(tomllib.loads(LAYOUTS.read_text(encoding="utf-8"))["layout"])


def layouts_for(tree: Path) -> list[dict[str, Any]]:
    """The layouts that a tree fits."""
    return [
        layout
        for layout in layouts()
        if all(has(tree, evidence) for evidence in layout["recognised"])
    ]


def has(tree: Path, evidence: str) -> bool:
    """Whether a tree has `FILE`, or `FILE: TEXT` with a line that begins with TEXT."""
    name, _, text = evidence.partition(": ")
    path = tree / name
    if not path.is_file():
        return False
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return not text or any(line.startswith(text) for line in lines)
