"""Options: flag over environment over file, converted, checked, and explained when wrong."""

from __future__ import annotations

from typing import Any

import pytest
from invoke.config import Config

from tasks.core.options import Option, Options, choose, convert, judge, listed, unknown_keys


def option(**words: Any) -> Option:
    return Option(**{"name": "salt", "help": "h", "key": "vexfs.salt", "env": "VEXFS_SALT"} | words)


def config(value: Any) -> Config:
    return Config(overrides={"vexfs": {"salt": value}})


def test_flag_beats_environment_beats_file(monkeypatch: pytest.MonkeyPatch) -> None:
    salt = option(kind=int)
    assert choose(salt, None, config(1)).value == 1
    monkeypatch.setenv("VEXFS_SALT", "2")
    assert choose(salt, None, config(1)).value == 2
    assert choose(salt, "3", config(1)).value == 3


def test_a_missing_default_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        choose(option(), None, Config(overrides={"vexfs": {}}))


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (int, "42", 42),
        (int, 42, 42),
        (int, "4.2", None),
        (int, 4.2, None),
        (int, True, None),
        (int, "", None),
        (bool, "yes", True),
        (bool, " ON ", True),
        (bool, "0", False),
        (bool, "", False),
        (bool, False, False),
        (bool, "maybe", None),
        (str, "text", "text"),
        (str, None, ""),
        (str, 2, "2"),
        # What YAML makes of 1.10 and of no: the user meant something else.
        (str, 1.1, None),
        (str, False, None),
    ],
)
def test_values_become_what_the_option_is(kind: type, raw: Any, value: Any) -> None:
    converted = convert(option(kind=kind), raw)
    assert converted == value
    assert type(converted) is type(value)


def test_what_is_wrong_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    salt = option(kind=int)
    assert choose(salt, "much", config(1)).problem == (
        "--salt is 'much'; a whole number was expected."
    )
    monkeypatch.setenv("VEXFS_SALT", "x")
    assert choose(salt, None, config(1)).problem.startswith("VEXFS_SALT is 'x'; ")
    monkeypatch.delenv("VEXFS_SALT")
    assert choose(option(), None, config(1.1)).problem == (
        "vexfs.salt in invoke.yaml is 1.1; a text in quotes was expected."
    )
    assert choose(option(kind=bool), None, config("perhaps")).problem == (
        "vexfs.salt in invoke.yaml is 'perhaps'; yes or no was expected."
    )


def test_a_near_miss_gets_a_hint() -> None:
    kinds = option(choices=("minimal", "development", "production"))
    assert judge(kinds, "minimum", "--salt").problem == (
        "--salt is 'minimum'; it can be minimal, development or production. Did you mean minimal?"
    )
    assert "mean" not in judge(kinds, "xyz", "--salt").problem
    assert judge(kinds, "minimal", "--salt").problem == ""


def test_checks_are_asked() -> None:
    even = option(kind=int, check=lambda value: "it is odd." if value % 2 else "")
    assert judge(even, "3", "--salt").problem == "--salt is 3: it is odd."
    assert judge(even, "4", "--salt").problem == ""


def test_unknown_settings_are_all_found_with_a_guess() -> None:
    found = unknown_keys(
        [option(), option(key="vmbake.state")],
        Config(overrides={"vexfs": {"sallt": 1, "salt": 2, "zzz": 3}, "vmbake": {"state": ""}}),
    )
    assert found == [
        "invoke.yaml sets vexfs.sallt, which vmbake does not know. Did you mean vexfs.salt?",
        "invoke.yaml sets vexfs.zzz, which vmbake does not know.",
    ]


def test_names_and_lists_as_people_write_them() -> None:
    assert option(name="keep_vm").flag == "--keep-vm"
    assert [listed(["a"]), listed(["a", "b"]), listed("abc")] == ["a", "a or b", "a, b or c"]
    options = Options([option(), option(name="heat")])
    assert list(options) == ["salt", "heat"]
    assert options["heat"].name == "heat"
    assert len(options) == 2
