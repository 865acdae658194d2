"""How bills of materials express a license that was declared in whatever words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tasks.attest.parts import Part

# What the words in MODULE_LICENSE mean.
KERNEL_LICENSES = "https://docs.kernel.org/process/license-rules.html"


def is_expression(part: Part) -> bool:
    """Whether a part's license is an expression of SPDX, in just this spelling.

    A module's never is: the kernel's `GPL` is version 2, which SPDX reads as any version.
    """
    from cyclonedx.spdx import is_expression as can_be_parsed
    from spdx_tools.common.spdx_licensing import spdx_licensing

    if part.kind == "module" or not can_be_parsed(part.license):
        return False
    # What has several spellings, or an older name, is parsed into another text.
    return str(spdx_licensing.parse(part.license)) == part.license


def spdx_license(part: Part) -> Any:
    """A part's license as SPDX has it: an expression, or a reference to `named_licenses`."""
    from spdx_tools.common.spdx_licensing import spdx_licensing
    from spdx_tools.spdx.model import SpdxNoAssertion

    if not part.license:
        return SpdxNoAssertion()
    return spdx_licensing.parse(part.license if is_expression(part) else reference(part))


def named_licenses(parts: Sequence[Part]) -> list[Any]:
    """The licenses that SPDX has no name for, each once, with all that is known of them."""
    from spdx_tools.spdx.model import ExtractedLicensingInfo

    named = {reference(part): part for part in parts if part.license and not is_expression(part)}
    return [
        ExtractedLicensingInfo(
            license_id=name,
            license_name=part.license,
            extracted_text=f'MODULE_LICENSE("{part.license}")'
            if part.kind == "module"
            else f'license = "{part.license}"',
            cross_references=[KERNEL_LICENSES] if part.kind == "module" else [],
        )
        for name, part in named.items()
    ]


def reference(part: Part) -> str:
    """What SPDX calls a license that it has no name for: another for each text."""
    text = re.sub(r"[^A-Za-z0-9.]", lambda odd: f"-{ord(odd[0]):x}-", part.license)
    return f"LicenseRef-vmbake-{part.kind}-{text}"
