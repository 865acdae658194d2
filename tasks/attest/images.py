"""Writes what vouches for one image beside it: bills of materials, provenance, test results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.artifacts import checks
from tasks.attest import collection, statements
from tasks.attest import manifest as manifests
from tasks.attest.build import Build
from tasks.core.digest import sha256_of
from tasks.core.errors import BadInput, VerificationFailed

if TYPE_CHECKING:
    from tasks.attest.signing import PrivateKey


def attest_image(
    manifest: Path,
    build: Build,
    *,
    dpkg_status: Path,
    cargo_lock: Path | None = None,
    key: PrivateKey | None = None,
) -> tuple[Path, ...]:
    """Write the bills of materials and the provenance of an image beside its manifest.

    Args:
        manifest: DIR/NAME.manifest.json; the files that it names must be there, too.
        dpkg_status: of the sealed disk (output `dpkg-status` of vexfs.seal).
        cargo_lock: of vexctl (output `Cargo.lock` of vexfs.compile-vexfs), if there is one.
        key: signs the provenance; None: it is a plain statement.

    Returns:
        The files that were written.

    Raises:
        BadInput: the manifest or another input is not what it should be.
        VerificationFailed: a file is not the one that the manifest speaks of.
        OSError: the disk is full, or a file can't be read.
    """
    stem = stem_of(manifest.name)
    document = manifests.read(manifest)
    try:
        return attest(manifest, stem, document, build, dpkg_status, cargo_lock, key)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{manifest} is no manifest of an image ({type(error).__name__}: {error})."
        ) from error


def attest(
    path: Path,
    stem: str,
    manifest: Mapping[str, Any],
    build: Build,
    dpkg_status: Path,
    cargo_lock: Path | None,
    key: PrivateKey | None,
) -> tuple[Path, ...]:
    """`attest_image`, with the manifest read."""
    from tasks.attest import sbom

    directory = path.parent
    subjects = {name: sha256_of(directory / name) for name in files_of(directory, path, manifest)}
    for name, artifact in manifest["artifacts"].items():
        if subjects[name] != artifact["sha256"]:
            raise VerificationFailed(
                f"{directory / name} is not the file that {path.name} speaks of: its SHA256 is "
                f"{subjects[name]}, not {artifact['sha256']}."
            )
    cyclonedx, spdx = (
        directory / f"{stem}{ending}" for ending in (collection.CYCLONEDX, collection.SPDX)
    )
    sbom.write(
        manifest,
        name=re.sub(r"[^A-Za-z0-9.-]", "-", f"{manifest['name']}-{manifest['variant']}"),
        sha256=subjects[manifests.image_name(manifest)],
        made=manifests.lifetime(manifest)[1],
        dpkg_status=dpkg_status,
        cargo_lock=cargo_lock,
        cyclonedx=cyclonedx,
        spdx=spdx,
    )
    materials = {file.name: sha256_of(file) for file in (cyclonedx, spdx)}
    statement = statements.provenance(manifest, build, subjects=subjects, materials=materials)
    provenance = collection.write_statement(
        directory, f"{stem}{collection.PROVENANCE}", statement, key
    )
    return (cyclonedx, spdx, provenance)


def stem_of(name: str) -> str:
    """NAME of NAME.manifest.json.

    Raises:
        BadInput: it is called otherwise.
    """
    if not name.endswith(collection.MANIFEST):
        raise BadInput(f"{name} is not called NAME{collection.MANIFEST}.")
    return name.removesuffix(collection.MANIFEST)


def files_of(directory: Path, path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The names of an image's files: image, compressed form, their checksums, manifest.

    Raises:
        BadInput: one isn't there.
    """
    needed = [*manifest["artifacts"], path.name]
    for name in needed:
        if Path(name).name != name or not (directory / name).is_file():
            raise BadInput(f"{path} speaks of {name}, which is not beside it.")
    sums = [f"{name}.sha256" for name in manifest["artifacts"]]
    return sorted([*needed, *(name for name in sums if (directory / name).is_file())])


def attest_validation(record: Path, *, key: PrivateKey | None = None) -> Path:
    """Write the test-result statement of a validation record beside it.

    Args:
        record: DIR/validation/RECORD.json.

    Raises:
        BadInput: it is no record of a validation.
        OSError: the disk is full, say.
    """
    try:
        validation = checks.read(record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{record} is no record of a validation: {error}") from None
    directory = record.parent.parent
    name = record.relative_to(directory).as_posix()
    statement = statements.test_result(validation, record=name, sha256=sha256_of(record))
    stem = f"{name.removesuffix('.json')}{collection.RESULT}"
    return collection.write_statement(directory, stem, statement, key)
