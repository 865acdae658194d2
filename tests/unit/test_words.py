"""Words after a task's name, by Invoke's real parser."""

from __future__ import annotations

from typing import Any

import pytest
from invoke.exceptions import ParseError
from invoke.parser import parser
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from tasks.core.words import Words, let_tasks_take_words


@pytest.fixture(autouse=True)
def taking_words(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that it is set back afterwards.
    monkeypatch.setattr(parser, "ParseMachine", parser.ParseMachine)
    let_tasks_take_words()


def parse(*words: str) -> dict[str, Any]:
    taking = ParserContext(
        "validate.image",
        args=(Words("images", help="Images"), Argument("accel"), Argument("verbose", kind=bool)),
    )
    other = ParserContext("report", args=(Argument("into"),))
    plain = ParserContext("greet", args=(Argument("whom", positional=True),))
    result = parser.Parser(contexts=[taking, other, plain]).parse_argv(list(words))
    return {str(context.name): context.as_kwargs for context in result}


@pytest.mark.parametrize(
    ("words", "images"),
    [
        ([], None),
        (["a.qcow2"], "a.qcow2"),
        (["a.qcow2", "b c.raw", "http://x/d.img"], "a.qcow2\nb c.raw\nhttp://x/d.img"),
        (["--verbose", "a", "--accel", "tcg", "b"], "a\nb"),
        (["a", "--images", "b", "--images", "c", "d"], "a\nb\nc\nd"),
        (["--images=a", "--accel=tcg"], "a"),
    ],
)
def test_any_number_of_words_is_taken(words: list[str], images: str | None) -> None:
    found = parse("validate.image", *words)["validate.image"]
    assert found["images"] == images
    assert found["accel"] == ("tcg" if "--accel" in " ".join(words) else None)


def test_a_tasks_name_begins_that_task() -> None:
    found = parse("validate.image", "a", "report", "--into", "here", "validate.image", "b")
    assert found["report"] == {"into": "here"}
    assert found["validate.image"]["images"] in ("a", "b")


def test_a_file_that_is_called_like_a_task_is_named_by_its_path() -> None:
    assert parse("validate.image", "./report")["validate.image"]["images"] == "./report"


def test_a_flag_without_its_value_and_an_unknown_flag_are_errors() -> None:
    with pytest.raises(ParseError, match="needed value"):
        parse("validate.image", "a", "--accel")
    with pytest.raises(ParseError, match="No idea what '--verbse' is"):
        parse("validate.image", "a", "--verbse")


def test_other_tasks_keep_invokes_ways() -> None:
    assert parse("greet", "report")["greet"] == {"whom": "report"}
    with pytest.raises(ParseError, match="did not receive required positional"):
        parse("greet")
    with pytest.raises(ParseError, match="No idea what"):
        parse("report", "word")
