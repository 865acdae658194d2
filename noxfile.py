"""The door to development: `nox` checks and tests everything, `nox -l` lists the parts.

Sessions run in the environment that scripts/bootstrap made; none installs anything.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import nox
import nox.command
import yaml

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "unit", "integration", "e2e"]

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent
VARIANTS = "minimal,development,production"


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, spelling, shell scripts and the arrows; change nothing."""
    run(session, "ruff", "check")
    run(session, "ruff", "format", "--check")
    run(session, "mypy")
    run(session, "shellcheck", *shell_scripts(session))
    run(session, "codespell")
    run(session, "pytest", "-q", "tests/unit/test_arrows.py")


@nox.session(default=False)
def fmt(session: nox.Session) -> None:
    """Rewrite the Python files as lint wants them, and the tables in the documents."""
    run(session, "ruff", "check", "--fix")
    run(session, "ruff", "format")
    run(session, "python", "-m", "scripts.tables")


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that need no VM and no network; arguments go to pytest."""
    run(session, "pytest", "-m", "not integration and not e2e", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Run the tests with real tools and tiny guests; arguments go to pytest."""
    run(session, "pytest", "-m", "integration", "--timeout=600", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Build whole images and boot them; arguments go to pytest."""
    run(session, "pytest", "-m", "e2e", "--timeout=3600", *session.posargs)


@nox.session(default=False)
def validate(session: nox.Session) -> None:
    """Bake what is missing and validate it; `-- --variants minimal`, then inv validate.image's."""
    names, words = chosen_variants(session.posargs)
    # Whatever fails, the rest gets its turn, and the report its data.
    failed = [name for name in names if not inv(session, "vexfs.image", "--variant", name)]
    passed = inv(session, "validate.image", *words)
    reported = inv(session, "ci.report")
    if failed:
        session.error(f"not baked: {', '.join(failed)}")
    if not passed or not reported:
        session.error("validation or report failed" if passed else "an image did not pass")


def chosen_variants(words: list[str]) -> tuple[list[str], list[str]]:
    """The variants to bake, by flag, environment or invoke.yaml; and the other words."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    settings = yaml.safe_load((ROOT / "invoke.yaml").read_text()).get("ci", {})
    default = os.environ.get("CI_VARIANTS", settings.get("variants", VARIANTS))
    parser.add_argument("--variants", default=default)
    chosen, others = parser.parse_known_args(words)
    return [name.strip() for name in chosen.variants.split(",") if name.strip()], others


def inv(session: nox.Session, *words: str) -> bool:
    """Run a task of the checkout; whether it succeeded."""
    try:
        run(session, "inv", *words)
    except nox.command.CommandFailed:
        return False
    return True


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure vmbake beside the usual tools; `-- --quick` takes ten minutes, not 45."""
    run(session, "python", "-m", "bench", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write requirements.txt anew from pyproject.toml; `-- --upgrade` takes newer versions."""
    # The hashes must be the public ones, whatever index this machine is set up to use.
    leaks: dict[str, str | None] = {name: None for name in session.env if name.startswith("UV_")}
    run(
        session,
        *("uv", "pip", "compile", "--no-config", "--quiet"),
        *("--universal", "--python-version=3.11", "--generate-hashes", "--only-binary=:all:"),
        # Wanted on Windows only, where vmbake doesn't run.
        *("--no-emit-package=colorama", "--no-emit-package=pywin32"),
        *("--group=dev", "--output-file=requirements.txt", "--custom-compile-command=nox -s lock"),
        *(*session.posargs, "pyproject.toml"),
        env=leaks,
    )


def run(
    session: nox.Session, program: str, *words: str, env: dict[str, str | None] | None = None
) -> None:
    """Run a program of the environment that nox itself is in, wherever PATH leads.

    Only shellcheck may be the system's: it has no wheel for Linux on arm64.
    """
    ours = BIN / program
    session.run(str(ours) if ours.exists() else program, *words, env=env, external=True)


def shell_scripts(session: nox.Session) -> list[str]:
    """The project's shell scripts, by their first line; new files count before they are added."""
    listed = session.run(
        *("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        silent=True,
        external=True,
    )
    names = [name for name in str(listed).split("\0") if name and (ROOT / name).is_file()]
    return [name for name in names if is_shell(ROOT / name)]


def is_shell(path: Path) -> bool:
    """Whether the file begins as a script for sh or bash."""
    with path.open("rb") as stream:
        first = stream.readline(80).split()
    return first[:1] != [] and first[0].startswith(b"#!") and first[-1].endswith((b"/sh", b"bash"))
