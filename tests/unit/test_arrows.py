"""The arrows between the parts of the house, read from the imports, lazy ones included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TASKS = Path(__file__).parents[2] / "tasks"

LAYERS = {
    "core": set[str](),
    "qemu": {"core"},
    "docker": {"core"},
    "artifacts": {"core"},
    "attest": {"core", "artifacts"},
    "guest": {"core", "qemu", "artifacts"},
}
ROOMS = {"vdsm", "vexfs", "validate", "ci", "host", "cache"}
MAY_IMPORT = {**LAYERS, **{room: set(LAYERS) for room in ROOMS}}

# A library's name, and the only part that imports it.
WRAPPED_BY = {
    "docker": "docker",
    "requests": "artifacts",
    "qemu.qmp": "qemu",
    "pycdlib": "guest",
    "playwright": "vdsm",
    "urllib3": "artifacts",
    "junitparser": "ci",
    "securesystemslib": "attest",
    "cryptography": "attest",
    "debsbom": "attest",
    "cyclonedx": "attest",
    "spdx_tools": "attest",
    "packageurl": "attest",
    "testinfra": "validate",
}


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported anywhere in a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def complaint(part: str, imported: str) -> str | None:
    """Why `part` must not import this; None if it may."""
    words = imported.split(".")
    if words[0] == "tasks":
        if part not in MAY_IMPORT:
            return f"{part} is in no row of this test's tables"
        if not {part, *MAY_IMPORT[part]}.issuperset(words[1:2]):
            return f"{part} must not import {words[1]}"
    for library, owner in WRAPPED_BY.items():
        if words[: library.count(".") + 1] == library.split(".") and part != owner:
            return f"only {owner} imports {library}"
    return None


def test_imports_follow_the_arrows() -> None:
    wrong = {
        f"{path.relative_to(TASKS.parent)}:{line}: {why}"
        for path in sorted(TASKS.rglob("*.py"))
        for line, name in imports(path.read_text())
        if (why := complaint(path.relative_to(TASKS).parts[0], name))
    }
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize(
    ("part", "statement"),
    [
        ("core", "from tasks.qemu.machine import Machine"),
        ("qemu", "from tasks import guest"),
        ("docker", "import tasks.artifacts.download"),
        ("vexfs", "def late():\n    from tasks.vdsm import wizard"),
        ("validate", "from tasks.vexfs.options import Options"),
        ("vexfs", "from docker import from_env"),
        ("guest", "import requests.adapters"),
        ("guest", "from qemu.qmp import QMPClient"),
        ("artifacts", "from tasks.attest import signing"),
        ("ci", "def late():\n    from securesystemslib.dsse import Envelope"),
        ("pantry", "from tasks.core import errors"),
    ],
)
def test_forbidden_import_is_reported(part: str, statement: str) -> None:
    assert [name for _, name in imports(statement) if complaint(part, name)]


@pytest.mark.parametrize(
    ("part", "statement"),
    [
        ("vexfs", "from tasks.guest.cloudconfig import variants"),
        ("guest", "from tasks.qemu.machine import Machine"),
        ("qemu", "from qemu.qmp import QMPClient"),
        ("docker", "import docker.errors"),
        ("core", "from tasks.core.errors import Busy"),
        ("core", "import json, dockerfile"),
    ],
)
def test_allowed_import_is_not(part: str, statement: str) -> None:
    assert not [name for _, name in imports(statement) if complaint(part, name)]
