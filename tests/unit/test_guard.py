"""The guard and the other rules of conftest: that they bite, and only what they should."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guard import NotInAUnitTest

ROOT = Path(__file__).parents[2]


def fake(folder: Path, name: str) -> Path:
    program = folder / name
    program.write_text("#!/bin/sh\necho fake\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    "argv",
    [
        ["qemu-system-x86_64", "--version"],
        ["setpriv", "--pdeathsig", "TERM", "--", "qemu-system-x86_64", "--version"],
        ["sh", "-c", "exec qemu-system-x86_64 --version"],
        ["mmdebstrap", "--version"],
        ["dockerd", "--version"],
    ],
)
def test_heavy_programs_do_not_start(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for an installed program without needing one: it lies outside of every temporary place.
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "elsewhere"))
    for name in ("qemu-system-x86_64", "mmdebstrap", "dockerd"):
        fake(tmp_path, name)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(NotInAUnitTest, match="Mark it integration or e2e"):
        subprocess.run(argv, check=False)


def test_fakes_and_light_programs_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake(tmp_path, "qemu-system-x86_64")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for argv in ([program], [program.name], ["env", program.name], ["sh", "-c", program.name]):
        assert subprocess.check_output(argv) == b"fake\n"
    assert subprocess.check_output(["echo", "qemu-system-x86_64"]) == b"qemu-system-x86_64\n"


def test_network_ends_at_loopback() -> None:
    with pytest.raises(NotInAUnitTest, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(NotInAUnitTest, match=r"vmbake\.invalid"):
        socket.getaddrinfo("vmbake.invalid", 80)
    with socket.socket() as anywhere, pytest.raises(NotInAUnitTest, match="all interfaces"):
        anywhere.bind(("", 0))


def test_loopback_is_free() -> None:
    with socket.create_server(("localhost", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()


def pytest_on(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run pytest under this project's conftest on a test file of its own."""
    (folder / "test_it.py").write_text(source)
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"),
            *("-c", ROOT / "pyproject.toml", "--basetemp", folder / "base", folder / "test_it.py"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "source",
    [
        "import pytest\n\ndef test_it():\n    pytest.skip('no tool')\n",
        "import pytest\n\n@pytest.mark.skip\ndef test_it():\n    pass\n",
        "import pytest\n\npytest.importorskip('no_such_module')\n",
    ],
)
def test_skip_is_a_failure(tmp_path: Path, source: str) -> None:
    done = pytest_on(tmp_path, source)
    assert done.returncode != 0
    assert "which counts as failed" in done.stdout


def test_expected_failure_is_none(tmp_path: Path) -> None:
    source = "import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    assert 0\n"
    assert pytest_on(tmp_path, source).returncode == 0


CHILD = """
import subprocess

def test_it():
    child = subprocess.Popen(["sleep", "600"])
    globals()["still_referred_to"] = child
    open("{pid}", "w").write(str(child.pid))
"""
ORPHAN = """
import subprocess

def test_it(tmp_path):
    (tmp_path / "disk").touch()
    start = "tail -f $0 >/dev/null 2>&1 & echo $! >{pid}"
    subprocess.run(["sh", "-c", start, tmp_path / "disk"], check=True)
"""


@pytest.mark.parametrize("source", [CHILD, ORPHAN], ids=["child", "orphan"])
def test_process_left_behind_is_an_error(tmp_path: Path, source: str) -> None:
    pid = tmp_path / "pid"
    done = pytest_on(tmp_path, source.format(pid=pid))
    assert done.returncode != 0
    assert "left these processes behind" in done.stdout
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state = Path(f"/proc/{pid.read_text().strip()}/stat").read_text().rpartition(")")[2]
        assert state.split()[0] in "ZX"
