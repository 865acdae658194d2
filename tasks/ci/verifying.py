"""Checks a directory that a pipeline left, for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks.attest import signing, verification
from tasks.core.errors import BadInput, VerificationFailed

NOBODY = "No --key was given: nothing vouches for who made them."


def check(directory: Path, key: Path | None) -> Iterator[str]:
    """What is to be said of a directory in which everything is as it was sealed.

    Raises:
        BadInput: it is no directory, something in it can't be read, or the key is none.
        VerificationFailed: something is not; it says all of it.
    """
    public = signing.load_public(key) if key else None
    try:
        verdict = verification.verify(directory, public)
    except OSError as error:
        raise BadInput(f"{error.filename or directory} can't be read: {error.strerror}.") from None
    if verdict.findings:
        told = "\n".join(f"  {finding}" for finding in verdict.findings)
        raise VerificationFailed(f"{directory} is not what was sealed:\n{told}")
    yield f"{directory}: {verdict.files} files are as they were sealed, from base to image."
    if public:
        keyid = signing.brief(public.keyid)
        yield f"{len(verdict.signed)} statements are signed with the key {keyid} ({public.kind})."
    else:
        yield NOBODY
