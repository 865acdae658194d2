"""testinfra's objects over the shell that is open anyway; the guest is this host's sh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.artifacts.checks import Check
from tasks.core.process import Runner
from tasks.guest.shell import Shell, opened
from tasks.validate.asking import Asked
from tasks.validate.catalogue import Spec
from tasks.validate.checking import GuestChecks
from tasks.validate.facts import Facts
from tasks.validate.pending import pending

FACTS = Facts(
    variant="", manifest=False, values={"MODULE": "x"}, programs=frozenset(), mounts=False
)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with opened(("sh",), Runner(tmp_path / "log")) as running:
        yield running


def made(shell: Shell, *ask: str, equals: str | bool | int) -> Check:
    found: list[Check] = []
    spec = Spec(group="seal", name="n", expected="e", ask=ask, equals=equals)
    GuestChecks(shell, FACTS, found.append).run([spec])
    return found[0]


def test_a_property_comes_with_the_command_that_told_it(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("x")
    value, ran, said = Asked(shell, 20).ask("file", str(file), "size")
    assert value == 1
    assert str(file) in ran
    assert said == "1"


def test_right_and_wrong_and_modes_as_people_write_them(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o640)
    assert made(shell, "file", str(file), "exists", equals=True).outcome == "passed"
    assert made(shell, "file", str(file), "mode", equals=0o640).outcome == "passed"
    wrong = made(shell, "file", str(file), "mode", equals=0o600)
    assert wrong.outcome == "failed"
    assert wrong.reason.endswith(".mode: It is 0640; 0600 was expected.")
    gone = made(shell, "file", f"{file}2", "exists", equals=True)
    assert gone.reason.endswith(".exists: It is False; True was expected.")


@pytest.mark.parametrize(
    "ask",
    [("file", "/nowhere/at/all", "mode"), ("mount_point", "/nowhere/at/all", "filesystem")],
)
def test_what_testinfra_cant_find_out_is_a_failure_with_its_words(
    shell: Shell, ask: tuple[str, str, str]
) -> None:
    found = made(shell, *ask, equals="ext4")
    assert found.outcome == "failed"
    assert "could not be found out" in found.reason


def test_only_security_updates_count() -> None:
    said = """\
Reading package lists...
Inst libc6 [2.41-1] (2.41-2 Debian:13.2/stable [amd64])
Inst openssl [3.5-1] (3.5-2 Debian-Security:13/stable-security [amd64])
Inst vim [9] (10 Ubuntu:24.04/noble-security [amd64])
Inst brand-new (1 Debian-Security:13/stable-security [amd64])
Conf openssl (3.5-2 Debian-Security:13/stable-security [amd64])
"""
    assert pending(said) == ["openssl", "vim"]
