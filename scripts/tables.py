"""Writes the tables of the documents that repeat what the code says: `nox -s fmt` runs it.

A document marks the place with `<!-- table: NAME -->` and `<!-- end of table -->`. With --check it
writes nothing, and fails if a table is not what it would write.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "vexfs.md",
    ROOT / "docs" / "virtual-dsm.md",
    ROOT / "docs" / "validation.md",
    ROOT / "docs" / "ci.md",
)
MARKED = re.compile(
    r"(?P<head><!-- table: (?P<name>[a-z-]+) -->\n).*?(?P<foot><!-- end of table -->)", re.DOTALL
)

Row = tuple[str, ...]


def tasks() -> Iterator[Row]:
    """Every task: the chain in its order, then the others."""
    root = runpy.run_path(str(ROOT / "tasks.py"))["namespace"]
    yield "task", "what it does"
    for room, collection in root.collections.items():
        for name, task in collection.tasks.items():
            yield f"`{room}.{root.transform(name)}`", first_line(task)
    for name, task in root.tasks.items():
        yield f"`{root.transform(name)}`", first_line(task)


def options(room: str) -> Iterator[Row]:
    """Every option of a room with its variable and its default, in the order of the code."""
    import yaml

    from tasks.core.stage import RUN_OPTIONS

    own = importlib.import_module(f"tasks.{room}.options").OPTIONS
    settings = yaml.safe_load((ROOT / "invoke.yaml").read_text(encoding="utf-8"))
    yield "flag", "variable", "default", "what it is"
    for option in (*own.values(), *RUN_OPTIONS.values()):
        section, _, key = option.key.partition(".")
        flag = "none" if option.secret else f"`{option.flag}`"
        default = in_words(settings[section][key])
        yield flag, f"`{option.env}`", default, option.described


def variants() -> Iterator[Row]:
    """Every variant with the packages and files that the common part doesn't have."""
    from tasks.guest.cloudconfig import COMMON, packages_of
    from tasks.guest.cloudconfig import variants as names
    from tasks.vexfs.options import CLOUD_INIT

    common = set(packages_of(CLOUD_INIT, COMMON))
    yield "variant", "packages on top", "files on top"
    for name in names(CLOUD_INIT):
        packages = [each for each in packages_of(CLOUD_INIT, name) if each not in common]
        folder = CLOUD_INIT / name / "files"
        added = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        files = [f"`/{path}`" for path in added]
        yield f"`{name}`", ", ".join(packages) or "none", ", ".join(files) or "none"


def differences() -> Iterator[Row]:
    """What may differ between images of the two engines."""
    import tomllib

    listed = tomllib.loads((ROOT / "tests" / "e2e" / "differences.toml").read_text())
    yield "path", "why"
    for entry in listed["difference"]:
        yield f"`{entry['path']}`", entry["why"]


def statuses() -> Iterator[Row]:
    """Every exit status and its cause."""
    from tasks.core.errors import VmbakeError

    yield "status", "cause"
    # Who has no status of his own takes that of the first of several.
    causes = [error for error in VmbakeError.__subclasses__() if "exit_code" in vars(error)]
    for error in sorted(causes, key=lambda each: each.exit_code):
        yield str(error.exit_code), str(error.__doc__).partition("\n")[0]


def checks() -> Iterator[Row]:
    """What the validator checks, by group, with what its own code adds."""
    from tasks.validate import pending, wholes
    from tasks.validate.catalogue import in_groups, load

    yield "group", "what is checked"
    specs = (*load(), pending.SPEC, *wholes.TWO_CLONES)
    for group, members in in_groups(specs):
        yield f"`{group}`", "; ".join(spec.name for spec in members)


TABLES: dict[str, Callable[[], Iterable[Row]]] = {
    "tasks": tasks,
    "options-vexfs": functools.partial(options, "vexfs"),
    "options-vdsm": functools.partial(options, "vdsm"),
    "options-validate": functools.partial(options, "validate"),
    "checks": checks,
    "options-ci": functools.partial(options, "ci"),
    "variants": variants,
    "statuses": statuses,
    "differences": differences,
}


def first_line(task: Any) -> str:
    """The help of a task."""
    return str(task.__doc__).strip().partition("\n")[0]


def in_words(default: object) -> str:
    """A default as the table shows it."""
    match default:
        case bool():
            return "yes" if default else "no"
        case "":
            return "empty"
        case _:
            return f"`{default}`"


def as_table(rows: Iterable[Row]) -> str:
    """Rows as a Markdown table; the first is the heading."""
    heading, *rest = rows
    lines = [heading, tuple("---" for _ in heading), *rest]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def renewed(text: str) -> str:
    """A document with its tables as the code has them now.

    Raises:
        KeyError: it asks for a table that does not exist.
    """
    return MARKED.sub(lambda m: m["head"] + as_table(TABLES[m["name"]]()) + m["foot"], text)


def main(argv: Sequence[str]) -> int:
    """Write or check every document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args(argv).check
    old = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    stale = {path: new for path, text in old.items() if (new := renewed(text)) != text}
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)}: {'not what the code says' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print("nox -s fmt writes the tables anew.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
