"""Checks a sealed directory: every byte, every statement, every signature, base to image.

Up to three files say what the others' bytes are: the signed statement, build-manifest.json, and
checksums.sha256. The first of them that can be believed decides about a file; the others must
agree with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.attest import chain, collection, statements
from tasks.attest.build import Build
from tasks.attest.collection import BUILD_MANIFEST, CHECKSUMS, SEALS, SIGNATURE, Inventory
from tasks.attest.finding import Finding, Verdict
from tasks.core.errors import BadInput, VerificationFailed

if TYPE_CHECKING:
    from tasks.attest.signing import PublicKey

Digests = Mapping[str, str]
LINE = re.compile(r"([0-9a-f]{64})  (.+)")
# Of which files each source says nothing, because they are written after it.
SILENT_ON = {
    SIGNATURE: {CHECKSUMS},
    BUILD_MANIFEST: set(SEALS),
    CHECKSUMS: {CHECKSUMS},
}


@dataclass(kw_only=True)
class Look:
    """A directory that is being looked at.

    Args:
        sources: what is believed about the files' digests, the weightiest first.
        signed: the files whose signatures are good.
    """

    directory: Path
    found: Inventory
    key: PublicKey | None
    findings: list[Finding] = field(default_factory=list)
    sources: dict[str, Digests] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)

    def report(self, file: str, what: str) -> None:
        """Keep something that is wrong."""
        self.findings.append(Finding(file=file, what=what))

    def text(self, name: str) -> str:
        """The text of a file.

        Raises:
            OSError, ValueError: it isn't there, or is none.
        """
        return (self.directory / name).read_bytes().decode("utf-8")

    def digest(self, name: str) -> str | None:
        """The digest of a file as it is; None: it isn't there."""
        file = self.found.files.get(name)
        return file.sha256 if file else None

    def claims(self, name: str) -> dict[str, str | None]:
        """What each source says that a file's digest is; None: that there is no such file."""
        return {
            source: digests.get(name)
            for source, digests in self.sources.items()
            if name not in SILENT_ON[source]
        }


def verify(directory: Path, key: PublicKey | None) -> Verdict:
    """Look at all of a sealed directory (see collection.py).

    Args:
        key: whose signatures are required; None: only digests and the chain are checked, and
            nothing vouches for the author.

    Raises:
        BadInput: it is no directory.
        OSError: a file can't be read.
    """
    if not directory.is_dir():
        raise BadInput(f"{directory} is no directory; one that inv ci.pipeline made was expected.")
    look = Look(directory=directory, found=collection.take_inventory(directory), key=key)
    for name, why in look.found.odd.items():
        look.report(name, why)
    document = find_sources(look)
    names = {*look.found.files, *(name for known in look.sources.values() for name in known)}
    for name in sorted(names):
        compare(look, name)
    if document is not None:
        look.findings += check_chain(look, document)
    return Verdict(
        findings=tuple(dict.fromkeys(look.findings)),
        files=len(look.found.files),
        signed=tuple(look.signed),
    )


def find_sources(look: Look) -> Mapping[str, Any] | None:
    """Read what says how the files should be, and believe what others don't contradict.

    Returns:
        the build manifest, if it can be believed.
    """
    sums = read_checksums(look)
    signed = read_signature(look)
    document = read_build_manifest(look)
    if signed is not None and (look.key or is_believed(look, SIGNATURE, sums)):
        # Of itself it says nothing; but it would not be believed if it had been changed.
        look.sources[SIGNATURE] = {**signed, SIGNATURE: str(look.digest(SIGNATURE))}
    if document is not None:
        if SIGNATURE in look.sources:
            believed = look.sources[SIGNATURE].get(BUILD_MANIFEST) == look.digest(BUILD_MANIFEST)
        else:
            believed = is_believed(look, BUILD_MANIFEST, sums)
        if believed:
            look.sources[BUILD_MANIFEST] = digests_in(look, document)
    if sums is not None:
        look.sources[CHECKSUMS] = sums
    return document if BUILD_MANIFEST in look.sources else None


def is_believed(look: Look, name: str, sums: Digests | None) -> bool:
    """Whether the checksums say of one of the other two sources what it is."""
    if sums is None or sums.get(name) == look.digest(name):
        return True
    look.report(CHECKSUMS, f"it speaks of another {name} than there is; one of the two was changed")
    return False


def read_checksums(look: Look) -> Digests | None:
    """What checksums.sha256 says."""
    if CHECKSUMS not in look.found.files:
        look.report(CHECKSUMS, "it is missing; inv ci.pipeline writes it last")
        return None
    try:
        text = look.text(CHECKSUMS)
    except ValueError:
        text = ""
    lines = [LINE.fullmatch(line) for line in text.split("\n")]
    sums = {match[2]: match[1] for match in lines if match}
    if collection.checksums(sums) != text:
        look.report(CHECKSUMS, "it is not as it was written; other than sorted lines are in it")
    return sums


def read_signature(look: Look) -> Digests | None:
    """What the signed statement about the whole directory says."""
    from tasks.attest.signing import opened

    if SIGNATURE not in look.found.files:
        if look.key:
            look.report(BUILD_MANIFEST, f"it is not signed: there is no {SIGNATURE}")
        return None
    try:
        statement = json.loads(opened(look.text(SIGNATURE), look.key))
        kind = statement["predicateType"]
        subjects = {
            str(item["name"]): str(item["digest"]["sha256"]) for item in statement["subject"]
        }
    except VerificationFailed as error:
        look.report(SIGNATURE, error.what)
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        look.report(SIGNATURE, "it is no statement about files")
        return None
    if kind != statements.COLLECTION:
        look.report(SIGNATURE, f"it is a statement of another kind, {kind}")
        return None
    if look.key:
        look.signed.append(SIGNATURE)
    return subjects


def read_build_manifest(look: Look) -> Mapping[str, Any] | None:
    """The build manifest, if it is one."""
    if BUILD_MANIFEST not in look.found.files:
        look.report(BUILD_MANIFEST, "it is missing; inv ci.pipeline writes one")
        return None
    try:
        document: dict[str, Any] = json.loads(look.text(BUILD_MANIFEST))
        if document["format"] != collection.FORMAT:
            look.report(BUILD_MANIFEST, f"its format is {document['format']}, which is not known")
            return None
        Build.from_json(document["build"])
        for file in document["files"].values():
            int(file["size_bytes"]), str(file["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        look.report(BUILD_MANIFEST, f"it is no build manifest ({type(error).__name__}: {error})")
        return None
    return document


def digests_in(look: Look, document: Mapping[str, Any]) -> Digests:
    """What the build manifest says; that its sizes are the files' is seen to."""
    for name, file in document["files"].items():
        actual = look.found.files.get(name)
        is_same = actual is not None and actual.sha256 == file["sha256"]
        if actual and is_same and actual.size_bytes != file["size_bytes"]:
            look.report(
                BUILD_MANIFEST,
                f"it says that {name} has {file['size_bytes']} bytes; it has {actual.size_bytes}",
            )
    return {name: str(file["sha256"]) for name, file in document["files"].items()}


def compare(look: Look, name: str) -> None:
    """Compare a file with what is said of it."""
    claims = look.claims(name)
    if not claims:
        return
    (first, expected), *others = claims.items()
    found = look.digest(name)
    if found != expected:
        if found is None:
            look.report(name, f"it is missing; {first} lists it")
        elif expected is None:
            look.report(name, f"it was added; {first} does not list it")
        else:
            look.report(name, f"its SHA256 is {found}, not {expected} as {first} says")
    for source, claim in others:
        if claim != expected:
            look.report(source, f"it does not say the same of {name} as {first}")


def check_chain(look: Look, document: Mapping[str, Any]) -> Iterator[Finding]:
    """Check what the files say of each other."""
    expected = {name: next(iter(look.claims(name).values()), None) for name in look.found.files}
    link = chain.Chain(
        directory=look.directory,
        digests={**look.sources[BUILD_MANIFEST]},
        intact={name for name in expected if look.digest(name) == expected[name]},
        build=Build.from_json(document["build"]),
        key=look.key,
    )
    yield from link.findings()
    look.signed += link.signed
