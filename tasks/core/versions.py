"""The versions of outside programs, which are inputs of the stages that keep their output."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from tasks.core.memory import remember
from tasks.core.process import Runner
from tasks.core.tools import require_tool


def version_of(name: str, memory: Path) -> str:
    """The first line that `name --version` prints; asked again only when the program changes.

    Args:
        memory: a JSON file that keeps the answers by program, size and modification time.

    Raises:
        MissingTool: it is not installed.
    """
    program = require_tool(name).resolve()
    stat = program.stat()
    key = f"{program} {stat.st_size} {stat.st_mtime_ns}"
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(memory.read_text())
    if key not in known:
        runner = Runner(memory.with_suffix(".log"), timeout_s=30)
        known[key] = runner.output([program, "--version"]).strip().partition("\n")[0]
        remember(memory, json.dumps(known, indent=1))
    return known[key]
