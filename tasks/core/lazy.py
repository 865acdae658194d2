"""Loads a module when something in it is first used, so that `inv --list` loads almost none.

`from tasks.vexfs import building` costs nothing until `building.something` is asked for. (Python
3.15 has `lazy import` for this, PEP 810.) Stages run in threads, so two of them may ask at once:
importlib's own LazyLoader takes no lock for that before Python 3.11.9 and 3.12.3 (python/cpython
issue 114763).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """A module that is loaded by the first thread that asks for something in it; others wait.

    Arrows go one way, so threads that load modules which use each other can't wait in a circle.
    """

    def __getattribute__(self, name: str) -> Any:
        look = super().__getattribute__
        if name == "__spec__":
            return look(name)  # which the import statement asks for
        state: LoadLater = look("__spec__").loader_state
        with state.lock:
            if look("__class__") is LazyModule and not state.begun:
                state.begun = True
                look("__spec__").loader = state.loader
                try:
                    state.loader.exec_module(self)
                except BaseException:
                    state.begun = False
                    raise
                self.__class__ = ModuleType  # type: ignore[assignment]
        return look(name)


class LoadLater(Loader):
    """Stands in for a module's loader until the module is used."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.lock = RLock()
        self.begun = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader_state = self
        module.__class__ = LazyModule


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
        spec.loader = LoadLater(spec.loader)
        return spec


def load_lazily(package: str) -> None:
    """Put off loading the modules of `package` from now on; its subpackages load at once."""
    sys.meta_path.insert(0, LazyFinder(package))
