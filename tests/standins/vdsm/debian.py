"""Trees of unpacked Debian packages, as tar files that are made once and kept.

Nothing is configured: what a maintainer script would have set up, the recipe's hook does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tasks.core.digest import digest_of
from tasks.core.process import Runner
from tasks.guest.bootstrap import PRIVATE, require_mode
from tasks.guest.scratch import scratch

# The release of the real image 7.41, so that the QEMU is of the same series.
RELEASE = "trixie"
CACHE = Path(__file__).parents[3] / ".vmbake" / "standins"
KEY_DIGITS = 12
KEPT = 3
# The largest of the trees, and the packages that it is unpacked from.
WORK_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is unpacked.

    Args:
        name: of the tar file, in front of the key.
        packages: with what they depend on.
        hook: a shell script, run beside the tree ($1) after the packages were unpacked.
    """

    name: str
    packages: tuple[str, ...]
    hook: str

    @property
    def key(self) -> str:
        """What the tree is made of, as a digest; versions of packages don't count."""
        return digest_of([RELEASE, self.packages, self.hook])[:KEY_DIGITS]


def unpacked(recipe: Recipe, cache: Path) -> Path:
    """The tar file of the recipe's tree; made by mmdebstrap if it isn't in the cache.

    Raises:
        CannotRun, MissingTool: mmdebstrap can't be used here.
        NoRoom: there is too little memory and disk.
        CommandFailed: it failed; NAME.log in the cache says why.
    """
    tar = cache / f"{recipe.name}-{recipe.key}.tar"
    log = cache / f"{recipe.name}.log"

    def make(aside: Path) -> None:
        log.unlink(missing_ok=True)
        with scratch(WORK_BYTES, cache) as work:
            Runner(log).run(mmdebstrap_argv(recipe, aside), env={"TMPDIR": str(work)})

    made_once(tar, make)
    return tar


def made_once(path: Path, make: Callable[[Path], None]) -> None:
    """Have `make` write a file beside `path` and rename it, unless `path` is there.

    Of its predecessors, NAME-*.SUFFIX, the newest are kept: another test may use them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    family = path.name.rpartition("-")[0]
    with FileLock(path.with_name(f"{family}.lock")):
        if path.exists():
            return
        aside = path.with_name(f"{family}.new")
        make(aside)
        aside.replace(path)
        found = path.parent.glob(f"{family}-*{path.suffix}")
        for old in sorted(found, key=lambda one: one.stat().st_mtime)[:-KEPT]:
            old.unlink()


def mmdebstrap_argv(recipe: Recipe, target: Path) -> tuple[str, ...]:
    """The command line; `extract` unpacks without running what is unpacked."""
    mode = require_mode()
    return (
        *(PRIVATE if mode == "root" else ()),
        "mmdebstrap",
        f"--mode={mode}",
        "--variant=extract",
        "--format=tar",
        "--architectures=amd64",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "3"',
        f"--extract-hook={recipe.hook}",
        f"--include={','.join(recipe.packages)}",
        RELEASE,
        str(target),
    )
