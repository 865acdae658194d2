"""Stages at the same time, as a user meets them: the real `inv` on a small checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.core.capacity import core_count
from tests.unit.toyhouse import ToyHouse


@pytest.fixture
def toy(tmp_path: Path) -> ToyHouse:
    return ToyHouse(tmp_path)


@pytest.fixture
def both(toy: ToyHouse) -> ToyHouse:
    """The singer and the dancer wait for each other, in whatever run they are."""
    toy.env = {"VMBAKE_JOBS": "2", "TOY_MEET": "singer dancer"}
    return toy


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether a program still runs; one that ended and was not asked for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def results(toy: ToyHouse) -> set[str]:
    return {path.parent.name for path in toy.root.glob(".vmbake/results/*/*")}


def test_stages_go_at_the_same_time(both: ToyHouse) -> None:
    both.inv("toy.show")
    assert set(both.diary[:2]) == {"singer in", "dancer in"}


def test_one_job_is_one_stage_after_the_other(toy: ToyHouse) -> None:
    toy.inv("toy.show", VMBAKE_JOBS="1")
    assert toy.diary == ["singer in", "singer out", "dancer in", "dancer out", "show"]


def test_a_stage_uses_no_more_cores_than_jobs_and_no_more_than_there_are(toy: ToyHouse) -> None:
    toy.inv("toy.crowd", "--jobs", "1")
    toy.inv("toy.crowd", "--jobs", "999", "--no-cache")
    assert toy.diary == ["crowd 1", f"crowd {core_count()}"]


def test_the_table_has_every_stage_once(both: ToyHouse) -> None:
    _, err = both.inv("toy.show")
    table = err[err.index("\n  toy.") :]
    assert sorted(re.findall(r"toy\.\w+", table)) == ["toy.dancer", "toy.show", "toy.singer"]


def test_variants_in_one_run_have_names_and_logs_of_their_own(toy: ToyHouse) -> None:
    words = ("toy.bread", "--kind", "rye", "toy.bread", "--kind", "wheat", "--jobs", "2")
    out, err = toy.inv(*words)
    assert len(out.splitlines()) == 2
    assert "toy.flour (rye): started" in err
    assert "toy.flour (wheat): done" in err
    assert "toy.oven: started" in err
    logs = {path.name for path in toy.root.glob(".vmbake/logs/*/toy.bread*")}
    assert logs == {"toy.bread-rye.log", "toy.bread-wheat.log"}
    assert not list((toy.root / ".vmbake" / "work").iterdir())


def test_what_both_hold_is_had_by_one_at_a_time(toy: ToyHouse) -> None:
    toy.inv("toy.dancer", "--kind", "rye", "--jobs", "9", "toy.dancer", "--kind", "wheat")
    assert toy.diary == ["dancer in", "dancer out"] * 2


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    raise AssertionError(seen)


@pytest.mark.parametrize(
    ("fail", "status", "said"),
    [
        ("singer", 11, "The singer fell."),
        ("full singer", 4, "The disk filled up during toy.singer"),
        ("bug singer", 1, "ZeroDivisionError: singer"),
    ],
)
def test_a_failure_ends_nothing_that_does_not_stand_on_it(
    both: ToyHouse, fail: str, status: int, said: str
) -> None:
    go = both.root / "go"
    process = both.start("toy.show", "toy.song", TOY_FAIL=fail, TOY_WAIT=str(go))
    seen = wait_for_line(process, "toy.singer: failed")
    go.touch()
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert said in err
    assert "toy.dancer: done" in seen + err
    assert results(both) == {"toy.dancer"}
    assert not {"song", "show"} & set(both.diary)
    assert not list((both.root / ".vmbake" / "work").iterdir())


def test_all_failures_are_reported_together(both: ToyHouse) -> None:
    _, err = both.inv("toy.show", status=11, TOY_FAIL="all")
    assert "error: The singer fell." in err
    assert "error: The dancer fell." in err
    assert re.findall(r"Full log: .*/(.*)\n", err) != []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_ends_all_stages_and_their_programs(
    toy: ToyHouse, number: int, status: int
) -> None:
    process = toy.start("toy.soup", "toy.singer", "--meet", "never", VMBAKE_JOBS="3")
    stove = pid_in(toy.root / "stove.pid")
    until(lambda: "soup" in (toy.root / "diary").read_text())
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert "toy.singer: interrupted" in err
    assert "toy.soup: interrupted" in err
    assert toy.diary[-1] == "stove off"
    assert not runs(stove)
    assert not list((toy.root / ".vmbake" / "work").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_is_waited_for_ends_with_the_run(both: ToyHouse, number: int) -> None:
    process = both.start("toy.show", TOY_WAIT="program")
    dancer = pid_in(both.root / "dancer.pid")
    process.send_signal(number)
    process.communicate(timeout=30)
    until(lambda: not runs(dancer))
    both.diary  # noqa: B018
    _, err = both.inv("toy.show")
    assert ("removed what a killed run left: toy.dancer" in err) is (number == signal.SIGKILL)
    assert both.diary[-1] == "show"
    assert not list((both.root / ".vmbake" / "work").iterdir())


def test_the_deadline_holds_for_all(toy: ToyHouse) -> None:
    words = ("--meet", "singer dancer never", "--timeout", "1", "--jobs", "2")
    _, err = toy.inv("toy.show", *words, status=9)
    assert "The run did not finish within 1 s (--timeout)." in err
    assert "toy.singer: interrupted" in err
    assert "toy.dancer: interrupted" in err
    assert not list((toy.root / ".vmbake" / "work").iterdir())


def test_a_program_outlives_the_threads_that_others_ran_in(toy: ToyHouse) -> None:
    """The kernel ends it with the thread that started it, and not only with the process."""
    (toy.root / "soup.eaten").touch()
    toy.inv("toy.soup", "--jobs", "2")
    assert toy.diary == ["dancer in", "dancer out", "stove on", "soup", "stove off"]


def test_two_runs_of_different_goals_at_once(toy: ToyHouse) -> None:
    """Each waits for the other in the middle of a stage."""
    first, second = (
        toy.start(f"toy.{name}", "--meet", "singer dancer", "--jobs", "1")
        for name in ("song", "dancer")
    )
    for process in (first, second):
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert results(toy) == {"toy.singer", "toy.song", "toy.dancer"}
    _, err = toy.inv("toy.song", "toy.dancer")
    assert "up to date" in err


def test_two_runs_that_share_stages_make_each_once(toy: ToyHouse) -> None:
    words = ("--meet", "singer dancer", "--jobs", "2")
    first, second = (toy.start(goal, *words) for goal in ("toy.show", "toy.song"))
    for process in (first, second):
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert sorted(toy.diary) == sorted(
        ["singer in", "singer out", "dancer in", "dancer out", "show", "song"]
    )


def two_of(goal: str, *kinds: str) -> list[str]:
    return [word for kind in kinds or ("rye", "wheat") for word in (goal, "--kind", kind)]


def test_a_stage_that_variants_share_is_one_stage(toy: ToyHouse) -> None:
    _, err = toy.inv(*two_of("toy.cake"), "--jobs", "3")
    assert toy.diary[:2] == ["tin in", "tin out"]
    assert err.count("toy.tin: started") == 1
    table = re.findall(r"^  (toy\.\S+(?: \(\w+\))?)  ", err, re.MULTILINE)
    assert sorted(table) == ["toy.cake (rye)", "toy.cake (wheat)", "toy.tin"]
    assert "another run" not in err
    (log,) = toy.root.glob(".vmbake/logs/*/toy.tin*")
    assert "rye" not in log.read_text()


def test_what_does_count_for_variants_makes_two_of_it(toy: ToyHouse) -> None:
    toy.inv(*two_of("toy.cake", "rye", "spelt"), "--jobs", "1")
    assert toy.diary.count("tin in") == 2


def test_explain_has_a_stage_that_variants_share_once(toy: ToyHouse) -> None:
    text, _ = toy.inv("explain", *two_of("toy.cake"))
    assert text.splitlines() == [
        "stale  toy.tin: never made",
        "stale  toy.cake (rye): stage toy.tin will be made first  kind=rye",
        "stale  toy.cake (wheat): stage toy.tin will be made first  kind=wheat",
    ]
    out, _ = toy.inv("explain", "--json", *two_of("toy.cake"))
    tin, *cakes = json.loads(out)
    assert tin["label"] == tin["stage"] == "toy.tin"
    assert "kind" not in tin["parameters"]
    assert [cake["label"] for cake in cakes] == ["toy.cake (rye)", "toy.cake (wheat)"]


def test_a_shared_stage_that_fails_fails_once(toy: ToyHouse) -> None:
    _, err = toy.inv(*two_of("toy.cake"), "--jobs", "3", status=11, TOY_FAIL="tin")
    assert toy.diary == ["tin in"]
    assert err.count("error: The tin fell.") == 1
    assert re.findall(r"^  (toy\.\S+) +failed", err, re.MULTILINE) == ["toy.tin"]


def test_what_turns_out_to_be_the_same_is_made_once(toy: ToyHouse) -> None:
    """Only when both waters have boiled it is seen that they are the same."""
    _, err = toy.inv(*two_of("toy.cup"), "--jobs", "3")
    assert sorted(toy.diary) == ["cup rye", "cup wheat", "tea in", "tea out"]
    assert err.count("started") == 5
    assert "another run" not in err
    _, err = toy.inv(*two_of("toy.cup"), "--jobs", "3", "--no-cache")
    assert toy.diary.count("tea in") == 1


def test_what_turns_out_to_be_the_same_fails_once(toy: ToyHouse) -> None:
    _, err = toy.inv(*two_of("toy.cup"), "--jobs", "3", status=11, TOY_FAIL="tea")
    assert toy.diary == ["tea in"]
    assert err.count("error: The tea fell.") == 1
    assert len(re.findall(r"^  toy\.tea .*failed", err, re.MULTILINE)) == 1


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than everything else."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    assert folder.stat().st_dev != tmp_path.stat().st_dev
    yield folder
    shutil.rmtree(folder)


def test_the_store_may_lie_on_another_file_system(toy: ToyHouse, elsewhere: Path) -> None:
    toy.edit("invoke.yaml", "state: .vmbake", f"state: {elsewhere}")
    out, _ = toy.inv("toy.bread", "--jobs", "2")
    assert Path(out.strip()).read_text() == "WHEAT FLOUR 5 ['KNEAD']"
    assert Path(out.strip()).is_relative_to(elsewhere)
    assert not (toy.root / ".vmbake").exists()
    _, err = toy.inv("toy.bread")
    assert "up to date" in err
    assert os.listdir(elsewhere / "work") == []  # noqa: PTH208
