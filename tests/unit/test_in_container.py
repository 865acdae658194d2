"""scripts/in-container with a fake docker: the command lines, and what it says when it can't."""

from __future__ import annotations

import argparse
import ast
import importlib.machinery
import importlib.util
import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "in-container"
ENTRY = ROOT / "scripts" / "container" / "entry.py"
# The commonest container: what it may do is to be looked at whenever it changes.
GOLDEN = """\
docker run --rm --init --interactive --pull=never --label=org.vmbake.in-container
--cap-add=SYS_ADMIN --device=/dev/fuse --device=/dev/loop-control
--device-cgroup-rule=b 7:* rwm --device-cgroup-rule=c 10:232 rwm
--security-opt=seccomp=unconfined --security-opt=apparmor=unconfined --security-opt=label=disable
--read-only --tmpfs=/run --volume=/tmp --volume=/var/tmp
--tmpfs=/dev/shm:exec,suid,dev,mode=1777
--mount=type=bind,source={root},target={root} --workdir={root}
vmbake-tools:1 python3 -IB {root}/scripts/container/entry.py {root} inv --list
"""
# Writes down what it is asked, and answers as $STATE says.
DOCKER = r"""#!/bin/sh
printf '%s\n' "$*" >> "$STATE/calls"
case "$1 $2" in
"info --format") cat "$STATE/security" || { echo "no engine" >&2; exit 1; } ;;
"image inspect") [ -e "$STATE/image" ] ;;
build*)
    cat > "$STATE/context"
    echo Step 1
    [ ! -e "$STATE/slow" ] || exec sleep 100
    [ ! -e "$STATE/broken" ] && : > "$STATE/image" ;;
run*)
    [ ! -e "$STATE/waits" ] || { echo up; cat > "$STATE/ended"; }
    exit 7 ;;
esac
"""
# A command that says when it is there, and how it was asked to end.
COMMAND = """
import signal, sys, time
def end(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(5)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, end)
print("up", flush=True)
time.sleep(100)
"""


def load(path: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("of_a_container", str(path))
    spec = importlib.util.spec_from_loader("of_a_container", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def parsed(script: ModuleType, *words: str) -> argparse.Namespace:
    options = script.parse(words)
    assert isinstance(options, argparse.Namespace)
    return options


@pytest.fixture
def script() -> ModuleType:
    return load(SCRIPT)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a fake docker, whose engine has root and not the image."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "docker"
    fake.write_text(DOCKER)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path))
    (tmp_path / "security").write_text('["name=seccomp,profile=default"]\n')
    return tmp_path


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def calls(state: Path) -> list[str]:
    return [line.split()[0] for line in (state / "calls").read_text().splitlines()]


def test_the_container_gets_these_rights_and_no_others(script: ModuleType) -> None:
    words = script.run_argv("vmbake-tools:1", parsed(script, "inv", "--list"), {"HOME": "/root"})
    assert " ".join(words) == " ".join(GOLDEN.format(root=ROOT).split("\n")).strip()


def test_what_it_is_shown_and_told(script: ModuleType, tmp_path: Path) -> None:
    tree = tmp_path / "a, b"
    tree.mkdir()
    options = parsed(script, "--show", str(tree), "--network", "lan", "--", "inv", "-l")
    env = {"VEXFS_VARIANT": "minimal", "https_proxy": "http://me:secret@proxy", "AWS_KEY": "x"}
    words = script.run_argv("i", options, env)
    assert f'--mount=type=bind,"source={tree}","target={tree}",readonly' in words
    assert "--network=lan" in words
    assert [word for word in words if word.startswith("--env")] == [
        "--env=VEXFS_VARIANT",
        "--env=https_proxy",
    ]
    assert words[-2:] == ["inv", "-l"]
    built = script.build_argv("i", "debian:13-slim", options.network, env)
    assert built[:2] == ["docker", "build"]
    assert {"--network=lan", "--build-arg=https_proxy", "--build-arg=BASE=debian:13-slim"} <= {
        *built
    }
    assert "secret" not in " ".join([*words, *built])


def test_the_image_is_made_once_and_its_words_are_not_the_command_s(state: Path) -> None:
    first = run("--base", "mine:1", "inv", "--list")
    assert (first.returncode, first.stdout) == (7, "")
    assert "Making the image vmbake-tools:" in first.stderr
    assert "Step 1" in first.stderr
    assert calls(state) == ["info", "image", "build", "run"]
    (state / "calls").unlink()
    second = run("--base", "mine:1", "inv", "--list")
    assert "Making" not in second.stderr
    assert calls(state) == ["info", "image", "run"]


def test_another_base_or_lock_is_another_image(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script.image_key("debian:13-slim") != script.image_key("debian:12-slim")
    for name in (script.RECIPE, *script.CONTENT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    before = script.image_key("debian:13-slim")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert script.image_key("debian:13-slim") == before
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    assert script.image_key("debian:13-slim") != before


def test_the_image_is_made_of_what_its_key_is_made_of(script: ModuleType) -> None:
    with tarfile.open(fileobj=io.BytesIO(script.build_context())) as archive:
        assert sorted(archive.getnames()) == sorted(["Dockerfile", *script.CONTENT])
    # Else Docker's client takes it for a Dockerfile.
    assert (
        tarfile.TarInfo.frombuf(script.build_context()[:512], "utf-8", "strict").type
        == tarfile.REGTYPE
    )


def test_an_image_that_can_t_be_made(state: Path) -> None:
    (state / "broken").touch()
    done = run("inv", "--list")
    assert done.returncode == 1
    assert "That failed; see above." in done.stderr
    assert "run" not in calls(state)


def test_an_engine_that_can_t_be_used(state: Path) -> None:
    (state / "security").write_text('["name=rootless"]')
    done = run("inv", "--list")
    assert done.returncode == 12
    assert "without root" in done.stderr
    (state / "security").unlink()
    done = run("inv", "--list")
    assert done.returncode == 12
    assert "no engine" in done.stderr


def test_no_docker(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(state))
    done = run("inv", "--list")
    assert done.returncode == 3
    assert "no program docker" in done.stderr


def test_a_signal_ends_the_making_of_the_image(state: Path) -> None:
    (state / "slow").touch()
    with subprocess.Popen(
        [sys.executable, SCRIPT, "inv"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "Making the image" in process.stderr.readline()
        assert process.stderr.readline() == "Step 1\n"
        process.send_signal(signal.SIGTERM)
        assert "Interrupted" in process.stderr.read()
        assert process.wait() == 128 + signal.SIGTERM
    assert "run" not in calls(state)


def test_wrong_usage(state: Path) -> None:
    assert "there is no COMMAND" in run().stderr
    done = run("--show", str(state / "nothing"), "inv")
    assert done.returncode == 2
    assert "no such file or folder" in done.stderr


def test_an_older_python_understands_it() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 9))


def entry(*command: str) -> subprocess.Popen[str]:
    """The container's side, without device nodes and with nothing to give back."""
    code = (
        "import runpy, sys; entry = runpy.run_path(sys.argv[1], run_name='entry');"
        "entry['main'].__globals__.update(make_nodes=print, give_back=print, GRACE_S=0.1);"
        "sys.exit(entry['main'](sys.argv[2], sys.argv[3:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, ENTRY, "/checkout", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("sign", ["SIGINT", "SIGTERM", "end of input"])
def test_the_command_is_asked_to_end(sign: str) -> None:
    with entry(sys.executable, "-uc", COMMAND) as process:
        assert line(process) == "/dev"
        assert line(process) == "up"
        if sign == "end of input":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(signal.Signals[sign])
        assert line(process) == ("SIGTERM" if sign == "end of input" else sign)
        assert line(process) == "/checkout"
        assert process.wait() == 5


def test_a_deaf_command_is_killed() -> None:
    deaf = COMMAND.replace("print(signal.Signals(number).name, flush=True)", "return")
    with entry(sys.executable, "-uc", deaf) as process:
        assert line(process) == "/dev"
        assert line(process) == "up"
        assert process.stdin is not None
        process.stdin.close()
        assert line(process) == "/checkout"
        assert process.wait() == 128 + signal.SIGKILL


def test_a_signal_reaches_the_container_and_a_kill_ends_its_input(state: Path) -> None:
    (state / "image").touch()
    (state / "waits").touch()
    for number, status in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -9)):
        with subprocess.Popen(
            [sys.executable, SCRIPT, "inv"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert line(process) == "up"
            process.send_signal(number)
            # Until the client has ended.
            assert process.stdout is not None
            assert process.stdout.read() == ""
            assert process.wait() == status
