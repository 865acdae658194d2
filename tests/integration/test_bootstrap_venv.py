"""scripts/bootstrap makes a real .venv, offline: the lock names one wheel, made here."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CATALOG = '[tools.sh]\ndebian = "dash"\nmacos = "dash"\nwhy = "is everywhere"\n[files]\n'
NAME = "crumb-1.0-py3-none-any.whl"
GREETING = "print('a crumb')\n"


class Checkout:
    """A copy of bootstrap with a lock of one package, and the folder that pip finds it in."""

    def __init__(self, place: Path) -> None:
        self.root, self.wheels = place / "checkout", place / "wheels"
        (self.root / "scripts").mkdir(parents=True)
        self.wheels.mkdir()
        self.script = self.root / "scripts" / "bootstrap"
        shutil.copy(ROOT / "scripts" / "bootstrap", self.script)
        (self.root / "scripts" / "packages.toml").write_text(CATALOG)
        self.stamp = self.root / ".venv" / "made-from"
        self.write_wheel()
        self.lock(self.digest())

    def write_wheel(self) -> None:
        with zipfile.ZipFile(self.wheels / NAME, "w") as wheel:
            info = "crumb-1.0.dist-info"
            wheel.writestr("crumb.py", GREETING)
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: crumb\nVersion: 1.0\n")
            wheel.writestr(
                f"{info}/WHEEL",
                "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{info}/RECORD", "")

    def digest(self) -> str:
        return hashlib.sha256((self.wheels / NAME).read_bytes()).hexdigest()

    def lock(self, sha256: str) -> None:
        lock = self.root / "requirements.txt"
        lock.write_text(f"crumb==1.0 \\\n    --hash=sha256:{sha256}\n")

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, str(self.script), *words]

    def env(self) -> dict[str, str]:
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        return {**os.environ, "PIP_CONFIG_FILE": os.devnull, **offline}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), env=self.env(), capture_output=True, text=True, check=False
        )

    @contextlib.contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A run with its stderr in a pipe."""
        with subprocess.Popen(
            self.argv(*words),
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            yield process


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


CRUMB = ("python", "-c", "import crumb")


def test_venv_is_made_once_and_again_for_another_lock(checkout: Checkout) -> None:
    first = checkout.run(*CRUMB)
    assert (first.returncode, first.stdout) == (0, "a crumb\n"), first.stderr
    made = checkout.stamp.stat().st_mtime_ns
    second = checkout.run(*CRUMB)
    assert (second.returncode, second.stdout, second.stderr) == (0, "a crumb\n", "")
    assert checkout.stamp.stat().st_mtime_ns == made

    checkout.lock(f"{checkout.digest()} --hash=sha256:{'0' * 64}")
    third = checkout.run(*CRUMB)
    assert third.stdout == "a crumb\n"
    assert "Making .venv" in third.stderr


def test_changed_wheel_is_refused(checkout: Checkout) -> None:
    checkout.lock("0" * 64)
    done = checkout.run(*CRUMB)
    assert (done.returncode, done.stdout) == (1, "")
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not checkout.stamp.exists()


def test_kill_in_the_middle_is_repaired_by_the_next_run(checkout: Checkout) -> None:
    with checkout.start(*CRUMB) as killed:
        assert killed.stderr is not None
        # pip is about to start: the venv is there and has no packages yet.
        assert any(" -m pip install" in line for line in killed.stderr)
        killed.send_signal(signal.SIGKILL)
    assert not checkout.stamp.exists()
    done = checkout.run(*CRUMB)
    assert (done.returncode, done.stdout) == (0, "a crumb\n"), done.stderr


def test_two_at_once_make_one(checkout: Checkout) -> None:
    with checkout.start(*CRUMB) as first:
        assert first.stderr is not None
        assert any("Making .venv" in line for line in first.stderr)
        second = checkout.run(*CRUMB)
        out, _ = first.communicate()
    assert (first.returncode, out) == (0, "a crumb\n")
    assert (second.returncode, second.stdout) == (0, "a crumb\n")
    assert "Another bootstrap is at work" in second.stderr
    assert "Making .venv" not in second.stderr
