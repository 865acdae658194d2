"""What is wrong with a sealed directory, and what came of looking at it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is not as it was sealed.

    Args:
        file: relative to the directory.
        what: what differs, in words.
    """

    file: str
    what: str

    def __str__(self) -> str:
        return shown(f"{self.file}: {self.what}")


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


def shown(text: str) -> str:
    """A text from somebody else's file, so that it can be printed: nothing moves the cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
