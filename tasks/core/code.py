"""The digest of a stage's code: what it says, without its comments and docstrings.

A stage stands on its own function, on what that names in its module, and on the modules of
rooms and layers that are reached from there. Core is left out: it decides when a stage runs,
not what it makes.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = "tasks"
LEFT_OUT = ("tasks", "tasks.core")


def code_digests(function: Callable[..., Any]) -> dict[str, str]:
    """Module or `module:function` to the SHA256 of its code, for all that `function` reaches."""
    home = function.__module__
    names, text = reached_in_module(home, function.__name__)
    digests = {f"{home}:{function.__name__}": sha256(text)}
    waiting = [module for name in names if (module := imports_of(home).get(name))]
    while waiting:
        module = waiting.pop()
        if module not in digests and counts(module):
            digests[module] = sha256(text_of(module))
            waiting += imports_of(module).values()
    return digests


def counts(module: str) -> bool:
    """Whether a change of `module` may change what a stage makes."""
    return not (module in LEFT_OUT or module.startswith("tasks.core."))


def reached_in_module(module: str, start: str) -> tuple[set[str], str]:
    """All names that `start` uses, through its neighbours in the module, and all their code."""
    definitions = definitions_of(module)
    seen: dict[str, str] = {}
    names: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        node = definitions[name]
        seen[name] = said(node)
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        names |= used
        # A stage that is named in `pre=` or `result(...)` is an input of its own.
        waiting += [other for other in used if other in definitions and not is_stage(module, other)]
    return names, "\n".join(seen[name] for name in sorted(seen))


def is_stage(module: str, name: str) -> bool:
    """Whether `name` is a task there, whose code is its own stage's business."""
    return hasattr(getattr(sys.modules[module], name, None), "body")


@functools.cache
def parsed(module: str) -> ast.Module:
    """The module's syntax tree, from its source file."""
    path = ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text(encoding="utf-8"))


def is_module(name: str) -> bool:
    """Whether the project has a module of that dotted name."""
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@functools.cache
def definitions_of(module: str) -> dict[str, ast.stmt]:
    """Top-level functions, classes and assignments of a module by name."""
    found: dict[str, ast.stmt] = {}
    for node in parsed(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update({t.id: node for t in targets if isinstance(t, ast.Name)})
    return found


@functools.cache
def imports_of(module: str) -> dict[str, str]:
    """Local name to the project module it comes from, for all imports anywhere in a module."""
    return dict(project_imports(parsed(module)))


def project_imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(local name, project module) for each import of ours in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield alias.asname or alias.name, inner if is_module(inner) else str(node.module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield alias.asname or alias.name, alias.name


@functools.cache
def text_of(module: str) -> str:
    """All that a module says."""
    return said(parsed(module))


def said(node: ast.AST) -> str:
    """The code of a syntax tree without comments, layout and docstrings."""
    copy = ast.parse(ast.unparse(node))
    for part in ast.walk(copy):
        if isinstance(part, ast.FunctionDef | ast.ClassDef | ast.Module):
            first = part.body[0] if part.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                part.body = part.body[1:] or [ast.Pass()]
    return ast.unparse(copy)


def sha256(text: str) -> str:
    """SHA256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
