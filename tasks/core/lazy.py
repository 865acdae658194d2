"""Loads a module when something in it is first used, so that `inv --list` loads almost none.

`from tasks.vexfs import building` costs nothing until `building.something` is asked for. (Python
3.15 has `lazy import` for this, PEP 810.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


class LazyFinder(MetaPathFinder):
    """Finds the modules of rooms and layers, and puts their loading off."""

    def __init__(self, package: str) -> None:
        self._prefix = f"{package}."
        self._put_off: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(self._prefix):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None or spec.submodule_search_locations is not None:
            return spec
        spec.loader = LazyLoader(spec.loader)
        self._put_off.append(fullname)
        return spec

    def load_rest(self) -> None:
        """Load all that was put off and has not been used."""
        for name in self._put_off:
            if name in sys.modules:
                getattr(sys.modules[name], "__doc__")  # noqa: B009 - any access loads it


def load_lazily(package: str) -> None:
    """Put off loading the modules of `package` from now on; its subpackages load at once."""
    sys.meta_path.insert(0, LazyFinder(package))


def load_now() -> None:
    """Load what was put off, and put nothing off any more; to be called before threads start.

    Two threads that use a module for the first time at once may see it half loaded: LazyLoader
    takes no lock before Python 3.11.9 and 3.12.3 (python/cpython issue 114763).
    """
    for finder in [finder for finder in sys.meta_path if isinstance(finder, LazyFinder)]:
        sys.meta_path.remove(finder)
        finder.load_rest()
