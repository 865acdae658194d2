"""The tasks of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.tasks import task


@task(
    positional=["directory"],
    help={
        "directory": "What inv ci.pipeline left",
        "key": "PEM file with the public key that must have signed it",
    },
)
def verify(context: Any, directory: str, key: str = "") -> None:
    """Check a pipeline's result: bytes, statements, signatures."""
    from tasks.ci import verifying

    for line in verifying.check(Path(directory), Path(key) if key else None):
        print(line)


namespace = Collection(verify)
