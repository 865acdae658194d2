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

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.attest.build import Build

if TYPE_CHECKING:
    from tasks.attest.signing import PrivateKey

BUILD_MANIFEST = "build-manifest.json"
CHECKSUMS = "checksums.sha256"
VALIDATION = "validation"


def seal(directory: Path, build: Build, *, key: PrivateKey | None = None) -> None:
    """Write build-manifest.json, its signature, and checksums.sha256, each whole or not at all.

    Call it once all else is there; called again, it replaces them. Old ones go first, so that
    none ever speaks of other bytes.

    Raises:
        BadInput: the directory holds something that can't be vouched for (a link, say).
    """
    raise NotImplementedError
