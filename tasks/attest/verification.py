"""Checks a sealed directory: every byte, every statement, every signature, base to image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.attest.signing import PublicKey


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is not as it was sealed.

    Args:
        file: relative to the directory.
        what: what differs, in words.
    """

    file: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of looking at a directory.

    Args:
        findings: all that is wrong; () if nothing is.
        files: how many files were read.
        signed: the names of the files whose signatures are good.
    """

    findings: tuple[Finding, ...]
    files: int
    signed: tuple[str, ...] = ()


def verify(directory: Path, key: PublicKey | None) -> Verdict:
    """Look at all of a sealed directory (see collection.py).

    Args:
        key: whose signatures are required; None: only digests and the chain are checked, and
            nothing vouches for the author.

    Raises:
        BadInput: it is no directory.
    """
    raise NotImplementedError
