"""The scripts that run in the build VM: form, variables, and how their output is read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tasks.core.deadline import Deadline
from tasks.core.errors import CommandFailed, CompileFailed, MachineFailed, NoRoom
from tasks.guest.ssh import Ssh
from tasks.vexfs import guest_steps
from tasks.vexfs.compile_cache import CompileCache
from tasks.vexfs.guest_steps import SHOWN_LINES, facts_in, script, verdicts
from tasks.vexfs.options import SCRIPTS
from tasks.vexfs.source import Recipe

RECIPE = Recipe(
    layout="x",
    module_command="make -C \"$KDIR\" M='a b'",
    module_file="*.ko",
    tool_command="cargo build",
    tool_file="target/x",
)
NO_CACHE = CompileCache(folder=Path("/cache"), keys={})


class FakeSsh:
    """A guest that answers every script with given lines, or fails."""

    def __init__(self, *lines: str, error: Exception | None = None) -> None:
        self.lines = lines
        self.error = error
        self.scripts: list[str] = []
        self.moved: list[tuple[str, str]] = []

    def run(
        self,
        script: str,
        *,
        what: str,
        timeout_s: float = 0,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.scripts.append(script)
        for line in self.lines:
            on_line(f"{line}\n")
        if self.error:
            raise self.error

    def fetch(self, source: str, target: Path) -> None:
        self.moved.append((source, str(target)))

    def send(self, source: Path, target: str) -> None:
        self.moved.append((str(source), target))


def as_ssh(fake: FakeSsh) -> Ssh:
    return cast("Ssh", fake)


def compile_source(
    fake: FakeSsh, cache: CompileCache = NO_CACHE
) -> tuple[dict[str, str], dict[str, Path]]:
    return guest_steps.compile_source(
        as_ssh(fake),
        RECIPE,
        version="1.0",
        into=Path("/out"),
        cache=cache,
        work=Path("/work"),
        deadline=Deadline(60),
    )


def install_and_seal(fake: FakeSsh) -> guest_steps.Sealed:
    names = {"module": "vexfs.ko", "tool": "vexctl"}
    return guest_steps.install_and_seal(as_ssh(fake), Path("/results"), names, Deadline(60))


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_the_form_of_the_scripts(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), "a script begins by saying what it does"
    code = [line for line in lines if line and not line.startswith("#")]
    assert code[0] == "set -eu"
    assert "# shellcheck shell=sh" in lines
    subprocess.run(["sh", "-n", path], check=True)
    assert not path.stat().st_mode & 0o111, "it is sent through SSH, never executed as a file"


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("compile.sh", guest_steps.compile_script(RECIPE, "1.0", ["objects"], "6.12.1")),
        ("install.sh", guest_steps.install_script({"module": "a.ko", "tool": "b"}, "6.12.1")),
    ],
)
def test_every_variable_is_set_and_described(name: str, whole: str) -> None:
    text = (SCRIPTS / name).read_text()
    head, found, _ = whole.partition(text)
    assert found
    variables = [line.partition("=")[0] for line in head.splitlines()]
    comment = text.partition("\nset -eu")[0]
    for variable in variables:
        assert variable in comment
        assert f"${variable}" in text or f"${{{variable}" in text


def test_values_reach_the_shell_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "show.sh").write_text('printf "%s|" "$ONE" "$TWO"\n')
    monkeypatch.setattr(guest_steps, "SCRIPTS", tmp_path)
    words = {"ONE": "a 'quoted' \"$(touch gone)\" `x` \\ *", "TWO": "two\nlines"}
    done = subprocess.run(
        ["sh"], input=script("show.sh", words), text=True, capture_output=True, check=True
    )
    assert done.stdout == f"{words['ONE']}|{words['TWO']}|"


def test_the_results_are_fetched_by_the_names_the_guest_gives() -> None:
    fake = FakeSsh("make: module=no", "module=wrong.ko", "CC x", "module=vexfs.ko", "tool=vexctl")
    assert compile_source(fake) == ({"module": "vexfs.ko", "tool": "vexctl"}, {})
    assert fake.moved == [
        ("/run/vmbake/results/vexfs.ko", "/out/vexfs.ko"),
        ("/run/vmbake/results/vexctl", "/out/vexctl"),
    ]


def test_the_cache_goes_into_the_guest_and_comes_back(tmp_path: Path) -> None:
    cache = CompileCache(folder=tmp_path, keys={"objects": "a" * 64, "crates": "b" * 64})
    cache.path("objects").write_bytes(b"old")
    said = ("module=vexfs.ko", "tool=vexctl", "cached_objects=yes", "cached_more=yes")
    fake = FakeSsh(*said, "cached_crates=yes")
    _, archives = compile_source(fake, cache)
    archive = "objects.tar.zst"
    assert fake.scripts[0] == "mkdir -p /var/tmp/vmbake/cache"
    assert "CACHED='objects crates'\n" in fake.scripts[1]
    assert fake.moved[0] == (str(cache.path("objects")), f"/var/tmp/vmbake/cache/{archive}")
    assert fake.moved[3] == (f"/run/vmbake/results/{archive}", f"/work/{archive}")
    assert archives == {part: Path(f"/work/{part}.tar.zst") for part in ("objects", "crates")}


def test_a_compiler_error_keeps_its_lines_and_the_log() -> None:
    error = CommandFailed("Compiling failed.", log=Path("/log"))
    noise = [f"  CC [M]  file{number}.o" for number in range(100)]
    lines = (*noise, "vexfs.c:3:5: error: expected ';'", "    3 |  x", "      |   ^", *noise)
    with pytest.raises(CompileFailed) as caught:
        compile_source(FakeSsh(*lines, error=error))
    assert caught.value.tail == lines[100:103]
    assert caught.value.log == Path("/log")
    assert caught.value.exit_code == 11


@pytest.mark.parametrize(
    "line",
    [
        "a.c:1:2: error: x",
        "a.c:1:2: fatal error: no.h: No such file",
        "error[E0425]: cannot find value `x`",
        "error: could not compile `vexctl`",
        "make[1]: *** [Makefile:1: all] Error 2",
        "ld: a.o: undefined reference to `f'",
        'ERROR: modpost: "f" [vexfs.ko] undefined!',
        "vmbake: the module's command failed with status 2: make",
    ],
)
def test_verdicts_are_recognised(line: str) -> None:
    noise = ["  LD [M]  x.o"] * 50
    assert verdicts([*noise, line, *noise])[0] == line


@pytest.mark.parametrize(
    "line",
    [
        "ld: final link failed: No space left on device",
        "error: couldn't create a temp dir: No space left on device (os error 28)",
    ],
)
def test_a_full_disk_is_not_blamed_on_the_source(line: str) -> None:
    fake = FakeSsh(line, "make: *** [x] Error 1", error=CommandFailed("Compiling failed."))
    with pytest.raises(NoRoom, match="filled up") as caught:
        compile_source(fake)
    assert caught.value.tail == (line,)


def test_words_of_the_source_are_no_full_disk() -> None:
    lines = ('7 | printk("No space left on device");', "x.c:7: error: expected ';'")
    with pytest.raises(CompileFailed):
        compile_source(FakeSsh(*lines, error=CommandFailed("Compiling failed.")))


def test_without_a_verdict_the_end_is_shown() -> None:
    lines = [f"line {number}" for number in range(100)]
    assert verdicts(lines) == tuple(lines[-SHOWN_LINES:])
    errors = [f"a.c:{number}: error: x" for number in range(100)]
    assert verdicts(errors) == tuple(errors[:SHOWN_LINES])
    assert verdicts([]) == ()


def test_installing_sends_both_and_reads_what_the_guest_says() -> None:
    fake = FakeSsh(
        *("kernel=6.12.1", "vermagic=6.12.1 SMP x=y", "tool_version=vexctl 1.0"),
        *("package=bash 5.2-1", "package=libc6:amd64 2.41", "sealed=yes"),
    )
    sealed = install_and_seal(fake)
    assert sealed.packages == {"bash": "5.2-1", "libc6:amd64": "2.41"}
    assert sealed.facts["kernel"] == "6.12.1"
    assert sealed.facts["vermagic"] == "6.12.1 SMP x=y"
    assert sealed.facts["tool_version"] == "vexctl 1.0"
    assert [target for _, target in fake.moved] == [
        "/run/vmbake/results/vexfs.ko",
        "/run/vmbake/results/vexctl",
    ]
    # Nothing comes after the seal but the end of all writing.
    seal, freeze = ((SCRIPTS / name).read_text() for name in ("seal.sh", "freeze.sh"))
    assert fake.scripts[-1].endswith(seal + freeze)


def test_sealing_is_believed_only_when_it_says_so() -> None:
    with pytest.raises(MachineFailed, match="read-only"):
        install_and_seal(FakeSsh("package=bash 5.2-1", "kernel=6.12.1"))


def test_facts_are_names_with_values() -> None:
    assert facts_in(["a=1\n", "no\n", "two words=2\n", "-DX=3\n", "b=x=y \n", "a=last\n"]) == {
        "a": "last",
        "b": "x=y",
    }
