"""The compile cache: what its parts depend on, and how archives are taken over."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.core.digest import Digests, sha256_of
from tasks.core.stage import Site
from tasks.vexfs import compile_cache, compiling
from tasks.vexfs.compile_cache import CompileCache, keys_of
from tasks.vexfs.source import Recipe, files_of

RECIPE = Recipe(
    layout="x", module_command="make", module_file="a.ko", tool_command="cargo", tool_file="b"
)
OBJECTS = "a" * 64
CRATE = "vendor/motto/"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name in (
        *("Cargo.toml", "Cargo.lock", "src/main.rs", ".cargo/config.toml"),
        *(f"{CRATE}.cargo-checksum.json", f"{CRATE}src/lib.rs"),
    ):
        write(folder / name, name)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    return CompileCache(folder=tmp_path / "cache", keys={"objects": OBJECTS})


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def keys(tree: Path, toolchain: str = OBJECTS, **changed: Any) -> dict[str, str]:
    words = {"recipe": RECIPE, "version": "1", "root": Path("/checkout"), **changed}
    return keys_of(toolchain, tree, files_of(tree), digest=sha256_of, **words)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (f"{CRATE}src/lib.rs", True),
        (f"{CRATE}new.rs", True),
        (".cargo/config.toml", True),
        ("Cargo.lock", True),
        # Cargo itself sees these.
        ("Cargo.toml", False),
        ("src/main.rs", False),
    ],
)
def test_crates_depend_on_what_cargo_does_not_look_at(tree: Path, name: str, counts: bool) -> None:
    before = keys(tree)
    assert before == keys(tree)
    write(tree / name, "changed")
    after = keys(tree)
    assert after["objects"] == before["objects"]
    assert (after["crates"] != before["crates"]) == counts


def test_objects_of_a_checkout_go_with_it_and_others_stay_apart(tmp_path: Path) -> None:
    trees = [tmp_path / name for name in ("a/sample", "b/sample", "b/other", "c")]
    for tree in trees:
        write(tree / "code.c", "int one;")
    here, moved, other = (keys(tree, root=tree.parent)["objects"] for tree in trees[:3])
    assert here == moved
    assert other != moved
    # A tree that is nobody's part is known by its place.
    outside = {keys(tree, root=tmp_path / "d")["objects"] for tree in trees}
    assert len(outside | {here, other}) == 6


def test_crates_depend_on_compilers_version_and_recipe(tree: Path) -> None:
    other = Recipe(**{**vars(RECIPE), "tool_command": "RUSTFLAGS=-g cargo"})
    found = [
        *(keys(tree), keys(tree, "b" * 64), keys(tree, version="2"), keys(tree, recipe=other)),
    ]
    assert len({each["crates"] for each in found}) == 4
    assert [each["objects"] == found[0]["objects"] for each in found] == [True, False, True, True]


def test_without_crates_nothing_of_cargo_is_cached(tree: Path) -> None:
    (tree / "Cargo.toml").unlink()
    assert list(keys(tree)) == ["objects"]


def test_crates_that_nobody_vendored_are_cargo_s_business(tree: Path) -> None:
    (tree / CRATE / ".cargo-checksum.json").unlink()
    before = keys(tree)
    write(tree / CRATE / "src/lib.rs", "changed")
    assert keys(tree) == before


def test_no_tree_gets_what_another_compiled(tree: Path, tmp_path: Path) -> None:
    here = keys(tree)
    there = keys(tree.rename(tmp_path / "other"))
    assert all(there[part] != here[part] for part in ("objects", "crates"))


def test_what_was_left_is_what_is_there_next_time(cache: CompileCache, tmp_path: Path) -> None:
    assert cache.archives() == {}
    for text in ("first", "second"):
        cache.keep({"objects": write(tmp_path / "left", text)})
        (found,) = cache.archives().items()
        assert (found[0], found[1].read_text()) == ("objects.tar.zst", text)
    assert [path.name for path in cache.folder.iterdir()] == [f"objects-{'a' * 16}.tar.zst"]
    other = CompileCache(folder=cache.folder, keys={"objects": "b" * 64})
    assert other.archives() == {}


def test_what_grew_too_large_begins_anew(
    cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_cache, "LARGEST_BYTES", 10)
    cache.keep({"objects": write(tmp_path / "left", "0123456789")})
    assert cache.archives()
    cache.keep({"objects": write(tmp_path / "left", "0123456789a")})
    assert cache.archives() == {}


def test_only_the_archives_that_were_used_last_stay(cache: CompileCache, tmp_path: Path) -> None:
    keys = [digit * 16 for digit in "0123456"]
    for age, key in enumerate(keys):
        path = write(cache.folder / f"objects-{key}.tar.zst", key)
        os.utime(path, (1000 + age, 1000 + age))
    crates = write(cache.folder / "crates-0.tar.zst", "crates")
    # Whoever reads one keeps it from going.
    assert CompileCache(folder=cache.folder, keys={"objects": keys[0]}).archives()
    cache.keep({"objects": write(tmp_path / "left", "new")})
    left = {path.name for path in cache.folder.iterdir()} - {crates.name}
    assert left == {
        f"objects-{key}.tar.zst" for key in (cache.keys["objects"][:16], keys[0], *keys[-2:])
    }
    assert len(left) == compile_cache.KEPT
    assert crates.exists()


class Compiling:
    """A step and a source, as much of each as the cache takes."""

    def __init__(self, tree: Path, *, no_cache: bool = False) -> None:
        self.site = Site(root=tree, state=tree.parent / "state", output=tree.parent / "output")
        self.params = {"no_cache": no_cache}
        self.digests = Digests(tree.parent / "digests.json")
        self.tree, self.files, self.recipe, self.version = tree, files_of(tree), RECIPE, "1"
        self.told: list[str] = []

    def tell(self, text: str) -> None:
        self.told.append(text)

    def cache(self) -> CompileCache:
        tools = SimpleNamespace(digest=OBJECTS)
        return compiling.cache_of(cast("Any", self), cast("Any", self), cast("Any", tools))


def test_no_cache_uses_none_and_leaves_none(tree: Path) -> None:
    cache = Compiling(tree).cache()
    assert (cache.parts, cache.folder) == (
        ("objects", "crates"),
        tree.parent / "state" / "cache" / "compile",
    )
    assert Compiling(tree, no_cache=True).cache().parts == ()


def test_a_cache_that_cannot_be_written_fails_no_build(tree: Path) -> None:
    step = Compiling(tree)
    cache = step.cache()
    write(cache.folder, "a file where the folder belongs")
    left = write(tree.parent / "left", "archive")
    compiling.keep(cast("Any", step), cache, {"objects": left})
    assert "the compile cache stays as it was" in step.told[0]
