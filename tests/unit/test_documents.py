"""The documents: their tables are the code's, what they link to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/provenance.md",
    "docs/ci.md",
    "docs/vexfs.md",
    "docs/virtual-dsm.md",
    "docs/validation.md",
    "cloud-init/README.md",
)
LINK = re.compile(r"\]\((?!https?:|#)(?P<target>[^)#]+)")


def tables(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.tables", *words],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_tables_are_current() -> None:
    checked = tables("--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_table_that_says_something_else_is_found(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from scripts import tables
tables.ROOT, tables.DOCUMENTS = Path(sys.argv[1]), (Path(sys.argv[1], "page.md"),)
tables.TABLES = {"shoes": lambda: [("size", "colour"), ("42", "red")]}
sys.exit(tables.main(sys.argv[2:]))
"""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table: shoes -->\n| 41 |\n<!-- end of table -->\nz\n")

    def run(*words: str) -> int:
        command = [sys.executable, "-c", script, str(tmp_path), *words]
        return subprocess.run(command, cwd=ROOT, check=False).returncode

    assert run("--check") == 1
    assert "41" in page.read_text()
    assert run() == 0
    assert page.read_text() == (
        "a\n<!-- table: shoes -->\n| size | colour |\n| --- | --- |\n| 42 | red |\n"
        "<!-- end of table -->\nz\n"
    )
    assert run("--check") == 0


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    broken = [
        m["target"]
        for m in LINK.finditer(page.read_text())
        if not (page.parent / m["target"]).exists()
    ]
    assert not broken


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_of_the_project_exist(name: str) -> None:
    """What is written as `folder/…` in code spans and the map."""
    text = (ROOT / name).read_text()
    pattern = r"`((?:tasks|tests|scripts|cloud-init|samples|docs|bench)/[\w./-]+)`"
    named = {match.rstrip("/") for match in re.findall(pattern, text) if "NAME" not in match}
    assert not [path for path in named if not (ROOT / path).exists()]
