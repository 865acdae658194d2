"""Stages whose results are no files, take no part, or are no results at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.toyhouse import ToyHouse


@pytest.fixture
def house(tmp_path: Path) -> ToyHouse:
    return ToyHouse(tmp_path)


def test_a_live_stage_may_stand_on_another(house: ToyHouse) -> None:
    house.inv("toy.jam")
    assert house.diary == [
        *("flour wheat", "oven on 200", "pot on at 200", "jam in pot", "pot off", "oven off"),
    ]


def test_what_a_keeper_has_is_fresh_as_long_as_it_has_it(house: ToyHouse) -> None:
    house.inv("toy.jam")
    assert house.explain("toy.jam")["toy.jam"]["state"] == "fresh"
    (house.root / "jars" / "jar0").unlink()
    entry = house.explain("toy.jam")["toy.jam"]
    assert (entry["state"], entry["reason"]) == ("stale", "jar0 was eaten")


def test_a_result_is_taken_back_from_its_keeper_when_the_store_is_lost(house: ToyHouse) -> None:
    house.inv("toy.jam")
    assert house.diary
    for record in house.root.glob(".vmbake/results/toy.jam/*/record.json"):
        record.unlink()
        record.parent.rmdir()
    house.inv("toy.jam")
    assert house.diary == []
    house.inv("toy.jam", "--heat", "90")
    assert "oven on 90" in house.diary


def test_a_given_result_is_taken_and_nothing_below_it_is_made(house: ToyHouse) -> None:
    house.inv("toy.doughnut", "--from-jar", "grandmother's")
    assert house.diary == ["doughnut on ['toy.jam']"]
    house.inv("toy.doughnut", "--from-jar", "grandmother's")
    assert house.diary == []
    house.inv("toy.doughnut", "--from-jar", "aunt's")
    assert house.diary == ["doughnut on ['toy.jam']"]


def test_a_stage_may_give_its_place_to_others(house: ToyHouse) -> None:
    house.env = {"VMBAKE_JOBS": "1"}  # else the oven is turned off beside the next stage
    house.inv("toy.doughnut")
    # The oven, which the jam stood on, may be switched off meanwhile.
    assert "doughnut on ['toy.jam']" in house.diary
    house.inv("toy.doughnut", "--filling", "plum")
    assert house.diary == ["filled with plum", "doughnut on ['toy.filled']"]


def test_an_action_is_done_each_time_and_never_kept(house: ToyHouse) -> None:
    out, _ = house.inv("toy.sneeze", "--kind", "rye")
    assert out == "hatchi\n"
    assert house.diary == ["flour rye", "sneeze rye"]
    house.inv("toy.sneeze", "--kind", "rye")
    assert house.diary == ["sneeze rye"]
    assert not list(house.root.glob(".vmbake/results/toy.sneeze"))


def test_no_cache_makes_everything_anew_once(house: ToyHouse) -> None:
    house.inv("toy.bread")
    everything = house.diary
    house.inv("toy.bread", "--no-cache")
    assert house.diary == everything
    house.inv("toy.bread")
    assert house.diary == []


def test_a_secret_counts_and_is_written_nowhere(house: ToyHouse) -> None:
    out, _ = house.inv("toy.charm", TOY_SPELL="hocuspocus")
    assert out == "charmed\n"
    assert house.diary == ["hocuspocus"]
    out, _ = house.inv("toy.charm", TOY_SPELL="hocuspocus")
    assert (out, house.diary) == ("charmed\n", [])
    house.inv("toy.charm", TOY_SPELL="fidibus")
    assert house.diary == ["fidibus"]
    entry, _ = house.inv("explain", "--json", "toy.charm")
    written = [path.read_text() for path in (house.root / ".vmbake").rglob("*") if path.is_file()]
    assert not any(word in text for word in ("hocuspocus", "fidibus") for text in [entry, *written])
    assert "--spell" not in house.inv("--help", "toy.charm")[0]
