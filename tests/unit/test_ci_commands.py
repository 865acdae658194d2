"""The CI tasks on the command line, as far as they need no image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a store and an output folder of its own."""
    for name in ("tasks", "tasks.py", "invoke.yaml", "cloud-init", "scripts", "samples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def inv(checkout: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a task there, outside any CI."""
    known = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CI_", "GITHUB_", "GITLAB_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=checkout,
        env={**known, "PYTHONDONTWRITEBYTECODE": "1", **env},
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_matrix_is_printed_and_given_to_github(checkout: Path) -> None:
    outputs = checkout / "outputs"
    done = inv(checkout, "ci.matrix", "--variants", "minimal", GITHUB_OUTPUT=str(outputs))
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["include"]
    assert jobs == [{"variant": "minimal", "accel": "kvm", "runner": "ubuntu-24.04"}]
    assert outputs.read_text() == f"matrix={done.stdout}"


def test_there_is_nothing_to_report_on(checkout: Path) -> None:
    done = inv(checkout, "ci.report")
    assert done.returncode == 2
    assert "There is no image in " in done.stderr
    assert not (checkout / "output").exists()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"CI_TAG": "nightly"}, "The tag 'nightly' is no version."),
        ({"CI_VARIANTS": "tiny"}, "CI_VARIANTS is 'tiny'"),
        ({"CI_BUILD_NUMBER": "../7"}, "CI_BUILD_NUMBER is '../7'"),
        ({"CI_SIGN_KEY": "/nowhere/key.pem"}, "/nowhere/key.pem"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_done(
    checkout: Path, env: dict[str, str], said: str
) -> None:
    done = inv(checkout, "ci.pipeline", **env)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (checkout / "output").exists()


def test_a_webhook_stands_in_no_log(checkout: Path) -> None:
    secret = "https://hooks.example/s3cr3t"
    done = inv(checkout, "ci.pipeline", CI_TAG="nightly", CI_WEBHOOK_URL=secret)
    assert "s3cr3t" not in done.stdout + done.stderr
    logs = list((checkout / ".vmbake").rglob("*.log"))
    assert logs
    assert not [path for path in logs if "s3cr3t" in path.read_text()]
