"""Text from a guest: nothing invisible, nothing endless."""

from __future__ import annotations

import time
import unicodedata
from xml.etree import ElementTree as ET

import pytest
from markupsafe import escape

from tasks.ci.text import cut, fair_limit, one_line, readable, shorten, size_of
from tests.standins.validations import HOSTILE


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b(Btext\x1bM", "text"),
        ("10 %\r50 %\r100 %\r\nnext", "100 %\nnext"),
        ("serial\r\r\n", "serial\n"),
        ("tab\there", "tab\there"),
        ("nul \0 bell \a", "nul ␀ bell ␇"),
        ("lone \x1b", "lone ␛"),
        ("\ud800 \ufffe \x85 \u202edlrow", "� � � �dlrow"),
    ],
)
def test_a_terminal_would_show_the_same(said: str, read: str) -> None:
    assert readable(said) == read


def test_all_characters_there_are_can_stand_in_xml() -> None:
    everything = "".join(map(chr, range(0x11000)))
    read = readable(everything)
    ET.fromstring(f"<a>{escape(read)}</a>".encode())
    assert {unicodedata.category(char) for char in read} & {"Cc", "Cs"} == {"Cc"}
    assert {char for char in read if unicodedata.category(char) == "Cc"} <= {"\t", "\n"}


def test_a_megabyte_without_a_line_end_takes_no_time() -> None:
    since = time.monotonic()
    readable("\x1b]" * 10_000 + "x" * 1_000_000)
    assert time.monotonic() - since < 2


def test_one_line() -> None:
    assert one_line("  a\n\n b\tc ") == "a b c"
    assert one_line("x" * 50, 10) == "xxxxxxxxx…"


def test_what_is_short_stays_whole() -> None:
    assert cut("abc", 3) == "abc"


@pytest.mark.parametrize("limit", [0, 1, 5, 60, 100, 999])
def test_what_is_long_is_cut_in_its_middle(limit: int) -> None:
    text = "".join(f"{number:04}" for number in range(1000))
    shortened = cut(text, limit)
    assert size_of(shortened) <= limit
    if limit >= 60:
        assert shortened.startswith("0000")
        assert shortened.endswith("0999")
        assert "characters left out" in shortened


def test_the_weight_counts_not_the_length() -> None:
    def weigh(text: str) -> int:
        return size_of(str(escape(text)))

    shortened = cut(HOSTILE.replace("\ud800", "") * 100 + "<" * 10_000, 2000, weigh)
    assert 1000 < weigh(shortened) <= 2000


@pytest.mark.parametrize(
    ("sizes", "total", "limit"),
    [
        ([], 100, 100),
        ([10, 20], 100, 20),
        ([50, 50], 100, 50),
        ([10, 500, 500], 110, 50),
        ([500] * 7, 70, 10),
        ([5, 5], 0, 0),
    ],
)
def test_small_ones_stay_whole_and_large_ones_share(
    sizes: list[int], total: int, limit: int
) -> None:
    assert fair_limit(sizes, total) == limit
    assert sum(min(size, limit) for size in sizes) <= total


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 10, 50])
def test_a_line_ends_early(limit: int) -> None:
    line = shorten("é" * 30, limit)
    assert size_of(line) <= limit
    assert limit < 10 or line.startswith("é")
    assert limit < 10 or line.endswith("…")


def test_a_short_line_is_as_it_was() -> None:
    assert shorten("short", 5) == "short"
