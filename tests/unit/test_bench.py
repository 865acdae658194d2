"""What `nox -s bench` makes of its figures."""

from __future__ import annotations

from bench.measure import Comparison, Omission, Way, compare
from bench.report import as_table


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
    assert "2.0 s a  4.0 s b    0.500  3" in as_table([found])


def test_what_was_not_measured_is_said() -> None:
    assert "seed: not measured; no tool." in as_table([Omission(what="seed", why="no tool")])
