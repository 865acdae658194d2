"""Renders the user-data of a variant from the templates in cloud-init/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core import errors

COMMON = "common"
# For the toolchain's guest; it is rendered like a variant and is none.
TOOLCHAIN = "toolchain"
USER_DATA = "user-data.yaml"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The merged, rendered data of one variant: its cloud-config, without the package list."""

    config: Mapping[str, Any]
    packages: tuple[str, ...]


def variants(folder: Path) -> tuple[str, ...]:
    """The names of the variants that a folder of templates has."""
    found = (path.parent.name for path in folder.glob(f"*/{USER_DATA}"))
    return tuple(sorted(name for name in found if name not in (COMMON, TOOLCHAIN)))


def packages_of(folder: Path, variant: str) -> tuple[str, ...]:
    """The packages that a variant consists of, sorted. The lists are plain YAML, no templates."""
    names: set[str] = set()
    for part in (COMMON, variant):
        names.update(_package_lines(folder / part / USER_DATA))
    return tuple(sorted(names))


def _package_lines(path: Path) -> list[str]:
    """The entries of the top-level list `packages:`; the rest may hold placeholders."""
    import yaml

    lines = path.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("packages:")]
    if not starts:
        return []
    block = [lines[starts[0]]]
    for line in lines[starts[0] + 1 :]:
        if line and not line.startswith((" ", "#", "- ")):
            break
        block.append(line)
    return list(yaml.safe_load("\n".join(block))["packages"] or [])


def render_variant(folder: Path, variant: str, values: Mapping[str, str]) -> Variant:
    """The data of `variant` over the common part, with `values` filled in.

    Raises:
        BadInput: a template uses a value that does not exist, or isn't YAML.
    """
    merged: dict[str, Any] = {}
    for part in (COMMON, variant):
        merged = merge(merged, _load(folder / part / USER_DATA, values))
    merged.pop("packages", None)
    files = render_files(folder, variant, values)
    merged["write_files"] = [files[name] for name in sorted(files)]
    return Variant(config=merged, packages=packages_of(folder, variant))


def render_files(
    folder: Path, variant: str, values: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The files that a variant brings: path in the guest to its entry of write_files.

    Raises:
        BadInput: a template uses a value that does not exist.
    """
    files: dict[str, dict[str, Any]] = {}
    for part in (COMMON, variant):
        files |= _files(folder / part / "files", values)
    return files


def user_data(config: Mapping[str, Any]) -> str:
    """The text of a cloud-config, with multi-line values as blocks."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    body = yaml.dump(dict(config), Dumper=Dumper, sort_keys=True, allow_unicode=True, width=1000)
    return f"#cloud-config\n{body}"


def render_file(path: Path, values: Mapping[str, str]) -> str:
    """One template with its values filled in.

    Raises:
        BadInput: it uses a value that does not exist, or is no template.
    """
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the result is YAML and shell, not HTML
    )
    try:
        return environment.from_string(path.read_text(encoding="utf-8")).render(values)
    except jinja2.TemplateError as error:
        raise errors.BadInput(
            f"The template {path} can't be rendered: {error}.",
            hint=f"The values it may use: {', '.join(sorted(values))}.",
        ) from error


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two cloud-configs as one: maps merged, lists appended, other values replaced."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            merged[key] = [*old, *value]
        else:
            merged[key] = value
    return merged


def _load(path: Path, values: Mapping[str, str]) -> dict[str, Any]:
    import yaml

    try:
        loaded = yaml.safe_load(render_file(path, values)) or {}
    except yaml.YAMLError as error:
        raise errors.BadInput(f"{path} is not YAML: {error}.") from error
    if not isinstance(loaded, dict):
        raise errors.BadInput(f"{path} holds no cloud-config: a map of keys was expected.")
    return loaded


def _files(folder: Path, values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Path in the guest to its write_files entry, for each file below `folder`."""
    entries = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        target = f"/{path.relative_to(folder)}"
        executable = bool(path.stat().st_mode & 0o100)
        entries[target] = {
            "path": target,
            "permissions": "0755" if executable else "0644",
            "content": render_file(path, values),
        }
    return entries
