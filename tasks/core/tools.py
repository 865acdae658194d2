"""Which outside programs vmbake uses, and the package that brings each: scripts/packages.toml."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
import tomllib
from pathlib import Path

from tasks.core.errors import MissingTool

CATALOG = Path(__file__).parents[2] / "scripts" / "packages.toml"


@functools.cache
def catalog() -> dict[str, dict[str, str]]:
    """Tool name to its table; the keys are described at the top of the file."""
    tools: dict[str, dict[str, str]] = tomllib.loads(CATALOG.read_text())["tools"]
    return tools


def find_tool(name: str) -> Path | None:
    """The program's path, or None. Looks in sbin too, which ordinary users' PATH lacks."""
    search = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(name, path=search)
    return Path(found) if found else None


def require_tool(name: str) -> Path:
    """The program's path.

    Raises:
        MissingTool: it is not installed; the message names the package.
    """
    found = find_tool(name)
    if found is not None:
        return found
    table = catalog().get(name, {})
    package = next((table[column] for column in columns() if column in table), None)
    hint = f"Install the package {package}: scripts/bootstrap does it." if package else ""
    raise MissingTool(
        f"The program {name} is not installed.", hint=hint or table.get("without", "")
    )


def columns() -> tuple[str, ...]:
    """The catalog's columns that hold for this system, the first that is there counts."""
    if sys.platform == "darwin":
        return ("macos",)
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    family = (release.get("ID", ""), *release.get("ID_LIKE", "").split())
    return ("ubuntu", "debian") if "ubuntu" in family else ("debian",)
