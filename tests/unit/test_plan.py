"""What differs from the nearest result, and what tools say of their version."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from types import ModuleType

import pytest

from tasks.core.errors import CommandFailed, MissingTool
from tasks.core.explain import brief
from tasks.core.lazy import LazyFinder
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


ROOM = """
import lazytoy
lazytoy.LOADED.append(__name__)
lazytoy.BEGUN.set()
lazytoy.GO_ON.wait(60)
X = 1
"""


@pytest.fixture
def lazytoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package whose one module, `room`, takes as long to load as one likes."""
    package = tmp_path / "lazytoy"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import threading\nLOADED, BEGUN, GO_ON = [], threading.Event(), threading.Event()\n"
    )
    (package / "room.py").write_text(ROOM)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", [LazyFinder("lazytoy"), *sys.meta_path])
    yield importlib.import_module("lazytoy")
    for name in ("lazytoy", "lazytoy.room"):
        sys.modules.pop(name, None)


def test_modules_are_loaded_when_they_are_used(lazytoy: ModuleType) -> None:
    room = importlib.import_module("lazytoy.room")
    assert importlib.import_module("lazytoy.room") is room
    assert lazytoy.LOADED == []
    lazytoy.GO_ON.set()
    assert room.X == 1
    assert lazytoy.LOADED == ["lazytoy.room"]


def test_threads_that_use_a_module_at_once_all_see_it_whole(lazytoy: ModuleType) -> None:
    room = importlib.import_module("lazytoy.room")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(lambda: room.X)
        lazytoy.BEGUN.wait(60)
        asking = Barrier(3)
        others = [pool.submit(lambda: (asking.wait(60), room.X)) for _ in range(2)]
        asking.wait(60)
        lazytoy.GO_ON.set()
        assert first.result(60) == 1
        assert [other.result(60)[1] for other in others] == [1, 1]
    assert lazytoy.LOADED == ["lazytoy.room"]


def test_a_module_that_could_not_be_loaded_is_tried_again(lazytoy: ModuleType) -> None:
    vars(lazytoy)["GO_ON"] = None
    room = importlib.import_module("lazytoy.room")
    with pytest.raises(AttributeError, match="wait"):
        room.X  # noqa: B018
    vars(lazytoy)["GO_ON"] = Event()
    lazytoy.GO_ON.set()
    assert room.X == 1
