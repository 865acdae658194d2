"""What differs from the nearest result, and what tools say of their version."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from tasks.core.errors import CommandFailed, MissingTool
from tasks.core.explain import brief
from tasks.core.lazy import LazyFinder, load_now
from tasks.core.plan import LATER, Change, differences
from tasks.core.versions import version_of


def test_differences_name_old_and_new_parameters_first() -> None:
    old = {"code a": "1", "file x": "1", "parameter kind": "rye", "same": "s", "stage s": "1"}
    new = {"code a": "2", "file y": "1", "parameter kind": "oat", "same": "s", "stage s": LATER}
    assert differences(old, new) == [
        Change(name="parameter kind", old="rye", new="oat"),
        Change(name="code a", old="1", new="2"),
        Change(name="file x", old="1", new=None),
        Change(name="file y", old=None, new="1"),
    ]
    assert differences(new, new) == []


def test_values_are_brief() -> None:
    assert brief("ab" * 32) == "abababababab"
    assert brief("AB" * 32) == "AB" * 32
    assert brief(None) == "(none)"
    assert brief("") == ""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that counts how often it is asked."""
    program = tmp_path / "bin" / "mytool"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho mytool 1.0\necho more\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_a_tool_is_asked_once_until_it_changes(tool: Path, tmp_path: Path) -> None:
    memory = tmp_path / "cache" / "versions.json"
    assert version_of("mytool", memory) == "mytool 1.0"
    assert version_of("mytool", memory) == "mytool 1.0"
    asked = tmp_path / "asked"
    assert asked.read_text() == "asked\n"
    tool.write_text(tool.read_text().replace("1.0", "1.10"))
    assert version_of("mytool", memory) == "mytool 1.10"
    memory.write_text('{"half')
    assert version_of("mytool", memory) == "mytool 1.10"
    assert asked.read_text() == "asked\n" * 3
    assert list(json.loads(memory.read_text()).values()) == ["mytool 1.10"]
    assert {path.name for path in memory.parent.iterdir()} == {"versions.json", "versions.log"}


def test_a_tool_that_fails_or_is_missing_has_no_version(tool: Path, tmp_path: Path) -> None:
    tool.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(CommandFailed, match="mytool failed"):
        version_of("mytool", tmp_path / "versions.json")
    tool.unlink()
    with pytest.raises(MissingTool):
        version_of("mytool", tmp_path / "versions.json")


def test_modules_are_loaded_when_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lazytoy"
    package.mkdir()
    (package / "__init__.py").write_text("LOADED = []\n")
    names = ("room", "hall", "yard")
    for name in names:
        text = "import lazytoy\nlazytoy.LOADED.append(__name__)\nX = 1\n"
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", [LazyFinder("lazytoy"), *sys.meta_path])
    try:
        lazytoy = importlib.import_module("lazytoy")
        room = importlib.import_module("lazytoy.room")

        assert lazytoy.LOADED == []
        assert room.X == 1
        assert lazytoy.LOADED == ["lazytoy.room"]

        importlib.import_module("lazytoy.hall")
        assert lazytoy.LOADED == ["lazytoy.room"]
        load_now()
        assert lazytoy.LOADED == ["lazytoy.room", "lazytoy.hall"]
        importlib.import_module("lazytoy.yard")
        assert lazytoy.LOADED[-1] == "lazytoy.yard"
    finally:
        for name in ("lazytoy", *(f"lazytoy.{name}" for name in names)):
            sys.modules.pop(name, None)
