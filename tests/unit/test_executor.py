"""The task chain as a user meets it: the real `inv` on a small checkout."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.toyhouse import ToyHouse

ALL = ["flour wheat", "dough 5", "oven on 200", "bread 200", "oven off"]


@pytest.fixture
def toy(tmp_path: Path) -> ToyHouse:
    return ToyHouse(tmp_path)


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_value_reaches_every_stage_that_has_it(toy: ToyHouse) -> None:
    toy.inv("toy.bread", "--kind", "rye", "--salt", "9", "--heat", "180")
    assert toy.diary == ["flour rye", "dough 9", "oven on 180", "bread 180", "oven off"]


def test_nothing_runs_twice(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    assert toy.diary == ALL
    out, err = toy.inv("toy.bread")
    assert toy.diary == []
    assert "up to date" in err
    assert Path(toy.root, out.strip()).read_text() == "WHEAT FLOUR 5 ['KNEAD']"


def test_each_value_has_its_own_result(toy: ToyHouse) -> None:
    toy.inv("toy.bread", "--kind", "rye")
    toy.inv("toy.bread", "--kind", "spelt")
    assert len(toy.diary) == 10
    toy.inv("toy.bread", "--kind", "rye", "toy.bread", "--kind", "spelt")
    assert toy.diary == []


def test_two_goals_share_what_they_have_in_common(toy: ToyHouse) -> None:
    toy.inv("toy.dough", "toy.bread")
    assert toy.diary == ALL


def test_only_what_depends_on_a_changed_file_runs(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    assert toy.diary == ALL
    (toy.root / "recipe").write_text("knead well\n")
    toy.inv("toy.bread")
    assert toy.diary == ALL[1:]


def test_times_decide_nothing(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    assert toy.diary == ALL
    os.utime(toy.root / "recipe")
    os.utime(toy.root / "tasks" / "toy" / "commands.py")
    toy.inv("toy.bread")
    assert toy.diary == []


def test_an_unchanged_outcome_stops_the_wave(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    assert toy.diary == ALL
    (toy.root / "recipe").write_text("# a comment\nknead\n")
    toy.inv("toy.bread")
    assert toy.diary == ["dough 5"]


def test_code_counts_and_comments_do_not(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    assert toy.diary == ALL
    toy.edit("tasks/toy/mill.py", '"""Docstring."""', '"""Better docstring."""  # and a comment')
    toy.inv("toy.bread")
    assert toy.diary == []
    toy.edit("tasks/toy/mill.py", "flour", "FLOUR")
    toy.inv("toy.bread")
    assert toy.diary == ALL
    toy.edit("tasks/toy/commands.py", '"grams": 500', '"grams": 501')
    toy.inv("toy.bread")
    assert toy.diary == ALL[1:]


def test_a_pre_task_with_its_own_value_keeps_it(toy: ToyHouse) -> None:
    toy.inv("toy.toast", "--kind", "spelt")
    assert toy.diary[0] == "flour rye"


def test_a_plain_task_hands_its_values_down(toy: ToyHouse) -> None:
    out, _ = toy.inv("toy.eat", "--kind", "rye")
    assert toy.diary[0] == "flour rye"
    assert out.endswith("eaten rye\n")


def test_flag_beats_environment_beats_file(toy: ToyHouse) -> None:
    toy.inv("toy.flour", TOY_KIND="rye")
    toy.inv("toy.flour", "--kind", "spelt", TOY_KIND="rye")
    toy.inv("toy.flour")
    assert toy.diary == ["flour rye", "flour spelt", "flour wheat"]


def test_explain_names_the_input_that_changed(toy: ToyHouse) -> None:
    assert {entry["reason"] for entry in toy.explain("toy.dough").values()} == {
        "never made",
        "stage toy.flour will be made first",
    }
    toy.inv("toy.bread")
    assert {entry["state"] for entry in toy.explain("toy.bread").values()} == {"fresh", "live"}
    assert toy.diary == ALL
    text, _ = toy.inv("explain", "toy.bread", "--salt", "7")
    assert "stale  toy.dough: inputs changed" in text
    assert "parameter salt: 5 -> 7" in text
    assert "fresh  toy.flour" in text
    (toy.root / "recipe").write_text("knead well\n")
    changes = toy.explain("toy.bread")["toy.dough"]["changes"]
    assert [change["name"] for change in changes] == ["file recipe"]
    assert toy.diary == []


def test_a_killed_run_loses_only_the_stage_in_progress(toy: ToyHouse) -> None:
    process = toy.start("toy.bread", "--wait", str(toy.root / "go"))
    diary = toy.root / "diary"
    until(lambda: diary.exists() and "waiting" in diary.read_text(), process)
    process.kill()
    process.communicate()
    assert not list((toy.root / ".vmbake" / "results").glob("toy.dough/*"))
    toy.diary  # noqa: B018
    _, err = toy.inv("toy.bread")
    assert toy.diary == ALL[1:]
    assert "removed what a killed run left: toy.dough" in err
    assert not list((toy.root / ".vmbake" / "work").iterdir())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_cleans_up(toy: ToyHouse, number: int, status: int) -> None:
    process = toy.start("toy.bread", "--wait", str(toy.root / "go"))
    diary = toy.root / "diary"
    until(lambda: diary.exists() and "waiting" in diary.read_text(), process)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert not list((toy.root / ".vmbake" / "work").iterdir())


def test_two_runs_at_once_do_the_work_once(toy: ToyHouse) -> None:
    go = toy.root / "go"
    first = toy.start("toy.bread", "--wait", str(go))
    diary = toy.root / "diary"
    until(lambda: diary.exists() and "waiting" in diary.read_text(), first)
    second = toy.start("toy.bread", "--wait", str(go))
    assert second.stderr is not None
    assert any("waiting for another run" in line for line in second.stderr)
    go.touch()
    for process in (first, second):
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert toy.diary.count("dough 5") == 1


def test_a_run_ends_when_its_time_is_up(toy: ToyHouse) -> None:
    _, err = toy.inv("toy.bread", "--timeout", "1", "--wait", str(toy.root / "never"), status=9)
    assert "The run did not finish within 1 s (--timeout)." in err
    assert not list((toy.root / ".vmbake" / "work").iterdir())


def test_all_wrong_values_are_reported_together(toy: ToyHouse) -> None:
    _, err = toy.inv("toy.bread", "--kind", "wheet", "--salt", "much", status=2)
    assert "--kind is 'wheet'; it can be wheat, rye or spelt. Did you mean wheat?" in err
    assert "--salt is 'much'; a whole number was expected." in err
    _, err = toy.inv("toy.bread", status=2, TOY_SALT="x")
    assert "TOY_SALT is 'x'" in err
    assert toy.diary == []


def test_an_unknown_setting_is_refused(toy: ToyHouse) -> None:
    toy.edit("invoke.yaml", "heat: 200", "heat: 200, sallt: 3")
    _, err = toy.inv("toy.bread", status=2)
    assert "vexfs.sallt" in err
    assert "vexfs.salt" in err.replace("vexfs.sallt", "")


def test_a_failure_says_what_why_and_where(toy: ToyHouse) -> None:
    _, err = toy.inv("toy.bread", "--fail", "error", status=11)
    assert "error: The bread burnt." in err
    assert "| smoke" in err
    assert "Watch it." in err
    log = Path(toy.root, err.rpartition("Full log: ")[2].strip())
    assert "$ echo crackle\ncrackle" in log.read_text()
    assert toy.diary == ALL


def test_a_failed_program_ends_the_stage_with_its_last_lines(toy: ToyHouse) -> None:
    _, err = toy.inv("toy.bread", "--fail", "command", status=7)
    assert "sh failed (exit status 3)" in err
    assert "| black" in err


def test_a_log_in_the_work_folder_outlives_it(toy: ToyHouse) -> None:
    _, err = toy.inv("toy.bread", "--fail", "inner log", status=11)
    log = Path(toy.root, err.rpartition("Full log: ")[2].strip())
    assert log.read_text() == "last words"


def test_a_disk_that_fills_up_has_its_own_error(toy: ToyHouse) -> None:
    _, err = toy.inv("toy.bread", "--fail", "full", status=4)
    assert "The disk filled up during toy.bread" in err


def test_a_full_disk_around_the_stages_is_told_as_such(toy: ToyHouse) -> None:
    full = 'raise OSError(errno.ENOSPC, "No space left on device")'
    toy.edit("tasks/toy/commands.py", 'yield f"{salt} g of salt are too much."', full + "; yield")
    _, err = toy.inv("toy.bread", "--salt", "200", status=4)
    assert "The disk filled up during the run" in err
    assert "Traceback" not in err


def test_a_changed_result_is_found_and_made_again(toy: ToyHouse) -> None:
    out, _ = toy.inv("toy.dough")
    path = Path(toy.root, out.strip())
    path.chmod(0o644)
    path.write_text("tampered")
    assert toy.explain("toy.dough")["toy.dough"]["reason"] == "dough was changed"
    toy.diary  # noqa: B018
    toy.inv("toy.dough")
    assert toy.diary == ["dough 5"]
    assert path.read_text() == "wheat flour 5 ['knead']"


def test_a_live_stage_starts_only_when_it_is_needed_or_asked_for(toy: ToyHouse) -> None:
    toy.inv("toy.dough")
    assert toy.diary == ALL[:2]
    toy.inv("toy.oven")
    assert toy.diary == ["oven on 200", "oven off"]


def test_plain_output_has_no_control_codes(toy: ToyHouse) -> None:
    out, err = toy.inv("toy.bread")
    assert "toy.dough: started" in err
    assert "\r" not in out + err
    assert "\x1b" not in out + err


def test_every_flag_of_the_chain_is_offered_and_explained(toy: ToyHouse) -> None:
    out, _ = toy.inv("--help", "toy.toast")
    for flag in ("--kind", "--salt", "--heat", "--wait", "--fail"):
        assert flag in out
    out, _ = toy.inv("--list")
    assert "Bake bread." in out


def test_help_has_choices_and_defaults(toy: ToyHouse) -> None:
    out, _ = toy.inv("--help", "toy.bread", TOY_KIND="spelt")
    assert re.search(r"--kind=STRING +kind: wheat, rye, spelt \[wheat\]\n", out)
    assert re.search(r"--salt=STRING +salt \[5\]\n", out)
    assert re.search(r"--wait=STRING +wait\n", out)
    assert re.search(r"--no-cache +Make everything anew\n", out)
    toy.edit("invoke.yaml", "no_cache: false", "no_cache: true")
    out, _ = toy.inv("--help", "toy.toast")
    assert re.search(r"--kind=STRING +kind: wheat, rye, spelt \[always rye\]\n", out)
    assert re.search(r"--no-cache +Make everything anew \[yes\]\n", out)
