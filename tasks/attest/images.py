"""Writes what vouches for one image beside it: bills of materials, provenance, test results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.attest.build import Build

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
    """
    raise NotImplementedError


def attest_validation(record: Path, *, key: PrivateKey | None = None) -> Path:
    """Write the test-result statement of a validation record beside it.

    Args:
        record: DIR/validation/RECORD.json.

    Raises:
        BadInput: it is no record of a validation.
    """
    raise NotImplementedError
