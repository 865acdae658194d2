"""The checks as data: the file itself, its rules, and the values that are filled in."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tasks.guest.cloudconfig import variants
from tasks.validate import promises
from tasks.validate.catalogue import GROUPS, VALUES, Spec, fill, load, spec_of

BASE = {"group": "boot", "name": "n", "expected": "e", "command": "true"}
EVERYTHING = {name: f"<{name}'s $HOME>" for name in VALUES}


def test_every_check_of_the_file_can_be_filled() -> None:
    assert len(load()) > 50
    for spec in load():
        values = {**EVERYTHING, "GROWN_MB": "9", "LEFT_MB": "9"}
        ready = fill(spec, values)
        for pattern in (ready.matches, ready.lacks):
            re.compile(pattern or "")
        assert not re.findall(r"\$(?:MODULE|KERNEL|MOUNT_POINT|FSTYPE)\b", ready.expected)
        assert spec.expected


def test_every_group_and_every_place_has_checks() -> None:
    assert {spec.group for spec in load()} == set(GROUPS)
    assert {spec.where for spec in load()} == {"disk", "guest", "reboot"}


def test_every_variant_that_a_check_names_exists() -> None:
    named = {variant for spec in load() for variant in spec.variants}
    assert named <= set(variants(promises.CLOUD_INIT))


def test_values_are_quoted_for_a_shell_and_escaped_in_patterns() -> None:
    spec = spec_of({**BASE, "command": "ls $MOUNT_POINT '$HOME' $2", "matches": "^$MOUNT_POINT$",
                    "equals": "$MOUNT_POINT", "expected": "$MOUNT_POINT"})  # fmt: skip
    ready = fill(spec, {"MOUNT_POINT": "/mnt/a b.c"})
    assert ready.command == "ls '/mnt/a b.c' '$HOME' $2"
    assert ready.matches == r"^/mnt/a\ b\.c$"
    assert (ready.equals, ready.expected) == ("/mnt/a b.c", "/mnt/a b.c")


def test_on_the_disk_nothing_is_quoted() -> None:
    spec = spec_of({**BASE, "where": "disk", "command": "cat $MOUNT_POINT"})
    assert fill(spec, {"MOUNT_POINT": "/a b"}).command == "cat /a b"


def test_a_text_without_values_stays_as_it_is() -> None:
    spec = Spec(group="boot", name="n", command="x", expected="$MODULE", equals="$MODULE",
                literal=True)  # fmt: skip
    assert fill(spec, {"MODULE": "vexfs"}) is spec


def test_a_value_that_the_image_does_not_have_is_named() -> None:
    with pytest.raises(KeyError, match="TOOL_VERSION"):
        fill(spec_of({**BASE, "equals": "$TOOL_VERSION"}), {})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({**BASE, "equal": "x"}, r"unknown keys: \['equal'\]"),
        ({**BASE, "group": "booot"}, "no known group: booot"),
        ({**BASE, "ask": ["file", "/x", "exists"]}, "a command or an ask"),
        ({**BASE, "command": ""}, "a command or an ask"),
    ],
)
def test_a_mistake_in_the_file_is_told(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        spec_of(table)
