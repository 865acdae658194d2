"""What is checked: the tables of checks.toml, with the values of one image filled in."""

from __future__ import annotations

import functools
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("checks.toml")
GROUPS = (
    *("boot", "module", "filesystem", "vexctl", "configuration", "system", "seal", "hardening"),
)
Where = Literal["disk", "guest", "reboot"]
PLACEHOLDER = re.compile(r"\$([A-Z][A-Z_]*)\b")
COMMAND_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A check: what is asked where, and which answer is right.

    Args:
        command: for sh; on the disk: a request of debugfs.
        expected: the right answer in words.
        where: the sealed disk before its first boot; the guest after it; or a second guest, with
            little memory, after a reboot.
        needs: programs that the guest must have, else the check does not apply.
        manifest: it applies only to an image with a manifest.
        variants: the variants to which it applies; () means all.
        mounts: it applies only where the file system can be mounted without a device.
        ask: instead of a command: module, argument and property of testinfra.
        ignore: lines in which this regular expression is found don't count.
        literal: its dollar signs are no values.
        status: the exit status; None: any.
        empty, equals, matches, lacks, least: what the output must be; regular expressions are
            searched, line by line; `least` is for an output that is a number.
        lines: each must be among the lines of the output, whatever the spaces and the case.
    """

    group: str
    name: str
    expected: str
    command: str = ""
    where: Where = "guest"
    needs: tuple[str, ...] = ()
    manifest: bool = False
    variants: tuple[str, ...] = ()
    mounts: bool = False
    ask: tuple[str, ...] = ()
    literal: bool = False
    timeout_s: float = COMMAND_TIMEOUT_S
    ignore: str | None = None
    status: int | None = 0
    empty: bool = False
    equals: str | bool | int | None = None
    matches: str | None = None
    lacks: str | None = None
    lines: tuple[str, ...] = ()
    least: float | str | None = None


Values = Mapping[str, str]


@functools.cache
def load(path: Path = FILE) -> tuple[Spec, ...]:
    """The checks of the file, in its order.

    Raises:
        ValueError: a table has an unknown key or group, which is a mistake in the checkout.
    """
    specs = tuple(spec_of(table) for table in tomllib.loads(path.read_text())["check"])
    names = [(spec.group, spec.name) for spec in specs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path.name}: checks repeat: {twice}")
    return specs


def spec_of(table: Mapping[str, Any]) -> Spec:
    """A check from its table."""
    known = {field.name for field in fields(Spec)}
    label = f"check {table.get('name', table)!r}"
    if unknown := set(table) - known:
        raise ValueError(f"{label} has unknown keys: {sorted(unknown)}")
    if table.get("group") not in GROUPS:
        raise ValueError(f"{label} is in no known group: {table.get('group')}")
    if bool(table.get("command")) == bool(table.get("ask")):
        raise ValueError(f"{label} must have a command or an ask")
    tuples = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return Spec(**{**table, **tuples})


def fill(spec: Spec, values: Values) -> Spec:
    """The check with the values of an image in place of `$NAME`, quoted where a shell reads them.

    Raises:
        KeyError: it needs a value that this image does not have.
    """
    if spec.literal:
        return spec
    plain = functools.partial(filled, values=values, quote=str)
    return replace(
        spec,
        command=filled(spec.command, values, str if spec.where == "disk" else shlex.quote),
        ask=tuple(map(plain, spec.ask)),
        equals=plain(spec.equals) if isinstance(spec.equals, str) else spec.equals,
        matches=None if spec.matches is None else filled(spec.matches, values, re.escape),
        lacks=None if spec.lacks is None else filled(spec.lacks, values, re.escape),
        least=float(plain(spec.least)) if isinstance(spec.least, str) else spec.least,
        expected=plain(spec.expected),
    )


def filled(text: str, values: Values, quote: Callable[[str], str]) -> str:
    """`text` with each `$NAME` of VALUES replaced; other dollar signs are the shell's."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in VALUES:
            return match[0]
        return quote(values[name])

    return PLACEHOLDER.sub(value, text)


# The names that checks may use, and where they come from; see `facts.py`.
VALUES = {
    "FIRMWARE": "bios or uefi, as the machine was started",
    "HOSTNAME": "the name in the seed",
    "KERNEL": "the manifest's kernel",
    "RUNNING": "the kernel that runs in the guest",
    "MODULE": "the manifest's module, without its ending",
    "MODULE_SHA": "the SHA256 of the module's file",
    "VERMAGIC": "the manifest's version magic of the module",
    "TOOL": "the manifest's name of the tool",
    "TOOL_SHA": "the SHA256 of the tool's file",
    "TOOL_VERSION": "what the tool says of its version",
    "VERSION": "the version of the image",
    "MOUNT_POINT": "where the image's configuration mounts its file system",
    "FSTYPE": "the type of that file system",
    "GROWN_MB": "the least size of the root file system after it has grown",
    "LEFT_MB": "the memory that must be available in the small machine",
}


def in_groups(specs: Iterable[Spec]) -> Iterator[tuple[str, list[Spec]]]:
    """The checks by group, in the order of GROUPS."""
    listed = list(specs)
    for group in GROUPS:
        if members := [spec for spec in listed if spec.group == group]:
            yield group, members
