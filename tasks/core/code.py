"""The digest of a stage's code: what it says, without its comments and docstrings.

A stage stands on its own function and on every function, class and constant of the project that
is reached from there by name, and on nothing else: a change in a neighbour changes no stage. Core
is left out: it decides when a stage runs, not what it makes.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from tasks.core.memory import remember

ROOT = Path(__file__).parents[2]
PACKAGE = "tasks"
# Where code of the project is imported from; scripts may share modules among themselves.
PACKAGES = (PACKAGE, "scripts")
CORE = f"{PACKAGE}.core"
# A module is used as a whole where it is handed around as a value.
EVERYTHING = "*"


class Symbol(NamedTuple):
    """A top-level name of a module, or EVERYTHING in it."""

    module: str
    name: str


class CodeMemory:
    """Digests of code, remembered as long as no source file of the project changes.

    Args:
        path: a JSON file; losing it costs half a second.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, str]] | None = None

    def digests(self, function: Callable[..., Any]) -> dict[str, str]:
        """As `code_digests`."""
        return self.digests_from(symbol_of(function))

    def digests_from(self, start: Symbol) -> dict[str, str]:
        """As the function of that name."""
        known = self._load()
        name = f"{start.module}:{start.name}"
        if name not in known:
            known[name] = digests_from(start)
            remember(self._path, json.dumps({"sources": all_sources(), "stages": known}))
        return known[name]

    def _load(self) -> dict[str, dict[str, str]]:
        if self._known is None:
            self._known = {}
            with contextlib.suppress(OSError, ValueError, KeyError):
                memory = json.loads(self._path.read_text())
                if memory["sources"] == all_sources():
                    self._known = dict(memory["stages"])
        return self._known


@functools.cache
def all_sources() -> str:
    """One digest of every source file of the project, and of the Python that reads them."""
    digest = hashlib.sha256(sys.version.encode())
    found = (path for package in PACKAGES for path in ROOT.joinpath(package).rglob("*.py"))
    for path in sorted(found):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def code_digests(function: Callable[..., Any]) -> dict[str, str]:
    """Module to the SHA256 of the part of its code that `function` reaches."""
    return digests_from(symbol_of(function))


def symbol_of(function: Callable[..., Any]) -> Symbol:
    """The name of a function."""
    return Symbol(function.__module__, function.__name__)


def digests_from(start: Symbol) -> dict[str, str]:
    """The same from a name; its module need not be loaded."""
    reached: defaultdict[str, set[str]] = defaultdict(set)
    waiting = [start]
    while waiting:
        symbol = waiting.pop()
        if symbol.name in reached[symbol.module]:
            continue
        reached[symbol.module].add(symbol.name)
        waiting += [used for used in uses(symbol) if counts(used)]
    return {
        module: hashlib.sha256("\n".join(said(module, name) for name in sorted(names)).encode())
        .hexdigest()
        for module, names in sorted(reached.items())
    }  # fmt: skip


def counts(symbol: Symbol) -> bool:
    """Whether a change of `symbol` may change what a stage makes."""
    if symbol.module == CORE or symbol.module.startswith(f"{CORE}."):
        return False
    # A stage that is named in `pre=` or `result(...)` is an input of its own.
    return not is_task(*symbol)


@functools.cache
def uses(symbol: Symbol) -> tuple[Symbol, ...]:
    """The symbols of the project that a symbol's own code names."""
    imports = imports_of(symbol.module)
    defined = definitions_of(symbol.module)
    found: set[Symbol] = set()
    for node in nodes_of(symbol):
        modules_seen = set()
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                target = imports.get(part.value.id)
                if target and target.name == EVERYTHING:
                    found.add(Symbol(target.module, part.attr))
                    modules_seen.add(part.value)
            elif is_read(part) and part not in modules_seen:
                if part.id in defined:
                    found.add(Symbol(symbol.module, part.id))
                elif target := imports.get(part.id):
                    found.add(target)
    if symbol.name in imports and symbol.name not in defined:
        found.add(imports[symbol.name])  # handed on from another module
    return tuple(sorted(found - {symbol}))


def is_read(node: ast.AST) -> TypeGuard[ast.Name]:
    """Whether a node is a name that stands for its value; a field or a local is another thing."""
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def nodes_of(symbol: Symbol) -> tuple[ast.stmt, ...]:
    """The statements that define a symbol; () for what the module only hands on."""
    if symbol.name == EVERYTHING:
        return tuple(parsed(symbol.module).body)
    return definitions_of(symbol.module).get(symbol.name, ())


@functools.cache
def said(module: str, name: str) -> str:
    """The code of a symbol without comments and layout."""
    return "\n".join(map(ast.unparse, nodes_of(Symbol(module, name))))


@functools.cache
def parsed(module: str) -> ast.Module:
    """The module's syntax tree without docstrings, from its source file.

    The decorators of tasks are left out, too: they say when a stage runs.
    """
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef) and is_task(module, node.name):
            node.decorator_list = []
    return tree


def is_task(module: str, name: str) -> bool:
    """Whether a name of a loaded module is an Invoke task."""
    return hasattr(vars(sys.modules.get(module, sys)).get(name), "body")


def source_of(module: str) -> Path:
    """The file of a module or package of the project."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def definitions_of(module: str) -> dict[str, tuple[ast.stmt, ...]]:
    """Top-level name to the functions, classes and assignments that define it."""
    found: defaultdict[str, list[ast.stmt]] = defaultdict(list)
    for node in parsed(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name].append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for part in (part for target in targets for part in ast.walk(target)):
                if isinstance(part, ast.Name):
                    found[part.id].append(node)
    return {name: tuple(nodes) for name, nodes in found.items()}


@functools.cache
def imports_of(module: str) -> dict[str, Symbol]:
    """Local name to what it stands for, for all imports of ours anywhere in a module."""
    return dict(project_imports(parsed(module)))


def project_imports(tree: ast.Module) -> Iterator[tuple[str, Symbol]]:
    """(local name, symbol) for each import of the project in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                whole = source_of(inner).is_file()
                symbol = (
                    Symbol(inner, EVERYTHING) if whole else Symbol(str(node.module), alias.name)
                )
                yield alias.asname or alias.name, symbol
