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

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(self._prefix):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None or spec.submodule_search_locations is not None:
            return spec
        spec.loader = LazyLoader(spec.loader)
        return spec


def load_lazily(package: str) -> None:
    """Put off loading the modules of `package` from now on; its subpackages load at once."""
    sys.meta_path.insert(0, LazyFinder(package))
