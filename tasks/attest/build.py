"""One run of a pipeline, as statements and the build manifest tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# Who built it if no CI did.
DESK = "urn:x-vmbake:desk"


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
        builder: URI of who ran it: the CI's URL of the workflow, say.
        invocation: URL of this very run; "" if there is none.
        number, commit, tag: as CI says; "" if unknown.
        repository: URL of the source; "" if unknown.
        started, finished: ISO 8601, UTC.
        versions: of vmbake and of the programs that it used, name to version.
    """

    builder: str = DESK
    invocation: str = ""
    number: str = ""
    commit: str = ""
    tag: str = ""
    repository: str = ""
    started: str
    finished: str
    versions: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the build manifest has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Build:
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError, AttributeError: it is nothing that `to_json` wrote.
        """
        variants = tuple(
            Variant(**{**variant, "files": tuple(variant["files"])}) for variant in data["variants"]
        )
        return cls(**{**data, "variants": variants})
