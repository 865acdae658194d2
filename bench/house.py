"""A copy of the checkout with a store of its own, which can be put back to what it was."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.commands import copy_checkout, inv
from tasks.core.process import Runner

BUILD_TIMEOUT_S = 1800
SOURCE = Path("samples/vexfs/vexfs.c")
USER_DATA = Path("cloud-init/minimal/user-data.yaml")
# A change that survives the compiler, so that every later stage has new input, too.
CHANGE = 'MODULE_INFO(bench, "{number}");\n'
ONE_MORE_PACKAGE = "tree"


class House:
    """A copy of the checkout whose store begins empty."""

    def __init__(self, checkout: Path, runner: Runner) -> None:
        self.checkout = checkout
        self.runner = runner
        self.ground = Ground(checkout)
        copy_checkout(checkout, runner)

    def inv(self, *words: str) -> list[str]:
        """Run tasks there; returns the paths that they printed."""
        said = self.runner.output(inv(*words), cwd=self.checkout, timeout_s=BUILD_TIMEOUT_S)
        return said.split()

    def base(self, variants: Sequence[str]) -> Path:
        """Have the bases of variants, and nothing else, from now on; returns the first one's disk.

        By the native engine they have one together.
        """
        printed = [
            path
            for variant in variants
            for path in self.inv("vexfs.build-cloudimg", "--variant", variant)
        ]
        self.ground.remember()
        return next(self.checkout / path for path in printed if path.endswith(".qcow2"))

    def change_source(self, number: int) -> None:
        """Change the module's source."""
        with (self.checkout / SOURCE).open("a") as stream:
            stream.write(CHANGE.format(number=number))

    def add_package(self) -> None:
        """One more package in the minimal variant."""
        data = self.checkout / USER_DATA
        text, count = re.subn(r"^packages: \[\]$", f"packages: [{ONE_MORE_PACKAGE}]",
                              data.read_text(), flags=re.M)  # fmt: skip
        if count != 1:
            raise ValueError(f"{data} has no empty list of packages any more")
        data.write_text(text)


class Ground:
    """What a checkout's store and the files that the bench changes are at some moment."""

    def __init__(self, checkout: Path) -> None:
        self._state = checkout / ".vmbake"
        self._output = checkout / "output"
        self._changing = [checkout / SOURCE, checkout / USER_DATA]
        self._folders: set[Path] = set()
        self._files: dict[Path, bytes] = {}

    def remember(self) -> None:
        """From now on this is what `restore` goes back to."""
        self._folders = set(self._everything())
        memories = [path for path in self._state.glob("cache/*") if path.is_file()]
        self._files = {path: path.read_bytes() for path in (*self._changing, *memories)}

    def restore(self) -> None:
        """Have all as it was: what was made since is gone, and so is all memory of it.

        What stays keeps its place: a copy would have to be read before it is believed.
        """
        for folder in set(self._everything()) - self._folders:
            shutil.rmtree(folder)
        for path in self._state.glob("cache/*"):
            if path.is_file() and path not in self._files:
                path.unlink()
        for path, content in self._files.items():
            path.write_bytes(content)

    def _everything(self) -> list[Path]:
        """The folders that a build makes: results, those of the caches, what is published."""
        folders = [*self._state.glob("results/*/*"), *self._state.glob("cache/*"), self._output]
        return [path for path in folders if path.is_dir()]
