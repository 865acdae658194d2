"""Programs started through the Runner: what they get, what they leave, and that they end."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tasks.core import process as process_module
from tasks.core import tools
from tasks.core.errors import CommandFailed, MissingTool, TimedOut
from tasks.core.process import PASSED_ON, Runner, describe_status, tail_of

ROOT = Path(__file__).parents[2]
# Writes its pid, then lets nobody but SIGKILL end it. (`sleep` in the loop dies by SIGTERM.)
STUBBORN = "trap '' TERM; echo $$ > {pid}; while :; do sleep 0.05; done"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "logs" / "step.log", timeout_s=30)


def pid_in(path: Path) -> int:
    """The pid that a program writes there as soon as it runs."""
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def is_running(pid: int) -> bool:
    """Whether there is such a process, zombies not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def assert_ends(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.01)


def test_stdin_is_closed_unless_it_is_given(runner: Runner, tmp_path: Path) -> None:
    assert runner.output(["cat"]) == ""
    assert runner.output(["cat"], stdin=b"bytes") == "bytes"
    (tmp_path / "in").write_text("a file")
    with (tmp_path / "in").open("rb") as stream:
        assert runner.output(["cat"], stdin=stream) == "a file"


def test_much_input_and_output_at_once_do_not_block(runner: Runner) -> None:
    data = b"0123456789abcde\n" * 65536
    assert runner.output(["cat"], stdin=data) == data.decode()
    # One that doesn't read its input is no error of ours.
    assert runner.output(["echo", "done"], stdin=data) == "done\n"


def test_the_environment_is_known(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    lines = dict(line.split("=", 1) for line in runner.output(["env"]).splitlines())
    assert set(lines) <= {*PASSED_ON, "LC_ALL"}
    assert lines["LC_ALL"] == "C.UTF-8"
    assert lines["https_proxy"] == "http://proxy.test:3128"
    assert lines["PATH"].startswith(os.environ["PATH"])
    assert "hunter2" not in runner.log.read_text()


def test_programs_of_sbin_are_found(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "/usr/sbin" in runner.output(["env"]).partition("PATH=")[2].partition("\n")[0].split(":")


def test_the_call_s_own_variables_win(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log", env={"ONE": "runner", "TWO": "runner"})
    out = runner.output(["sh", "-c", "echo $ONE $TWO"], env={"TWO": "call"})
    assert out == "runner call\n"


def test_run_logs_the_command_and_all_it_says(runner: Runner, tmp_path: Path) -> None:
    seen: list[str] = []
    runner.run(["sh", "-c", "echo out; echo err >&2; pwd"], cwd=tmp_path, on_line=seen.append)
    log = runner.log.read_text()
    assert "# $ sh -c 'echo out; echo err >&2; pwd'\n" in log
    assert seen == ["out\n", "err\n", f"{tmp_path}\n"]
    assert log.endswith("".join(seen))


def test_output_returns_stdout_and_logs_stderr(runner: Runner) -> None:
    assert runner.output(["sh", "-c", "echo out; echo err >&2"]) == "out\n"
    assert runner.log.read_text().endswith("err\n")


def test_a_line_is_seen_when_it_is_written(runner: Runner, tmp_path: Path) -> None:
    # The program goes on only after its first line has been dealt with.
    script = "echo first; until [ -e go ]; do sleep 0.02; done; echo second"
    seen: list[str] = []

    def see(line: str) -> None:
        seen.append(line)
        (tmp_path / "go").touch()

    runner.run(["sh", "-c", script], cwd=tmp_path, on_line=see)
    assert seen == ["first\n", "second\n"]


def test_a_failure_carries_status_log_hint_and_last_lines(runner: Runner) -> None:
    with pytest.raises(CommandFailed) as caught:
        runner.run(["sh", "-c", "seq 100; echo why >&2; exit 3"], hint="Look.")
    assert caught.value.what == "sh failed (exit status 3)."
    assert (caught.value.hint, caught.value.log) == ("Look.", runner.log)
    assert caught.value.tail[-2:] == ("100", "why")
    assert len(caught.value.tail) == 20
    with pytest.raises(CommandFailed, match="killed by SIGKILL"):
        runner.output(["sh", "-c", "kill -9 $$"])
    assert describe_status(-15) == "killed by SIGTERM"


def test_the_limit_ends_all_that_was_started(runner: Runner, tmp_path: Path) -> None:
    # The leader listens to SIGTERM; its child doesn't, and holds the output open.
    child = STUBBORN.format(pid=tmp_path / "pid")
    with pytest.raises(TimedOut, match=r"sh did not finish within 1 s\."):
        runner.run(["sh", "-c", 'sh -c "$1" & wait', "sh", child], timeout_s=1)
    assert_ends(pid_in(tmp_path / "pid"))


def test_a_program_that_ignores_its_end_is_killed(runner: Runner, tmp_path: Path) -> None:
    with runner.start(["sh", "-c", STUBBORN.format(pid=tmp_path / "pid")]) as process:
        assert pid_in(tmp_path / "pid") == process.pid
        assert process.returncode is None
        process.stop(grace_s=0.1)
        assert process.returncode == -signal.SIGKILL
        process.stop()  # harmless


def test_programs_that_give_way_are_behind_the_others(runner: Runner) -> None:
    with runner.giving_way().start(["sleep", "60"]) as behind, runner.start(["sleep", "60"]) as one:
        assert os.getpriority(os.PRIO_PROCESS, behind.pid) == process_module.NICE
        assert os.getpriority(os.PRIO_PROCESS, one.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        session = Path(f"/proc/{behind.pid}/autogroup")
        if Path("/proc/sys/kernel/sched_autogroup_enabled").exists():
            assert session.read_text().split()[-1] == str(process_module.NICE)
    process_module.give_way(behind.pid)  # harmless


def test_leaving_the_block_ends_the_whole_group(runner: Runner, tmp_path: Path) -> None:
    child = STUBBORN.format(pid=tmp_path / "pid")
    with runner.start(["sh", "-c", 'sh -c "$1" & wait', "sh", child]) as process:
        pid = pid_in(tmp_path / "pid")
        assert process.wait(timeout_s=0.01) is None
    assert not is_running(process.pid)
    assert_ends(pid)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_error_in_the_block_ends_it(
    runner: Runner, error: type[BaseException], tmp_path: Path
) -> None:
    with pytest.raises(error), runner.start(["sleep", "1000"]) as process:
        raise error
    assert not is_running(process.pid)

    def fail(line: str) -> None:
        raise error

    with pytest.raises(error):
        runner.run(["sh", "-c", "echo $$ > pid; echo; sleep 1000"], cwd=tmp_path, on_line=fail)
    assert_ends(pid_in(tmp_path / "pid"))


def test_what_a_finished_leader_left_goes_with_the_block(runner: Runner, tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! > pid"
    with runner.start(["sh", "-c", script], cwd=tmp_path) as process:
        pid = pid_in(tmp_path / "pid")
        assert process.wait(timeout_s=20) == 0
        assert is_running(pid)
    assert_ends(pid)


def test_a_program_dies_with_its_killed_parent(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tasks.core.process import Runner\n"
        f"with Runner(Path({str(tmp_path / 'log')!r})).start(['sleep', '1000']) as process:\n"
        "    print(process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # Only once setpriv has become the program is it tied.
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
        assert time.monotonic() < deadline
    parent.kill()
    parent.communicate()
    assert_ends(pid)


def test_a_released_program_goes_on(runner: Runner) -> None:
    with runner.start(["sleep", "1000"], outlive=True) as process:
        process.release()
    try:
        assert is_running(process.pid)
        assert "setpriv" not in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)


def test_descriptors_are_handed_over_by_name_only(runner: Runner, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    script = f"echo through > /dev/fd/{writing}"
    with runner.start(["sh", "-c", script], pass_fds=[writing]) as process:
        assert process.wait(timeout_s=20) == 0
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read() == "through\n"
    with (tmp_path / "open").open("w") as mine:
        os.set_inheritable(mine.fileno(), True)
        with pytest.raises(CommandFailed):
            runner.run(["sh", "-c", f"echo through > /dev/fd/{mine.fileno()}"])


def test_a_missing_program_is_named_with_its_package(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tools, "find_tool", lambda name: None)
    monkeypatch.setattr(tools, "columns", lambda: ("debian",))
    with pytest.raises(MissingTool) as caught:
        runner.run(["mformat", "-i", "x"])
    assert caught.value.what == "The program mformat is not installed."
    assert caught.value.hint == "Install the package mtools: scripts/bootstrap does it."
    monkeypatch.setattr(tools, "columns", lambda: ("macos",))
    with pytest.raises(MissingTool, match=r"mmdebstrap is not installed\. The bases debian-12"):
        runner.run(["mmdebstrap"])
    with pytest.raises(MissingTool, match=r"^The program frobnicate is not installed\.$"):
        runner.run(["frobnicate"])


def test_the_tail_of_a_log_is_fit_to_be_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\nkept\n10 %\r20 %\rdone\nbell\x07 and \xff\n\n\n\n\n")
    assert tail_of(log, 3) == ("kept", "done", "bell and �")
    assert tail_of(tmp_path / "none") == ()


def test_a_program_that_is_handed_our_streams(
    runner: Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    assert runner.hand_over(["sh", "-c", "echo out; echo err >&2; exit 3"]) == 3
    assert capfd.readouterr() == ("out\n", "err\n")
    assert "# $ sh -c 'echo out" in runner.log.read_text()
    assert runner.hand_over(["sh", "-c", "kill -9 $$"]) == -signal.SIGKILL
    with pytest.raises(MissingTool):
        runner.hand_over(["no-such-program"])


def test_ctrl_c_ends_who_has_our_streams(runner: Runner, tmp_path: Path) -> None:
    program = f"""
import os, signal, threading
from pathlib import Path
from tasks.core.process import Runner
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
Runner(Path({str(tmp_path / "log")!r})).hand_over(
    ["sh", "-c", "trap '' INT; echo $$ > {tmp_path / "pid"}; exec sleep 600"]
)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, stderr=-3)
    assert done.returncode == -signal.SIGINT
    assert_ends(pid_in(tmp_path / "pid"))


def test_a_terminal_gets_its_settings_back(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    program = f"""
from pathlib import Path
from tasks.core.process import Runner
Runner(Path({str(tmp_path / "log")!r})).hand_over(["sh", "-c", "stty raw -echo; kill -9 $$"])
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, stdin=theirs)
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
