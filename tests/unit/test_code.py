"""Which code a stage stands on: all that it reaches by name, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from tasks.core import code

MAIN = '''
"""Says something."""
from tasks.core import store
from tasks.toy import mill, unused
from tasks.toy.words import FLOUR as POWDER, SALT
from tasks.toy.handed_on import knead

HEAT, TIME = 200, 30
UNUSED = 1

def work(step):
    """Bake."""
    return helper(step) + mill.grind(POWDER) + knead()

def helper(step):
    from tasks.oven import late
    return [late.warm(HEAT), store.Store]

def neighbour():
    return SALT + UNUSED + unused.thing()
'''
FILES = {
    "toy/main.py": MAIN,
    "toy/mill.py": "from tasks.oven.deep import stone\n\ndef grind(x):\n    return stone(x)\n\n"
    "def other():\n    return 1\n",
    "toy/words.py": 'FLOUR = "flour"\nFLOUR += "!"\nSALT = "salt"\n',
    "toy/handed_on.py": "from tasks.oven.deep import knead\n",
    "toy/unused.py": "def thing():\n    return 1\n",
    "toy/whole.py": "from tasks.toy import mill\n\ndef work(step):\n    return call(mill)\n",
    "oven/late.py": "import os\n\nclass Oven:\n    def heat(self):\n        return 1\n\n"
    "def warm(x):\n    return Oven()\n",
    "oven/deep.py": "def stone(x):\n    return x\n\ndef knead():\n    return 2\n",
    "core/store.py": "class Store:\n    pass\n",
}


def forget() -> None:
    for cached in (code.uses, code.said, code.parsed, code.definitions_of, code.imports_of):
        cached.cache_clear()


class House:
    """A small checkout whose code can be changed."""

    def __init__(self, root: Path) -> None:
        self.root = root / "tasks"
        for name, text in FILES.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(text)

    def digests(self, module: str = "tasks.toy.main") -> dict[str, str]:
        forget()
        function = SimpleNamespace(__module__=module, __name__="work")
        return code.code_digests(cast("Any", function))

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(code, "ROOT", tmp_path)
    yield House(tmp_path)
    forget()


def test_it_reaches_what_it_names_however_far(house: House) -> None:
    assert set(house.digests()) == {
        "tasks.toy.main",
        "tasks.toy.mill",
        "tasks.toy.words",
        "tasks.toy.handed_on",
        "tasks.oven.late",
        "tasks.oven.deep",
    }


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("toy/main.py", "grind(POWDER)", "grind(POWDER, 1)", "tasks.toy.main"),
        ("toy/main.py", "HEAT, TIME = 200, 30", "HEAT, TIME = 220, 30", "tasks.toy.main"),
        ("toy/main.py", "[late.warm", "[1, late.warm", "tasks.toy.main"),
        ("toy/mill.py", "return stone(x)", "return stone(x, x)", "tasks.toy.mill"),
        ("toy/words.py", "+= '!'", "+= '?'", "tasks.toy.words"),
        ("oven/late.py", "return 1", "return 2", "tasks.oven.late"),
        ("oven/deep.py", "return x", "return x + 1", "tasks.oven.deep"),
        ("oven/deep.py", "return 2", "return 3", "tasks.oven.deep"),
    ],
)
def test_a_change_in_what_it_reaches_counts(
    house: House, name: str, old: str, new: str, changed: str
) -> None:
    before = house.digests()
    house.edit(name, old.replace("'", '"'), new.replace("'", '"'))
    after = house.digests()
    assert {module for module in after if after[module] != before[module]} == {changed}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("toy/main.py", '"""Bake."""', '"""Bake well."""  # with care'),
        ("toy/main.py", "def work(step):\n", "# A comment.\n\n\ndef work( step ):\n\n"),
        ("toy/main.py", "UNUSED = 1", "UNUSED = 2"),
        ("toy/main.py", "return SALT + UNUSED", "return 5"),
        ("toy/mill.py", "return 1", "return 2"),
        ("toy/words.py", '"salt"', '"pepper"'),
        ("toy/unused.py", "return 1", "return 2"),
        ("core/store.py", "pass", "x = 1"),
    ],
)
def test_words_and_neighbours_and_core_do_not(house: House, name: str, old: str, new: str) -> None:
    before = house.digests()
    house.edit(name, old, new)
    assert house.digests() == before


def test_a_module_that_is_handed_around_counts_whole(house: House) -> None:
    before = house.digests("tasks.toy.whole")
    house.edit("toy/mill.py", "return 1", "return 2")
    assert house.digests("tasks.toy.whole") != before


def test_a_field_of_the_same_name_is_no_use_of_a_module(house: House) -> None:
    lines = (
        "from tasks.toy import mill",
        "class Parts:",
        "    mill: int",
        "def work(step):",
        "    Parts()",
    )
    text = "\n".join(lines)
    (house.root / "toy/whole.py").write_text(text)
    assert set(house.digests("tasks.toy.whole")) == {"tasks.toy.whole"}


def test_other_stages_are_inputs_of_their_own(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("tasks.toy.main")
    module.__dict__["helper"] = SimpleNamespace(body=None)
    module.__dict__["work"] = SimpleNamespace(body=None)
    monkeypatch.setitem(sys.modules, "tasks.toy.main", module)
    house.edit("toy/main.py", "def work(step):", "@stage(pre=[helper])\ndef work(step):")
    before = house.digests()
    assert "tasks.oven.late" not in before
    house.edit("toy/main.py", "@stage(pre=[helper])", "@stage(pre=[helper], reads=files)")
    house.edit("toy/main.py", "late.warm(HEAT)", "late.warm(HEAT + 1)")
    assert house.digests() == before


def test_the_digests_of_two_runs_are_the_same(house: House) -> None:
    assert house.digests() == house.digests()


def test_our_own_imports_have_the_form_that_is_followed() -> None:
    tasks = Path(code.__file__).parents[1]
    plain = [
        f"{path.relative_to(tasks)}: {line}"
        for path in tasks.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.lstrip().startswith("import tasks")
    ]
    assert plain == [], "write `from tasks.x import y`: tasks.core.code follows that"


def test_what_is_remembered_holds_until_a_source_file_changes(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "scripts" / "drive.py"
    script.parent.mkdir()
    script.write_text("def step():\n    return 1\n")
    asked: list[code.Symbol] = []
    real = code.digests_from

    def counted(start: code.Symbol) -> dict[str, str]:
        asked.append(start)
        return real(start)

    def remembered() -> dict[str, str]:
        forget()
        code.all_sources.cache_clear()
        return code.CodeMemory(tmp_path / "memory.json").digests_from(start)

    start = code.Symbol("scripts.drive", "step")
    monkeypatch.setattr(code, "digests_from", counted)
    try:
        before = remembered()
        assert remembered() == before
        assert asked == [start]
        script.write_text("def step():\n    return 2\n")
        assert remembered() != before
    finally:
        code.all_sources.cache_clear()
