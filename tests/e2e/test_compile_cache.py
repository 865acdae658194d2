"""The compile cache with the real compilers: the same bytes in any state of it, and less work."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.deadline import Deadline
from tasks.core.digest import Digests
from tasks.core.events import Silent
from tasks.core.process import Runner
from tasks.core.stage import Site, Step
from tasks.core.store import RECORD, Result
from tasks.vexfs import compilers, compiling, source
from tests.e2e.test_minimal_image import ROOT, SAMPLE, inv

pytestmark = pytest.mark.e2e

LIMIT_S = 300
# A crate that the source brings along, as `cargo vendor` leaves it.
MOTTO = {
    "Cargo.toml": '[package]\nname = "motto"\nversion = "0.1.0"\nedition = "2021"\n',
    "src/lib.rs": 'pub const MOTTO: &str = "fat and fast";\n',
    ".cargo-checksum.json": '{"files":{},"package":"%s"}' % ("0" * 64),
}
SETTINGS = """[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "vendor"
"""
LOCKED = f"""version = 3

[[package]]
name = "motto"
version = "0.1.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{"0" * 64}"

[[package]]
name = "vexctl"
version = "1.0.0"
dependencies = ["motto"]
"""
MAIN = 'fn main() { println!("vexfs is {}", motto::MOTTO) }\n'


class Bench:
    """Compiles a tree again and again, with one cache."""

    def __init__(self, folder: Path, tools: Result, kernel: str) -> None:
        self.folder = folder
        self.tools = tools
        self.kernel = kernel
        self.tree = folder / "tree"
        self.cache = folder / "state" / "cache" / "compile"
        self.numbers = itertools.count()

    def compile(self, *, no_cache: bool = False, **params: str) -> tuple[dict[str, bytes], str]:
        """What the compilers make of the tree, and what they say."""
        folder = self.folder / f"run{next(self.numbers)}"
        (folder / "out").mkdir(parents=True)
        (folder / "work").mkdir()
        step = Step(
            name="compile",
            site=Site(root=ROOT, state=self.folder / "state", output=folder),
            out=folder / "out",
            work=folder / "work",
            runner=Runner(folder / "log"),
            reporter=Silent(),
            deadline=Deadline(LIMIT_S),
            digests=Digests(folder / "digests.json"),
            params={
                **dict.fromkeys(source.PARTS, ""),
                "source": str(self.tree),
                "version": "1.0.0",
                "no_cache": no_cache,
                **params,
            },
            stands_on={},
            is_goal=True,
            fingerprint="",
        )
        facts = compiling.compile_natively(step, self.kernel, self.tools)
        names = {path.name for path in step.out.iterdir()}
        assert names == {facts["module"]["file"], facts["tool"]["file"], "Cargo.lock"}
        return {name: (step.out / name).read_bytes() for name in names}, self.log(folder)

    @staticmethod
    def log(folder: Path) -> str:
        path = folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def archives(self) -> dict[str, bytes]:
        return {path.name.partition("-")[0]: path.read_bytes() for path in self.cache.iterdir()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    out, _ = inv("vexfs.toolchain", "--engine", "native")
    directory = next(
        (ROOT / line).parent for line in out.split() if line.endswith(compilers.NATIVE)
    )
    tools = Result(directory=directory, record=json.loads((directory / RECORD).read_text()))
    made = Bench(tmp_path, tools, tools.facts["kernel"])
    shutil.copytree(SAMPLE, made.tree, ignore=shutil.ignore_patterns("target"))
    with (made.tree / "Cargo.toml").open("a") as manifest:
        manifest.write('[dependencies]\nmotto = "0.1"\n')
    (made.tree / "Cargo.lock").write_text(LOCKED)
    write(made.tree / ".cargo" / "config.toml", SETTINGS)
    write(made.tree / "src" / "main.rs", MAIN)
    for name, text in MOTTO.items():
        write(made.tree / "vendor" / "motto" / name, text)
    return made


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def spared(log: str) -> bool:
    """Whether nothing was compiled, neither C nor Rust."""
    assert "Finished" in log, "cargo was asked"
    return "cache_miss\t0" in log and "Compiling" not in log


def test_the_same_bytes_with_less_work(bench: Bench) -> None:
    without, said = bench.compile(no_cache=True)
    assert "Compiling motto" in said
    assert not bench.cache.exists()
    cold, said = bench.compile()
    assert (cold, spared(said)) == (without, False)
    assert bench.archives().keys() == {"objects", "crates"}
    warm, said = bench.compile()
    assert (warm, spared(said)) == (without, True)


def test_what_was_changed_is_compiled(bench: Bench) -> None:
    before, _ = bench.compile()
    write(bench.tree / "src" / "main.rs", MAIN.replace("vexfs is", "vexfs was"))
    code = bench.tree / "vexfs.c"
    code.write_text(
        code.read_text() + "\nint vexfs_more(void);\nint vexfs_more(void) { return 3; }\n"
    )
    after, said = bench.compile()
    assert "Compiling motto" not in said
    assert "Compiling vexctl" in said
    assert after == bench.compile(no_cache=True)[0]
    assert all(after[name] != before[name] for name in ("vexfs.ko", "vexctl"))
    # Nobody edits a vendored crate, and cargo would not look.
    lib = bench.tree / "vendor" / "motto" / "src" / "lib.rs"
    lib.write_text(MOTTO["src/lib.rs"].replace("fat", "fit"))
    edited, said = bench.compile()
    assert "Compiling motto" in said
    assert b"fit and fast" in edited["vexctl"]


def test_a_file_that_is_older_than_what_it_replaces_is_compiled(bench: Bench) -> None:
    sources = bench.tree / "src"
    write(sources / "main.rs", 'mod words;\nfn main() { println!("{}", words::WORDS) }\n')
    made = []
    for words in ("older by mtime", "newer by mtime", "older by mtime"):
        write(sources / "words.rs", f'pub const WORDS: &str = "{words}";\n')
        os.utime(sources / "words.rs", (0, 0))
        tool, said = bench.compile()
        assert "Compiling vexctl" in said
        assert words.encode() in tool["vexctl"]
        made.append(tool)
    assert made[0] == made[2]


def test_where_there_are_links_all_of_the_source_is_compiled(bench: Bench) -> None:
    sources = bench.tree / "src"
    for name, words in (("was", "fat"), ("is", "fit")):
        write(sources / f"{name}.rs", f'pub const WORDS: &str = "{words} by a link";\n')
    write(sources / "main.rs", 'mod words;\nfn main() { println!("{}", words::WORDS) }\n')
    for name, seen in (("was", b"fat by a link"), ("is", b"fit by a link")):
        (sources / "words.rs").unlink(missing_ok=True)
        (sources / "words.rs").symlink_to(f"{name}.rs")
        made, said = bench.compile()
        assert "Compiling vexctl" in said
        assert seen in made["vexctl"]


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "harm",
    [halved, flipped, lambda _: b"", lambda _: b"no archive"],
    ids=["half", "flip", "empty", "none"],
)
def test_a_damaged_cache_is_not_used_and_made_anew(
    bench: Bench, harm: Callable[[bytes], bytes]
) -> None:
    good, _ = bench.compile()
    for path in bench.cache.iterdir():
        path.write_bytes(harm(path.read_bytes()))
    again, said = bench.compile()
    assert (again, spared(said)) == (good, False)
    for part in ("objects", "crates"):
        assert f"compile cache: its {part} can't be used" in said
    again, said = bench.compile()
    assert (again, spared(said)) == (good, True)


def test_a_module_that_uses_the_folder_of_cargo_is_in_nobody_s_way(bench: Bench) -> None:
    uses_it = "mkdir -p target/mine && make vm-build"
    good, _ = bench.compile(module_command=uses_it)
    for _ in range(2):
        again, said = bench.compile(module_command=uses_it)
        assert (again, spared(said)) == (good, True)
        (crates,) = bench.cache.glob("crates-*")
        names = Runner(bench.folder / "log").output(["tar", "--zstd", "-tf", crates]).split()
        assert "./release/" in names
        assert "./crates/" not in names


def test_a_killed_build_leaves_the_cache_as_it_was(bench: Bench) -> None:
    good, _ = bench.compile()
    before = bench.archives()
    hanging = multiprocessing.get_context("fork").Process(
        target=bench.compile,
        kwargs={"module_command": "make vm-build && echo compiled; tail -f /dev/null"},
    )
    hanging.start()
    deadline = time.monotonic() + LIMIT_S
    while "\ncompiled\n" not in bench.log(bench.folder / "run1"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    hanging.kill()
    hanging.join()
    assert bench.archives() == before
    next(bench.numbers)
    again, said = bench.compile()
    assert (again, spared(said)) == (good, True)


def test_two_builds_at_once(bench: Bench) -> None:
    good, _ = bench.compile(no_cache=True)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(bench.compile()[0])) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [good, good]
    again, said = bench.compile()
    assert (again, spared(said)) == (good, True)
