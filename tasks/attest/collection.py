"""The result of a pipeline as one directory that can be handed over, and how it is sealed.

    DIR/
      NAME.qcow2  NAME.qcow2.zst  NAME.qcow2.sha256 …   what `inv vexfs.image` published
      NAME.manifest.json                                of each image; its "artifacts" names the files
      NAME.cdx.json  NAME.spdx.json                     bills of materials, CycloneDX 1.6 and SPDX 2.3
      NAME.provenance.json                              in-toto Statement with SLSA provenance; when
                                                        signed NAME.provenance.intoto.jsonl instead
      validation/RECORD.json                            what `tasks.artifacts.checks.write` wrote
      validation/RECORD.test-result.json                the Statement about it, or .intoto.jsonl
      logs/…  junit.xml  report.html  summary.md  …     anything else
      build-manifest.json                               the build, and each file's digest and size
      build-manifest.intoto.jsonl                       only when signed: a Statement whose subjects
                                                        are build-manifest.json and all that it lists
      checksums.sha256                                  every file but itself, for `sha256sum -c`

build-manifest.json lists every file but itself, its signature and checksums.sha256. The last needs
no signature: its only right content follows from the other files. A directory holds plain files and
directories, no links, and is sealed last: afterwards any change shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tasks.attest.signing import PrivateKey

BUILD_MANIFEST = "build-manifest.json"
CHECKSUMS = "checksums.sha256"
VALIDATION = "validation"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What became of one of the images that the pipeline was to make.

    Args:
        name: as in reports, such as vexfs-minimal-1.0.0.
        outcome: built: it is there, and nobody has validated it.
        reason: why it failed; "" otherwise.
        files: names of its files in the directory; () if it was not built.
    """

    name: str
    outcome: Literal["passed", "failed", "built"]
    reason: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Build:
    """One run of the pipeline.

    Args:
        builder: URI of who ran it: the CI's URL of the workflow, or provenance.DESK.
        invocation: URL of this very run; "" on a desk.
        number, commit, tag: as CI says; "" if unknown.
        repository: URL of the source; "" if unknown.
        started, finished: ISO 8601, UTC.
        versions: of vmbake and of the programs that it used, name to version.
    """

    builder: str
    invocation: str = ""
    number: str = ""
    commit: str = ""
    tag: str = ""
    repository: str = ""
    started: str
    finished: str
    versions: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()


def attest_image(
    manifest: Path,
    build: Build,
    *,
    dpkg_status: Path | None,
    cargo_lock: Path | None = None,
    key: PrivateKey | None = None,
) -> tuple[Path, ...]:
    """Write the bills of materials and the provenance of an image beside its manifest.

    Args:
        manifest: DIR/NAME.manifest.json; the files that it names must be there, too.
        dpkg_status: of the sealed disk (output `dpkg-status` of vexfs.seal); None: the manifest's
            list of packages is taken, which knows neither sources nor dependencies.
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


def seal(directory: Path, build: Build, *, key: PrivateKey | None = None) -> None:
    """Write build-manifest.json, its signature, and checksums.sha256, each whole or not at all.

    Call it once all else is there; called again, it replaces them. Old ones go first, so that
    none ever speaks of other bytes.

    Raises:
        BadInput: the directory holds something that can't be vouched for (a link, say).
    """
    raise NotImplementedError
