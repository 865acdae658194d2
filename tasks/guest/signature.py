"""Detached OpenPGP signatures, checked by gpgv against a keyring of ours and nothing else."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import CommandFailed, VerificationFailed
from tasks.core.process import Runner

STATUS = "[GNUPG:] "
# gpgv takes a signature by a key that has expired since, and so does this: what was signed then
# is what was signed then, and an old checkout goes on working. A revoked key or an expired
# signature counts for nothing.
GOOD = frozenset({"GOODSIG", "EXPKEYSIG"})
VERDICTS = frozenset({"GOODSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "BADSIG", "ERRSIG"})
TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A good signature: by which key, and on which day (UTC) it says it was made."""

    fingerprint: str
    day: dt.date


def verify_signature(
    document: Path, signature: Path, *, keyring: Path, signers: frozenset[str], runner: Runner
) -> Signature:
    """Check that one of `signers` signed `document`.

    What counts is gpgv's status (doc/DETAILS of GnuPG): exit status 0 alone says only that some
    key of the keyring signed.

    Args:
        signers: fingerprints of primary keys, 40 hexadecimal digits in capitals.

    Raises:
        VerificationFailed: nobody of them did.
        MissingTool: gpgv is not installed.
    """
    argv: list[str | Path] = [
        "gpgv",
        "--status-fd",
        "1",
        "--keyring",
        keyring.absolute(),
        signature,
        document,
    ]
    try:
        lines = runner.output(argv, timeout_s=TIMEOUT_S).splitlines()
    except CommandFailed:
        raise refusal(document, status_of(argv, runner), runner) from None
    for verdict, words in verdicts(lines):
        # VALIDSIG: fingerprint, day, ... and, last, the primary key's fingerprint.
        if verdict in GOOD and len(words) >= 2 and words[-1] in signers:
            return Signature(fingerprint=words[-1], day=dt.date.fromisoformat(words[1]))
    raise refusal(document, lines, runner)


def verdicts(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """For each valid signature: the verdict on it, and the words of its VALIDSIG line."""
    verdict = ""
    for line in lines:
        keyword, *words = line.removeprefix(STATUS).split() or [""]
        if not line.startswith(STATUS):
            continue
        if keyword == "NEWSIG":
            verdict = ""
        elif keyword in VERDICTS:
            verdict = keyword
        elif keyword == "VALIDSIG":
            yield verdict, words


def status_of(argv: list[str | Path], runner: Runner) -> list[str]:
    """The status lines of a run that failed; only for words, decisions are made elsewhere."""
    lines: list[str] = []
    with contextlib.suppress(CommandFailed):
        runner.run(argv, timeout_s=TIMEOUT_S, on_line=lines.append)
    return lines


def refusal(document: Path, lines: list[str], runner: Runner) -> VerificationFailed:
    """The error for a document without a signature that counts."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith(STATUS):
            keyword, *words = line.removeprefix(STATUS).split() or [""]
            found[keyword] = words
    if "BADSIG" in found:
        reason = "its content is not what was signed"
    elif "REVKEYSIG" in found:
        reason = "the key that signed it has been revoked"
    elif "EXPSIG" in found:
        reason = "the signature has expired"
    elif "NO_PUBKEY" in found:
        reason = f"it is signed by a key that is not trusted here ({found['NO_PUBKEY'][0]})"
    elif "VALIDSIG" in found:
        reason = f"it is signed by a key that may not sign it ({found['VALIDSIG'][-1]})"
    elif "NEWSIG" not in found:
        reason = "the signature file holds no signature"
    else:
        reason = "gpgv could not check it"
    return VerificationFailed(
        f"The signature of {document.name} is not good: {reason}. Nothing of it is used.",
        hint="The mirror is broken, or somebody is in between: use another mirror.",
        log=runner.log,
    )
