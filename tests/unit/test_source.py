"""The user's source tree: which files count, and which layout it has."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tasks.core.stage import Site
from tasks.vexfs import inputs
from tasks.vexfs.options import OPTIONS
from tasks.vexfs.source import PARTS, SAMPLE, files_of, layouts, problems_of, recipe_of, tree_of

NOTHING = dict.fromkeys(PARTS, "")


def tree(root: Path, *names: str, **texts: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts.get(path.name, f"content of {name}\n"))
    return root


def public(root: Path) -> Path:
    """As the public repository: a Makefile without the target, the module in its own folder."""
    return tree(
        root,
        *("Cargo.toml", "Makefile", "kernel_module/Makefile", "kernel_module/Kbuild"),
        *("kernel_module/src/main.c", "rust/src/lib.rs"),
        Makefile="all:\n\techo vm-build:\n",
    )


def test_the_sample_is_recognised() -> None:
    assert list(problems_of(SAMPLE, NOTHING)) == []
    recipe = recipe_of(SAMPLE, NOTHING)
    assert recipe.layout == "vm-build"
    assert (recipe.module_command, recipe.module_file) == ("make vm-build", "vexfs.ko")
    assert recipe.tool_command == "cargo build --release"
    assert recipe.tool_file == "target/release/vexctl"


def test_a_tree_like_the_public_one_is_recognised(tmp_path: Path) -> None:
    root = public(tmp_path)
    assert list(problems_of(root, NOTHING)) == []
    recipe = recipe_of(root, NOTHING)
    assert recipe.layout == "kernel_module"
    assert 'M="$PWD/kernel_module"' in recipe.module_command
    assert recipe.module_file == "kernel_module/*.ko"


def test_the_first_layout_that_fits_is_taken(tmp_path: Path) -> None:
    root = public(tmp_path)
    (root / "Makefile").write_text("# comment\nvm-build: all\n")
    assert recipe_of(root, NOTHING).layout == "vm-build"


def test_neither_names_both_layouts_and_the_flags(tmp_path: Path) -> None:
    root = tree(tmp_path / "src", "Makefile", "main.c", Makefile="vm-build:\n")
    (problem,) = problems_of(root, NOTHING)
    assert str(root) in problem
    for layout in layouts():
        assert f"(layout {layout['name']})" in problem
        assert all(evidence in problem for evidence in layout["recognised"])
    for part in PARTS:
        assert OPTIONS[part].flag in problem
    assert "\n" not in problem


def test_a_source_that_is_no_folder(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "none", NOTHING)
    assert problem.startswith(f"The source {tmp_path / 'none'} is not a folder.")
    (tmp_path / "file").touch()
    assert len(list(problems_of(tmp_path / "file", NOTHING))) == 1


def test_given_parts_win_and_only_missing_ones_are_asked_for(tmp_path: Path) -> None:
    given = NOTHING | {"module_command": "make -C fs", "module_file": "fs/*.ko"}
    recipe = recipe_of(public(tmp_path / "a"), given)
    assert (recipe.module_command, recipe.module_file) == ("make -C fs", "fs/*.ko")
    assert recipe.tool_file == "target/release/vexctl"
    other = tree(tmp_path / "b", "main.c")
    (problem,) = problems_of(other, given)
    assert "--tool-command, --tool-file." in problem
    assert "--module-command" not in problem
    complete = given | {"tool_command": "make tool", "tool_file": "tool"}
    assert list(problems_of(other, complete)) == []
    assert recipe_of(other, complete).layout == "as given"


def test_what_builds_and_version_control_leave_does_not_count(tmp_path: Path) -> None:
    kept = tree(
        tmp_path, "Cargo.toml", "Makefile", "src/main.rs", ".cargo/config.toml", "fs/super.c"
    )
    before = files_of(kept)
    tree(
        tmp_path,
        *(".git/HEAD", "target/release/vexctl", "fs/super.o", "fs/.super.o.cmd", "fs/vexfs.ko"),
        *("fs/vexfs.mod", "fs/vexfs.mod.c", "Module.symvers", "modules.order", "fs/super.d"),
        *("tools/__pycache__/x.pyc", ".hg/store", ".svn/entries", ".tmp_versions/vexfs.mod"),
    )
    assert files_of(kept) == before
    assert [str(path.relative_to(kept)) for path in before] == [
        ".cargo/config.toml",
        "Cargo.toml",
        "Makefile",
        "fs/super.c",
        "src/main.rs",
    ]


def test_a_rust_module_named_target_counts(tmp_path: Path) -> None:
    root = tree(tmp_path, "Cargo.toml", "src/target/mod.rs", "target/debug/x", "tool/target/y")
    tree(tmp_path, "tool/Cargo.toml")
    assert {str(path.relative_to(root)) for path in files_of(root)} == {
        "Cargo.toml",
        "src/target/mod.rs",
        "tool/Cargo.toml",
    }


def test_links_count_and_what_has_no_content_does_not(tmp_path: Path) -> None:
    root = tree(tmp_path / "src", "real/file")
    (root / "to-folder").symlink_to("real")
    (root / "to-file").symlink_to("real/file")
    (root / "to-nowhere").symlink_to("gone")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
    assert [str(path.relative_to(root)) for path in files_of(root)] == [
        "real/file",
        "to-file",
        "to-folder",
        "to-nowhere",
    ]


def test_relative_sources_count_from_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert tree_of("samples/vexfs", tmp_path / "co") == tmp_path / "co" / "samples" / "vexfs"
    assert tree_of("~/fs", tmp_path / "co") == tmp_path / "home" / "fs"
    assert tree_of("/abs/../fs", tmp_path) == Path("/fs")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(root=tmp_path, state=tmp_path / "state", output=tmp_path / "output")


def test_the_recipe_is_an_input_of_compiling(tmp_path: Path, site: Site) -> None:
    public(tmp_path / "fs")
    params: dict[str, Any] = {"source": "fs", "version": "1", **NOTHING}
    found = inputs.recipe(site, **params)
    assert set(found) == {"engine", *(f"recipe {part}" for part in PARTS)}
    assert inputs.recipe(site, **params | {"tool_file": "x"}) != found
    assert list(inputs.source_problems(site, **params)) == []
    shutil.rmtree(tmp_path / "fs")
    assert len(list(inputs.source_problems(site, **params))) == 1


BASE: dict[str, Any] = {
    "variant": "minimal",
    "image_release": "",
    "image_mirror": "",
    "engine": "vm",
    "accel": "auto",
}


def test_what_a_base_depends_on(site: Site) -> None:
    debian = inputs.base_packages(site, base="debian-13", **BASE)
    assert set(debian) == {"packages"}
    more = inputs.base_packages(site, base="debian-13", **BASE | {"variant": "development"})
    assert "gdb" in more["packages"].split()
    # The pinned release is data beside the code: a new one is another base.
    ubuntu = inputs.base_packages(site, base="ubuntu-24.04", **BASE)
    assert ubuntu["packages"] == ""
    assert ubuntu["release"].startswith("release-20")
    other = inputs.base_packages(site, base="ubuntu-24.04", **BASE | {"image_release": "20260101"})
    assert other["release"] == "release-20260101"


def test_a_local_base_must_be_there(site: Site) -> None:
    (problem,) = inputs.base_problems(site, base="file:disk.raw")
    assert str(site.root / "disk.raw") in problem
    (site.root / "disk.raw").touch()
    assert list(inputs.base_problems(site, base="file:disk.raw")) == []
    assert list(inputs.base_problems(site, base="debian-13")) == []
    assert inputs.base_packages(site, base="file:disk.raw", **BASE) == {"packages": ""}
