"""Answers against expectations."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.validate.catalogue import Spec
from tasks.validate.judging import HEAD_LINES, TAIL_LINES, complaint, kept


def spec(**fields: Any) -> Spec:
    return Spec(group="system", name="a check", expected="something", command="true", **fields)


@pytest.mark.parametrize(
    ("wanted", "status", "output"),
    [
        ({}, 0, "whatever"),
        ({"status": 3}, 3, ""),
        ({"status": None}, 9, ""),
        ({"empty": True}, 0, "\n \n"),
        ({"equals": "a b"}, 0, "a b\n"),
        ({"equals": "one\ntwo"}, 0, "one\ntwo\n"),
        ({"matches": r"^two$"}, 0, "one\ntwo\nthree"),
        ({"lacks": r"^wrong"}, 0, "not wrong"),
        ({"least": 100.0}, 0, "100 MiB"),
        ({"empty": True, "ignore": "known"}, 0, "a known thing"),
        ({"lines": ("PermitRootLogin no", "kernel.printk = 8 4")}, 0,
         "x\npermitrootlogin no\nkernel.printk = 8\t4\n"),
    ],
)  # fmt: skip
def test_a_right_answer(wanted: dict[str, Any], status: int, output: str) -> None:
    assert complaint(spec(**wanted), status, output) == ""


@pytest.mark.parametrize(
    ("wanted", "status", "output", "words"),
    [
        ({}, 1, "modprobe: not found.\n", "ended with status 1: modprobe: not found."),
        ({}, 2, "", "It ended with status 2."),
        ({}, 124, "", "did not end within 60 s"),
        ({"empty": True, "ignore": "known"}, 0, "known\nnew", "and said: new"),
        ({"empty": True}, 0, "a\nb", "was to say nothing, and said: a; b"),
        ({"equals": "6.12"}, 0, "6.11", "It is 6.11; 6.12 was expected."),
        ({"equals": "6.12"}, 0, "", "It is empty; 6.12 was expected."),
        ({"equals": "a 1\nb 1"}, 0, "a 1\nb 2\nc 1", "missing: b 1, not expected: b 2; c 1"),
        ({"equals": "a\nb"}, 0, "b\na", "another order"),
        ({"matches": "mounted"}, 0, "", "It said nothing, in which 'mounted' is not found."),
        ({"lacks": "Oops"}, 0, "fine\nOops: 2\n", "said what it must not: Oops: 2"),
        ({"least": 8.0}, 0, "7.5", "It is 7.5; at least 8 was expected."),
        ({"least": 8.0}, 0, "n/a", "A number was expected, and it said n/a."),
        ({"lines": ("a no", "b yes")}, 0, "a no", "It does not say: b yes."),
    ],
)
def test_a_wrong_answer_is_told_in_words(
    wanted: dict[str, Any], status: int, output: str, words: str
) -> None:
    assert words in complaint(spec(**wanted), status, output)


def test_a_difference_of_many_lines_is_not_told_whole() -> None:
    wanted = "\n".join(f"package{number} 1" for number in range(300))
    said = complaint(spec(equals=wanted), 0, "package0 1\nmore 1")
    assert "package1 1" in said
    assert "and 287 more" in said
    assert len(said) < 1000


def test_a_record_holds_the_ends_of_a_long_output() -> None:
    text = kept("\n".join(str(number) for number in range(1000)) + "\n" + "x" * 5000)
    lines = text.splitlines()
    assert len(lines) == HEAD_LINES + TAIL_LINES + 1
    assert lines[0] == "0"
    assert "901 lines" in lines[HEAD_LINES]
    assert len(lines[-1]) == 500
