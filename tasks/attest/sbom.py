"""Bills of materials of an image, as CycloneDX 1.6 and SPDX 2.3, the same bytes for the same image.

debsbom reads dpkg's list and knows how both formats express it, with the source packages that
security trackers speak of; the rest of the image's parts are added here.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.artifacts.publish import publish_text
from tasks.attest import licenses
from tasks.attest.manifest import vendor_of
from tasks.attest.parts import Part, parts_of
from tasks.core.errors import BadInput

# Serial numbers are UUIDs within this one (RFC 9562, version 5), from the image's digest.
SERIALS = uuid.UUID("6a0f2f0e-5e0c-5d0e-9b8f-5b1d7a2f3c11")
SPDX_DOCUMENTS = "/spdxdocs/"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What both formats are made from.

    Args:
        name: of the image, without a version.
        sha256: of the image.
        packages: debsbom's, sorted; with the source packages.
        parts: what else is in the image.
        vendor: whose packages they are, as in package URLs.
        arch: of the image, as dpkg calls it.
        kernel: the name of the kernel's package.
        made: when the image was made, UTC.
    """

    name: str
    version: str
    sha256: str
    packages: Sequence[Any]
    parts: Sequence[Part]
    vendor: str
    arch: str
    kernel: str
    made: datetime

    @property
    def serial(self) -> uuid.UUID:
        return uuid.uuid5(SERIALS, self.sha256)

    def for_debsbom(self) -> dict[str, Any]:
        """What debsbom is told for either format."""
        return {
            "packages": self.packages,
            "distro_name": self.name,
            "distro_arch": self.arch,
            "distro_version": self.version,
            "base_distro_vendor": self.vendor,
            "timestamp": self.made,
            "virtual_packages": provided(self.packages),
        }

    def purl(self, part: Part) -> str:
        """The package URL of a part; what is in no registry must not be taken for what is."""
        from packageurl import PackageURL

        digest = {"checksum": f"sha256:{part.sha256}"} if part.sha256 else {}
        return PackageURL(
            type="cargo" if part.registry else "generic",
            name=part.name,
            version=part.version,
            qualifiers=digest,
        ).to_string()


def write(
    manifest: Mapping[str, Any],
    *,
    name: str,
    sha256: str,
    made: datetime,
    dpkg_status: Path,
    cargo_lock: Path | None,
    cyclonedx: Path,
    spdx: Path,
) -> None:
    """Write both bills of materials of an image, each whole or not at all.

    Args:
        name: of the image, without a version.
        sha256: of the image; all identifiers in the documents follow from it.
        made: when the image was made, UTC.
        dpkg_status: dpkg's `status` file from the image.
        cargo_lock: of the image's tool, if it has one.
        cyclonedx, spdx: the files to write.

    Raises:
        BadInput: dpkg's file or the Cargo.lock is none, or not of this image.
        KeyError, TypeError: the manifest is none.
        OSError: the disk is full, say.
    """
    # It warns of each source package of which dpkg's file does not say who maintains it.
    logging.getLogger("debsbom").setLevel(logging.ERROR)
    base = str(manifest["base"]["name"])
    binaries = installed(dpkg_status, "" if base.startswith("file:") else base)
    if mismatch := differing(manifest["packages"], binaries):
        raise BadInput(
            f"{dpkg_status} is not of this image: {mismatch}.",
            hint="It is kept by the same run of vexfs.seal as the image.",
        )
    content = Content(
        name=name,
        version=manifest["version"],
        sha256=sha256,
        packages=with_sources(binaries),
        parts=parts_of(manifest, cargo_lock),
        vendor=vendor_of(manifest["packages"]),
        arch=next((p.architecture for p in binaries if p.name == "dpkg"), "amd64"),
        kernel=f"linux-image-{manifest['kernel']}",
        made=made,
    )
    for target, text in ((cyclonedx, as_cyclonedx(content)), (spdx, as_spdx(content))):
        publish_text(text, target)


def installed(dpkg_status: Path, distro: str) -> list[Any]:
    """The installed packages in dpkg's file; `distro` is that of their package URLs.

    Raises:
        BadInput: it is no such file, or names no package.
    """
    from debsbom.dpkg.package import Package

    try:
        with Package.parse_status_file(dpkg_status) as found:
            binaries = list(found)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{dpkg_status} is no status file of dpkg ({error}).") from None
    if not binaries:
        raise BadInput(f"{dpkg_status} names no installed package; it is no status file of dpkg.")
    for package in binaries:
        package.distro = distro or None
    return binaries


def differing(listed: Mapping[str, str], binaries: Sequence[Any]) -> str:
    """What differs between a manifest's packages and those of dpkg's file; "" if nothing does."""
    # The manifest has dpkg-query's names, with the architecture where several could be installed.
    expected = {(name.partition(":")[0], version) for name, version in listed.items()}
    found = {(package.name, str(package.version)) for package in binaries}
    odd = sorted(expected ^ found)
    name, version = odd[0] if odd else ("", "")
    where = "the manifest" if (name, version) in expected else "it"
    return f"only {where} has {name} {version}" if odd else ""


def with_sources(binaries: Sequence[Any]) -> list[Any]:
    """The packages and their source packages, in an order that depends on nothing else."""
    from debsbom.dpkg.package import Package

    sources = Package.referenced_src_packages(binaries)
    return sorted([*binaries, *sources], key=lambda package: str(package.purl()))


def provided(packages: Sequence[Any]) -> dict[str, list[tuple[Any, Any]]]:
    """Who provides each virtual package."""
    found: dict[str, list[tuple[Any, Any]]] = {}
    for package in packages:
        if package.is_binary():
            for virtual in package.provides:
                found.setdefault(virtual.name, []).append((virtual, package))
    return found


def as_cyclonedx(content: Content) -> str:
    """The bill of materials as CycloneDX, https://cyclonedx.org/docs/1.6/json/."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import (
        DisjunctiveLicense,
        LicenseAcknowledgement,
        LicenseExpression,
    )
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from debsbom.generate.cdx import cyclonedx_bom
    from packageurl import PackageURL

    bom = cyclonedx_bom(**content.for_debsbom(), serial_number=content.serial)
    image = bom.metadata.component
    image.hashes = [HashType(alg=HashAlgorithm.SHA_256, content=content.sha256)]
    kinds = {
        "module": ComponentType.DEVICE_DRIVER,
        "tool": ComponentType.APPLICATION,
        "crate": ComponentType.LIBRARY,
    }

    def license_of(part: Part) -> list[DisjunctiveLicense | LicenseExpression]:
        declared = LicenseAcknowledgement.DECLARED
        if not part.license:
            return []
        if licenses.is_expression(part):
            return [LicenseExpression(part.license, acknowledgement=declared)]
        return [DisjunctiveLicense(name=part.license, acknowledgement=declared)]

    kernels = [component for component in bom.components if component.name == content.kernel]
    added = [
        Component(
            type=kinds[part.kind],
            bom_ref=f"{part.kind}-{part.name}@{part.version}",
            name=part.name,
            version=part.version,
            purl=PackageURL.from_string(content.purl(part)),
            licenses=license_of(part),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)]
            if part.sha256
            else [],
        )
        for part in content.parts
    ]
    for part, component in zip(content.parts, added, strict=True):
        bom.components.add(component)
        needed = kernels if part.kind == "module" else [added[index] for index in part.needs]
        bom.register_dependency(component, needed)
        if part.kind != "crate":
            bom.register_dependency(image, [component])
    printer = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return printer.output_as_string(indent=1) + "\n"


def as_spdx(content: Content) -> str:
    """The bill of materials as SPDX, https://spdx.github.io/spdx-spec/v2.3/."""
    import io

    from debsbom.generate.spdx import spdx_bom
    from spdx_tools.spdx.model import Checksum, ChecksumAlgorithm, Relationship, RelationshipType
    from spdx_tools.spdx.writer.json.json_writer import write_document_to_stream

    path = f"{SPDX_DOCUMENTS}{content.name}-{content.version}-{content.serial}"
    document = spdx_bom(**content.for_debsbom(), namespace=("https", "spdx.org", path, "", "", ""))
    image = document.packages[0]
    image.checksums = [Checksum(ChecksumAlgorithm.SHA256, content.sha256)]
    kernels = [known.spdx_id for known in document.packages if known.name == content.kernel]
    added = [spdx_package(content, part) for part in content.parts]

    def relate(one: str, kind: RelationshipType, others: Sequence[str]) -> None:
        document.relationships += [Relationship(one, kind, other) for other in others]

    for part, package in zip(content.parts, added, strict=True):
        document.packages.append(package)
        needed = [added[index].spdx_id for index in part.needs]
        relate(
            package.spdx_id,
            RelationshipType.DEPENDS_ON,
            kernels if part.kind == "module" else needed,
        )
        if part.kind != "crate":
            relate(image.spdx_id, RelationshipType.CONTAINS, [package.spdx_id])
    document.extracted_licensing_info += licenses.named_licenses(content.parts)
    stream = io.StringIO()
    write_document_to_stream(document, stream, validate=False)
    return stream.getvalue() + "\n"


def spdx_package(content: Content, part: Part) -> Any:
    """A part as SPDX has it."""
    import re

    from spdx_tools.spdx.model import (
        Checksum,
        ChecksumAlgorithm,
        ExternalPackageRef,
        ExternalPackageRefCategory,
        Package,
        PackagePurpose,
        SpdxNoAssertion,
    )

    purposes = {
        "module": PackagePurpose.OTHER,
        "tool": PackagePurpose.APPLICATION,
        "crate": PackagePurpose.LIBRARY,
    }
    identity = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{part.kind}-{part.name}-{part.version}")
    return Package(
        spdx_id=f"SPDXRef-vmbake-{identity}",
        name=part.name,
        version=part.version,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        license_concluded=SpdxNoAssertion(),
        license_declared=licenses.spdx_license(part),
        copyright_text=SpdxNoAssertion(),
        primary_package_purpose=purposes[part.kind],
        checksums=[Checksum(ChecksumAlgorithm.SHA256, part.sha256)] if part.sha256 else [],
        external_references=[
            ExternalPackageRef(
                category=ExternalPackageRefCategory.PACKAGE_MANAGER,
                reference_type="purl",
                locator=content.purl(part),
            )
        ],
    )
