"""What is done in the build VM, or natively: compile, install, seal; with scripts/guest/."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.core.deadline import Deadline
from tasks.core.errors import CommandFailed, CompileFailed, MachineFailed, NoRoom
from tasks.guest.ssh import Ssh
from tasks.vexfs.compile_cache import PARTS, CompileCache, archive_of
from tasks.vexfs.options import SCRIPTS
from tasks.vexfs.source import Recipe

RESULTS = "/run/vmbake/results"
# It becomes /tmp in the toolchain's root, where compile.sh looks for archives.
CACHED = "/var/tmp/vmbake/cache"  # noqa: S108 - in the guest, where only root comes before
# What a compiler, make, kbuild or cargo begins its verdict with.
VERDICTS = (
    "error: ",
    "ERROR: ",
    "error[",
    "*** ",
    "fatal error",
    "undefined reference",
    "vmbake:",
)
SHOWN_LINES = 30
# The system's own words at a line's end; a source may have them, too, but in quotes.
FULL_DISK = re.compile(r"No space left on device(?: \(os error 28\))?\s*$")


def compile_source(
    ssh: Ssh,
    recipe: Recipe,
    *,
    version: str,
    into: Path,
    cache: CompileCache,
    work: Path,
    deadline: Deadline,
) -> tuple[dict[str, str], dict[str, Path]]:
    """Compile in the guest, with source and toolchain plugged in.

    Returns the names of the two files that are in `into` then, and the archives for the cache,
    which are in `work`.

    Raises:
        CompileFailed: with the compiler's own lines in view.
        NoRoom: the guest's disk filled up.
        MachineFailed, TimedOut: the guest did not get so far.
    """
    if archives := cache.archives():
        ssh.run(f"mkdir -p {CACHED}", what="Making room")
    for name, archive in archives.items():
        ssh.send(archive, f"{CACHED}/{name}")
    lines: list[str] = []
    with blaming_the_source(lines, more_room="Give the image a larger --disk-size"):
        ssh.run(
            script("plug-in.sh", {}) + compile_script(recipe, version, cache.parts),
            what="Compiling",
            timeout_s=deadline.left_s,
            on_line=lines.append,
        )
    names = compiled_in(lines)
    for name in names.values():
        ssh.fetch(f"{RESULTS}/{name}", into / name)
    made = {part: work / name for part, name in cached_in(lines).items()}
    for archive in made.values():
        ssh.fetch(f"{RESULTS}/{archive.name}", archive)
    return names, made


def compile_script(
    recipe: Recipe, version: str, cached: Iterable[str] = (), kernel: str = "", jobs: int = 0
) -> str:
    """The script that compiles for `kernel`, "" being the one that runs, with parts of a cache.

    Args:
        jobs: compilers at a time; 0: as many as there are cores.
    """
    words = {
        "VEXFS_VERSION": version,
        "MODULE_COMMAND": recipe.module_command,
        "MODULE_FILE": recipe.module_file,
        "TOOL_COMMAND": recipe.tool_command,
        "TOOL_FILE": recipe.tool_file,
        "KVER": kernel,
        "CACHED": " ".join(cached),
        "JOBS": str(jobs or ""),
    }
    return script("compile.sh", words)


@contextlib.contextmanager
def blaming_the_source(lines: list[str], *, more_room: str) -> Iterator[None]:
    """A failure of the block as one of the source, with the compiler's `lines` that matter.

    Args:
        more_room: how the user gets some.

    Raises:
        CompileFailed: the script in the block failed.
        NoRoom: it failed because the disk that it works on filled up.
    """
    try:
        yield
    except CommandFailed as error:
        if full := [line.rstrip() for line in lines if FULL_DISK.search(line)]:
            raise NoRoom(
                "The disk filled up while the source was compiled.",
                hint=f"{more_room} and run the same command again: it goes on from here.",
                log=error.log,
                tail=(full[0],),
            ) from error
        raise CompileFailed(
            "The source did not compile.",
            hint="Fix the source and run the same command again: it goes on from here.",
            log=error.log,
            tail=verdicts(lines),
        ) from error


def compiled_in(lines: list[str]) -> dict[str, str]:
    """The names of the two files that the compiling script says it left."""
    names = facts_in(lines)
    return {role: names[role] for role in ("module", "tool")}


def cached_in(lines: list[str]) -> dict[str, str]:
    """The parts of the cache for which the compiling script left an archive, and its name."""
    facts = facts_in(lines)
    return {part: archive_of(part) for part in PARTS if f"cached_{part}" in facts}


def verdicts(lines: list[str]) -> tuple[str, ...]:
    """The lines of a compiler's output that matter: its errors with what follows each."""
    texts = [line.rstrip() for line in lines if line.strip()]
    marked: set[int] = set()
    for number, text in enumerate(texts):
        if any(verdict in text for verdict in VERDICTS):
            marked.update(range(number, min(number + 3, len(texts))))
    # Of errors the first matter, of other output the last.
    chosen = [texts[number] for number in sorted(marked)] or texts[-SHOWN_LINES:]
    return tuple(chosen[:SHOWN_LINES])


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """What the image says of itself at the end: its facts, and package name to version."""

    facts: dict[str, str]
    packages: dict[str, str]


def install_and_seal(
    ssh: Ssh, results: Path, names: Mapping[str, str], deadline: Deadline
) -> Sealed:
    """Install module and tool, use them once, then remove every trace of the build.

    The root file system is read-only afterwards.

    Raises:
        CommandFailed: they do not work in the guest.
        MachineFailed: the root file system could not be made read-only, so it isn't clean.
    """
    ssh.run(f"mkdir -p {RESULTS}", what="Making room")
    for name in names.values():
        ssh.send(results / name, f"{RESULTS}/{name}")
    lines: list[str] = []
    steps = (
        install_script(names),
        *(script(name, {}) for name in ("try.sh", "seal.sh", "freeze.sh")),
    )
    what = "Installing and sealing"
    ssh.run("".join(steps), what=what, timeout_s=deadline.left_s, on_line=lines.append)
    if "sealed=yes" not in (line.strip() for line in lines):
        raise MachineFailed("The guest's root file system did not become read-only at the end.")
    return sealed_in(lines)


def install_script(names: Mapping[str, str], kernel: str = "") -> str:
    """The script that installs for `kernel`; "" is the one that runs."""
    words = {"MODULE": names["module"], "TOOL": names["tool"], "KVER": kernel}
    return script("install.sh", words)


def sealed_in(lines: list[str]) -> Sealed:
    """What the installing and the sealing script say."""
    packages = {}
    for line in lines:
        if line.startswith("package="):
            name, version = line.removeprefix("package=").split()
            packages[name] = version
    return Sealed(facts=facts_in(lines), packages=packages)


def script(name: str, words: Mapping[str, str]) -> str:
    """A guest script with its variables set before it."""
    assignments = "".join(f"{key}={shlex.quote(value)}\n" for key, value in words.items())
    return assignments + (SCRIPTS / name).read_text(encoding="utf-8")


def facts_in(lines: list[str]) -> dict[str, str]:
    """The `name=value` lines of a script's output."""
    pairs = (line.strip().split("=", 1) for line in lines if "=" in line)
    return {name: value for name, value in pairs if name.isidentifier()}
