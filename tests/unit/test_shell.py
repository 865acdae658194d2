"""The shell that stays open, with this host's sh at the other end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.errors import CommandFailed, MachineFailed, TimedOut
from tasks.core.process import Runner
from tasks.guest import shell as shells
from tasks.guest.shell import Shell, opened


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "log")


@pytest.fixture
def shell(runner: Runner) -> Iterator[Shell]:
    with opened(("sh",), runner) as running:
        yield running


def test_outputs_and_status_are_kept_apart(shell: Shell) -> None:
    answer = shell.run("echo out; echo err >&2; exit 3", timeout_s=20)
    assert (answer.status, answer.stdout, answer.stderr) == (3, "out\n", "err\n")
    assert answer.said == "out\nerr"


def test_commands_follow_each_other_whatever_they_do(shell: Shell) -> None:
    for command in ("exit 1", "cat", "printf 'no line end'", "echo '; }\"'\"'", "kill -9 $$", ""):
        shell.run(command, timeout_s=20)
    assert shell.run("printf 'a\n\nb'", timeout_s=20).stdout == "a\n\nb"


def test_much_output_on_both_sides_arrives_whole(shell: Shell) -> None:
    answer = shell.run("seq 100000; seq 100000 >&2", timeout_s=60)
    wanted = "".join(f"{number}\n" for number in range(1, 100001))
    assert (answer.stdout, answer.stderr) == (wanted, wanted)


def test_bytes_that_are_no_text_do_no_harm(shell: Shell) -> None:
    assert "�" in shell.run(r"printf '\377\n'", timeout_s=20).stdout


def test_a_command_that_does_not_end_is_ended_and_the_shell_goes_on(shell: Shell) -> None:
    assert shell.run("sleep 600", timeout_s=1).status == shells.TIMED_OUT_STATUS
    assert shell.run("echo there", timeout_s=20).stdout == "there\n"


def test_the_log_has_commands_and_answers(shell: Shell, runner: Runner) -> None:
    shell.run("echo seen", timeout_s=20)
    log = runner.log.read_text()
    assert "in the guest: echo seen" in log
    assert "#   seen" in log


def test_the_end_of_the_other_side_is_told_and_stays(runner: Runner) -> None:
    with opened(("sh", "-c", "read line; echo gone >&2"), runner) as shell:
        with pytest.raises(CommandFailed, match="connection to the guest ended") as caught:
            shell.run("true", timeout_s=20)
        assert caught.value.tail == ("gone",)
        with pytest.raises(CommandFailed, match="shell is lost: The connection"):
            shell.run("true", timeout_s=20)


def test_the_machine_is_blamed_if_it_failed(runner: Runner) -> None:
    def cause() -> None:
        raise MachineFailed("The guest's kernel panicked.")

    with (
        opened(("true",), runner, cause) as shell,
        pytest.raises(MachineFailed, match="panicked"),
    ):
        shell.run("true", timeout_s=20)


def test_a_guest_that_hangs_is_given_up(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "GRACE_S", 0.1)
    monkeypatch.setattr(shells, "KILL_AFTER_S", 0)
    since = time.monotonic()
    with opened(("cat",), runner) as shell, pytest.raises(TimedOut, match="does not answer"):
        shell.run("true", timeout_s=0.5)
    assert time.monotonic() - since < 20
