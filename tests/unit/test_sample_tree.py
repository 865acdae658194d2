"""The shipped sample has what the recipe needs, says one version everywhere, and needs no crate."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

SAMPLE = Path(__file__).parents[2] / "samples" / "vexfs"
SOURCES = ("Makefile", "Kbuild", "vexfs.c", "compat.h", "src/main.rs", "src/status.rs")


def cargo(name: str) -> dict[str, Any]:
    return tomllib.loads((SAMPLE / name).read_text())


def test_makefile_has_the_target_of_the_recipe() -> None:
    assert re.search(r"^vm-build:", (SAMPLE / "Makefile").read_text(), re.MULTILINE)


def test_version_is_the_same_for_module_and_crate() -> None:
    version = (SAMPLE / "VERSION").read_text().strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert cargo("Cargo.toml")["package"]["version"] == version
    (locked,) = cargo("Cargo.lock")["package"]
    assert (locked["name"], locked["version"]) == ("vexctl", version)


def test_crate_builds_offline_with_the_cargo_of_debian_12() -> None:
    manifest = cargo("Cargo.toml")
    assert not {"dependencies", "build-dependencies", "dev-dependencies"} & manifest.keys()
    assert manifest["package"]["edition"] in ("2018", "2021")
    assert cargo("Cargo.lock")["version"] == 3


@pytest.mark.parametrize("name", SOURCES)
def test_source_names_its_license(name: str) -> None:
    assert "SPDX-License-Identifier: GPL-2.0-only" in (SAMPLE / name).read_text().splitlines()[0]


def test_kernel_differences_are_in_one_file() -> None:
    assert "LINUX_VERSION_CODE" not in (SAMPLE / "vexfs.c").read_text()


def test_exercise_can_be_run() -> None:
    assert os.access(SAMPLE / "tests" / "exercise.sh", os.X_OK)
