"""What `nox -s bench` makes of its figures."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.measure import Comparison, Omission, Way, compare
from bench.picture import BAR_START, Scale, draw
from bench.report import as_table

DOCS = Path(__file__).parents[2] / "docs"
SVG = "http://www.w3.org/2000/svg"


def test_the_ways_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []
    found = compare(
        "walk",
        Way(name="left", run=lambda: turns.append("left")),
        Way(name="right", run=lambda: turns.append("right")),
        rounds=2,
    )
    assert turns == ["left", "right"] * 3
    assert len(found.our_seconds) == len(found.their_seconds) == 2


def test_the_ratio_is_that_of_the_medians() -> None:
    found = Comparison(
        what="walk", ours="a", theirs="b", our_seconds=(1.0, 2.0, 90.0), their_seconds=(4.0,) * 3
    )
    assert found.ratio == 0.5
    columns = ("2.0 s (1.0 s to 90.0 s) a", "4.0 s (4.0 s to 4.0 s) b", "0.500", "    ", "3")
    assert "  ".join(columns) in as_table([found])


def test_what_was_not_measured_is_said() -> None:
    assert "seed: not measured; no tool." in as_table([Omission(what="seed", why="no tool")])


def test_several_rounds_show_their_spread() -> None:
    found = Comparison(
        what="walk", ours="a", theirs="b", our_seconds=(1.0, 2.0, 3.0), their_seconds=(8.0,),
        goal=0.5,
    )  # fmt: skip
    row = "2.0 s (1.0 s to 3.0 s) a  8.0 s b    0.250  0.500: reached  3 and 1"
    assert row in as_table([found])


@pytest.mark.parametrize(
    ("goals", "ours_s", "ours_bytes", "reached"),
    [
        ({}, 1.0, 1, None),
        ({"goal": 0.25}, 1.0, 1, True),
        ({"goal": 0.25}, 1.1, 1, False),
        # Faster and larger is no feat.
        ({"goal": 0.25}, 1.0, 10, False),
        ({"goal_s": 1}, 1.0, 9, True),
        # However slow the other way is.
        ({"goal_s": 1}, 1.1, 1, False),
        ({"goal": 0.25, "goal_s": 0.5}, 1.0, 1, False),
    ],
)
def test_a_goal_is_reached_or_missed(
    goals: dict[str, Any], ours_s: float, ours_bytes: int, reached: bool | None
) -> None:
    found = Comparison(
        what="walk", ours="a", theirs="b", our_seconds=(ours_s,), their_seconds=(4.0,),
        sizes={"a": ours_bytes, "b": 9, "source": 5}, **goals,
    )  # fmt: skip
    assert found.reached is reached
    table = as_table([found])
    assert (": reached" in table, ": missed" in table) == (reached is True, reached is False)
    assert ("what a leaves is larger" in table) == (ours_bytes > 9)


def test_a_way_may_go_without_a_run_that_does_not_count() -> None:
    turns: list[str] = []
    left, right = (Way(name=name, run=partial(turns.append, name)) for name in "ab")
    compare("walk", left, right, rounds=2, warm_up=False)
    assert turns == ["a", "b"] * 2


RECORD = {
    "started": "2026-11-25T03:00:00+00:00",
    "processor": "Some CPU",
    "cores": 2,
    "memory_gb": 25,
    "accelerator": "tcg",
    "findings": [
        {"what": "cold <1>", "theirs": "classic & co", "our_seconds": [3.0, 30.0, 40.0],
         "their_seconds": [600.0], "ratio": 0.05, "goal": 0.04, "goal_s": 40, "reached": False},
        {"what": "seed ISO", "why": "no tool"},
        {"what": "seed", "theirs": "other", "our_seconds": [0.0006], "their_seconds": [0.02],
         "ratio": 0.03, "goal": None, "goal_s": None, "reached": None},
    ],
}  # fmt: skip


def test_the_picture_has_bars_as_long_as_the_logarithm_of_the_time() -> None:
    root = ET.fromstring(draw(RECORD))
    bars = [
        (bar.attrib["class"], float(bar.attrib["width"])) for bar in root.iter(f"{{{SVG}}}rect")
    ]
    assert [kind for kind, _ in bars] == ["ours", "theirs"] * 2
    scale = Scale(0.0006, 600)
    widths = [scale.at(seconds) - BAR_START for seconds in (30, 600, 0.0006, 0.02)]
    assert [width for _, width in bars] == pytest.approx(widths, abs=0.1)
    texts = [each.text for each in root.iter(f"{{{SVG}}}text")]
    missed = "0.050 of classic & co; goal 0.040 and 40.0 s: missed"
    assert {"cold <1>", missed, "30.0 s, n = 3", "0.60 ms, n = 1", "0.030 of other"} <= set(texts)
    assert "Some CPU, 2 cores, 25 GB, accelerator tcg, 2026-11-25" in texts


def test_the_published_picture_shows_the_published_figures() -> None:
    record = json.loads((DOCS / "bench.json").read_text())
    assert (DOCS / "bench.svg").read_text() == draw(record)
