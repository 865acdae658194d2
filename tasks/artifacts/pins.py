"""Digests recorded on first use and enforced ever after: a text file that belongs under git."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import BadInput, VerificationFailed

# What the file is called, in the state folder and in its cache.
FILE_NAME = "pins.sha256"
# The form of sha256sum's output, so that a pin can be written or checked by hand.
LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<key>[^\s]+)")


@dataclass(frozen=True, kw_only=True)
class Pins:
    """The pin file at `path`: `SHA256  KEY` per line; `#` begins a comment line."""

    path: Path

    def find(self, key: str) -> str | None:
        """The SHA256 recorded for `key`, or None.

        Raises:
            BadInput: a line of the file is not in its form.
            VerificationFailed: the file holds two digests for one key.
        """
        if not self.path.exists():
            return None
        return self._find(self.path.read_text(encoding="utf-8"), key)

    def record(self, key: str, sha256: str) -> None:
        """Enforce this digest from now on.

        Raises:
            VerificationFailed: another digest is recorded already.
        """
        if not LINE.fullmatch(f"{sha256}  {key}"):
            raise ValueError(f"neither a pin nor its key: {sha256!r}, {key!r}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            text = stream.read()
            known = self._find(text, key)
            if known is None:
                if text and not text.endswith("\n"):
                    stream.write("\n")
                stream.write(f"{sha256}  {key}\n")
                stream.flush()
                os.fsync(stream.fileno())
            elif known != sha256:
                raise self.conflict(key, known, sha256)

    def conflict(self, key: str, pinned: str, found: str) -> VerificationFailed:
        """The error for a file that is not what it was on first use."""
        return VerificationFailed(
            f"{key} is pinned to SHA256 {pinned} in {self.path}, but now it is {found}.",
            hint="If the change is meant, remove that line; if not, don't use this source.",
        )

    def _find(self, text: str, key: str) -> str | None:
        found: str | None = None
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = LINE.fullmatch(line)
            if match is None:
                raise BadInput(
                    f"Line {number} of the pin file {self.path} is not `SHA256  KEY`.",
                    hint="Mend or remove the line.",
                )
            if match["key"] == key:
                if found is not None and match["sha256"] != found:
                    raise self.conflict(key, found, match["sha256"])
                found = match["sha256"]
        return found
