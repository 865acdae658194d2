"""What a validation found: the record that the validator writes and that reports are made from.

One JSON file per validated image; the field names are those of the classes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "error", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at in an image.

    Args:
        group: boot, module, filesystem, vexctl, configuration, system, seal or hardening.
        command: what was run in the guest (or on the disk), as one could type it.
        expected: what would have been right, in words.
        outcome: failed: the image is wrong. error: it could not be found out.
        reason: why it failed, could not be found out or does not apply; "" if it passed.
        output: what the command said, cut to what matters.
    """

    group: str
    name: str
    command: str
    expected: str
    outcome: Outcome
    reason: str = ""
    output: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment of the boot, in seconds since QEMU was started."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Everything that was found out about one image.

    Args:
        image: file name of the artifact.
        sha256: digest of that file, the same before and after.
        variant: from its manifest; "" for a foreign image.
        accel: kvm or tcg.
        firmware: bios or uefi.
        error: why the image could not be validated at all; "" if it could.
        console: the last lines of the serial console.
        started: ISO 8601, UTC.
    """

    image: str
    sha256: str
    size_bytes: int
    variant: str
    version: str
    accel: str
    firmware: str
    started: str
    seconds: float
    checks: tuple[Check, ...] = ()
    boot: tuple[Mark, ...] = ()
    console: tuple[str, ...] = ()
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing failed and everything that applies could be found out."""
        bad = [check for check in self.checks if check.outcome in ("failed", "error")]
        return not self.error and bool(self.checks) and not bad

    def count(self, outcome: Outcome) -> int:
        """How many checks ended like that."""
        return sum(check.outcome == outcome for check in self.checks)


def write(validation: Validation, path: Path) -> None:
    """Write the record of one image."""
    path.write_text(json.dumps(asdict(validation), indent=1) + "\n")


def read(path: Path) -> Validation:
    """Read a record that `write` wrote.

    Raises:
        OSError, ValueError, TypeError, KeyError: it is not there, or is no such record.
    """
    data: dict[str, Any] = json.loads(path.read_text())
    data["checks"] = tuple(Check(**check) for check in data["checks"])
    data["boot"] = tuple(Mark(**mark) for mark in data["boot"])
    data["console"] = tuple(data["console"])
    return Validation(**data)
