"""Checks what the files of a sealed directory say of each other: base, source, image, results.

Each statement is made again from the files that it is about, and must come out the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.artifacts import checks
from tasks.artifacts.unpack import content_sha256, packing_of
from tasks.attest import manifest as manifests
from tasks.attest import statements
from tasks.attest.build import Build, Variant
from tasks.attest.collection import (
    BUILD_MANIFEST,
    CYCLONEDX,
    MANIFEST,
    PLAIN,
    PROVENANCE,
    RESULT,
    SIGNED,
    SPDX,
    VALIDATION,
)
from tasks.attest.finding import Finding
from tasks.core.errors import BadInput, VerificationFailed
from tasks.core.events import Silent

if TYPE_CHECKING:
    from tasks.attest.signing import PublicKey

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OSError)
# More differences of one statement would be one difference told in many words.
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The files of a directory and what they ought to be.

    Args:
        digests: SHA256 of each file as it was sealed.
        intact: the files that still are so; nothing else is read.
        key: with it, every statement must be signed.
        signed: gets the names of the statements whose signatures are good.
    """

    directory: Path
    digests: Mapping[str, str]
    intact: Set[str]
    build: Build
    key: PublicKey | None
    signed: list[str] = field(default_factory=list)

    def findings(self) -> Iterator[Finding]:
        """All that does not fit together."""
        results: list[checks.Validation] = []
        for name in sorted(self.digests):
            if name.endswith(MANIFEST):
                yield from self.guarded(name, self.image(name))
            elif is_record(name):
                yield from self.guarded(name, self.record(name, results))
            elif (about := what_it_is_about(name)) and about not in self.digests:
                yield Finding(file=name, what=f"it is about {about}, which is not there")
        if self.intact >= set(filter(is_record, self.digests)):
            for variant in self.build.variants:
                yield from self.guarded(BUILD_MANIFEST, self.outcome(variant, results))

    def guarded(self, name: str, check: Iterator[Finding]) -> Iterator[Finding]:
        """The findings of a check of a file; one more if the file is something else altogether."""
        if name in self.intact:
            try:
                yield from check
            except MALFORMED as error:
                yield Finding(
                    file=name,
                    what=f"it is not as vmbake writes it ({type(error).__name__}: {error})",
                )

    def json(self, name: str) -> Any:
        """A file's content."""
        return json.loads((self.directory / name).read_bytes())

    def image(self, name: str) -> Iterator[Finding]:
        """An image: its files, its bills of materials, its provenance."""
        manifest, stem = self.json(name), name.removesuffix(MANIFEST)
        subjects = {name: self.digests[name]}
        for file, artifact in manifest["artifacts"].items():
            if file not in self.digests:
                yield Finding(file=name, what=f"it speaks of {file}, which is not there")
                continue
            subjects[file] = self.digests[file]
            if artifact["sha256"] != self.digests[file]:
                told = f"it says that {file} has SHA256 {artifact['sha256']}"
                yield Finding(file=name, what=f"{told}; it is {self.digests[file]}")
            sums = f"{file}.sha256"
            if sums in self.digests:
                subjects[sums] = self.digests[sums]
                yield from self.sums(sums, file)
            if file != manifests.image_name(manifest):
                yield from self.packed(file, manifests.image_name(manifest))
        materials = {}
        for ending, read in ((CYCLONEDX, read_cyclonedx), (SPDX, read_spdx)):
            material = f"{stem}{ending}"
            if material in self.digests:
                materials[material] = self.digests[material]
                yield from self.guarded(material, self.bill(material, read, manifest))
            else:
                yield Finding(file=name, what=f"its bill of materials is missing: {material}")
        expected = statements.provenance(
            manifest, self.build, subjects=subjects, materials=materials
        )
        yield from self.statement(name, f"{stem}{PROVENANCE}", expected)

    def bill(
        self, name: str, read: Callable[[Any], Bill], manifest: Mapping[str, Any]
    ) -> Iterator[Finding]:
        """A bill of materials."""
        yield from compare_bill(name, read(self.json(name)), manifest)

    def sums(self, name: str, file: str) -> Iterator[Finding]:
        """The checksum file of one image."""
        right = f"{self.digests[file]}  {file}\n".encode()
        if name in self.intact and (self.directory / name).read_bytes() != right:
            yield Finding(file=name, what=f"it is not the checksum of {file}")

    def packed(self, name: str, image: str) -> Iterator[Finding]:
        """A compressed form of an image: what is in it is the image, byte for byte."""
        if name not in self.intact or image not in self.intact:
            return
        path = self.directory / name
        packing = packing_of(path)
        if packing is None:
            yield Finding(file=name, what="it is nothing that is compressed, as its name says")
            return
        size_bytes = (self.directory / image).stat().st_size
        try:
            found = content_sha256(path, packing, size_bytes, Silent())
        except BadInput as error:
            yield Finding(file=name, what=f"it is not {image}, compressed: {error.what}")
            return
        if found != self.digests[image]:
            told = f"unpacked its SHA256 is {found}, not {self.digests[image]}"
            yield Finding(file=name, what=f"it is not {image}, compressed: {told}")

    def record(self, name: str, results: list[checks.Validation]) -> Iterator[Finding]:
        """A record of a validation, and the statement about it."""
        validation = checks.read(self.directory / name)
        results.append(validation)
        sealed = self.digests.get(validation.image)
        if validation.sha256 and sealed not in (None, validation.sha256):
            yield Finding(
                file=name,
                what=f"it is about another {validation.image}, with SHA256 {validation.sha256}",
            )
        expected = statements.test_result(validation, record=name, sha256=self.digests[name])
        yield from self.statement(name, f"{name.removesuffix('.json')}{RESULT}", expected)

    def statement(
        self, about: str, stem: str, expected: statements.JsonObject
    ) -> Iterator[Finding]:
        """The statement about something: there, signed if it has to be, and the right one."""
        plain, signed = f"{stem}{PLAIN}", f"{stem}{SIGNED}"
        if plain not in self.digests and signed not in self.digests:
            yield Finding(file=about, what=f"there is no statement about it: {plain} or {signed}")
        if plain in self.digests and self.key:
            yield Finding(file=plain, what="it is not signed")
        for name in (plain, signed):
            if name in self.intact and name in self.digests:
                yield from self.guarded(name, self.compare(name, expected))

    def compare(self, name: str, expected: statements.JsonObject) -> Iterator[Finding]:
        """A statement and what it ought to be."""
        from tasks.attest.signing import opened

        text = (self.directory / name).read_bytes().decode()
        if name.endswith(SIGNED):
            try:
                text = opened(text, self.key)
            except VerificationFailed as error:
                yield Finding(file=name, what=error.what)
                return
            if self.key:
                self.signed.append(name)
        found = [*statements.differences(json.loads(text), expected)]
        for difference in found[:SHOWN]:
            yield Finding(file=name, what=f"it is not about these files: {difference}")
        if len(found) > SHOWN:
            yield Finding(file=name, what=f"{len(found) - SHOWN} more differences")

    def outcome(self, variant: Variant, results: list[checks.Validation]) -> Iterator[Finding]:
        """What the build manifest says of one variant."""
        for file in variant.files:
            if file not in self.digests:
                yield Finding(
                    file=BUILD_MANIFEST,
                    what=f"{variant.name} is said to have {file}, which is not there",
                )
        passed = [result.passed for result in results if result.image in variant.files]
        if variant.outcome == "passed" and not (passed and all(passed)):
            yield Finding(
                file=BUILD_MANIFEST,
                what=f"it says that {variant.name} passed; no validation says so"
                if not passed
                else f"it says that {variant.name} passed; a validation says that it failed",
            )


def is_record(name: str) -> bool:
    """Whether a file is the record of a validation."""
    folder, _, rest = name.partition("/")
    is_json = "/" not in rest and rest.endswith(".json")
    return folder == VALIDATION and is_json and not rest.endswith(f"{RESULT}{PLAIN}")


def what_it_is_about(name: str) -> str:
    """The manifest or record that a statement belongs to, by its name; "": it is no statement."""
    for kind, about in ((PROVENANCE, MANIFEST), (RESULT, ".json")):
        for ending in (PLAIN, SIGNED):
            if name.endswith(kind + ending):
                return name.removesuffix(kind + ending) + about
    return ""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What a bill of materials says, whatever its format."""

    image_sha256: str
    packages: Set[tuple[str, str]]
    digests: Mapping[str, str]


def read_cyclonedx(document: Any) -> Bill:
    """What a bill of materials in CycloneDX says."""
    components = document["components"]
    return Bill(
        image_sha256=document["metadata"]["component"]["hashes"][0]["content"],
        packages={
            (component["name"], component["version"])
            for component in components
            if is_binary(component.get("purl", ""))
        },
        digests={
            component["name"]: component["hashes"][0]["content"]
            for component in components
            if component.get("hashes")
        },
    )


def read_spdx(document: Any) -> Bill:
    """What a bill of materials in SPDX says."""
    image, *packages = document["packages"]
    return Bill(
        image_sha256=image["checksums"][0]["checksumValue"],
        packages={
            (package["name"], package["versionInfo"])
            for package in packages
            if any(is_binary(ref["referenceLocator"]) for ref in package.get("externalRefs", []))
        },
        digests={
            package["name"]: package["checksums"][0]["checksumValue"]
            for package in packages
            if package.get("checksums")
        },
    )


def is_binary(purl: str) -> bool:
    """Whether a package URL is that of an installed Debian package."""
    return purl.startswith("pkg:deb/") and "arch=source" not in purl


def compare_bill(name: str, bill: Bill, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """A bill of materials and the manifest of the image that it ought to be of."""
    image = manifest["artifacts"][manifests.image_name(manifest)]["sha256"]
    if bill.image_sha256 != image:
        yield Finding(file=name, what=f"it is of another image, with SHA256 {bill.image_sha256}")
    listed = {(n.partition(":")[0], version) for n, version in manifest["packages"].items()}
    for package, version in sorted(bill.packages ^ listed)[:SHOWN]:
        where = "the image's manifest" if (package, version) in listed else "this file"
        yield Finding(file=name, what=f"only {where} has the package {package} {version}")
    for part in ("module", "tool"):
        file, digest = manifest[part]["file"], manifest[part]["sha256"]
        if bill.digests.get(file) != digest:
            yield Finding(
                file=name, what=f"it does not have the {part} {file} with SHA256 {digest}"
            )
