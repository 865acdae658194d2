"""`inv check TASK`: what is in the way of a task, told without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.toyhouse import ToyHouse


@pytest.fixture
def toy(tmp_path: Path) -> ToyHouse:
    return ToyHouse(tmp_path)


def test_nothing_is_in_the_way_and_nothing_is_run(toy: ToyHouse) -> None:
    out, _ = toy.inv("check", "toy.bread")
    assert out == "Nothing is in the way.\n"
    assert toy.diary == []
    assert not (toy.root / ".vmbake" / "results").exists()


def test_problems_of_stages_before_it_are_told(toy: ToyHouse) -> None:
    _, err = toy.inv("check", "toy.bread", "--salt", "500", status=2)
    assert err.startswith("error: 500 g of salt are too much.")
    assert toy.diary == []


def test_problems_are_told_although_all_is_fresh(toy: ToyHouse) -> None:
    toy.inv("toy.dough")
    toy.inv("check", "toy.dough")
    toy.edit("invoke.yaml", "heat: 200", "heat: hot")
    _, err = toy.inv("check", "toy.bread", status=2)
    assert "vexfs.heat in invoke.yaml is 'hot'" in err


def test_explain_tells_what_a_run_would_refuse(toy: ToyHouse) -> None:
    out, err = toy.inv("explain", "toy.bread", "--salt", "500", status=2)
    assert "stale  toy.dough: stage toy.flour will be made first  salt=500" in out
    assert "500 g of salt are too much." in err
    assert toy.diary == []


def test_a_run_tells_the_same_before_it_begins(toy: ToyHouse) -> None:
    _, err = toy.inv("toy.bread", "--salt", "500", status=2)
    assert "500 g of salt are too much." in err
    assert toy.diary == []


@pytest.mark.parametrize("setting", ["state: .vmbake", "output: output"])
@pytest.mark.parametrize("task", [["toy.bread"], ["check", "toy.bread"], ["explain", "toy.bread"]])
def test_a_place_that_can_t_be_written_to(toy: ToyHouse, setting: str, task: list[str]) -> None:
    (toy.root / "file").touch()
    name = setting.partition(":")[0]
    toy.edit("invoke.yaml", setting, f"{name}: file/{name}")
    _, err = toy.inv(*task, status=12)
    assert err.startswith(f"error: vmbake.{name} is {toy.root}/file/{name}, and {toy.root}/file ")
    assert f"Have vmbake.{name} in invoke.yaml lead to a folder" in err
    assert toy.diary == []
