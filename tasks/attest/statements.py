"""in-toto Statements about files: how they came to be, and what a validation found out.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
Every function follows from its arguments alone, so that a statement can be checked by making it
again from what it speaks of.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tasks.artifacts.checks import Validation
from tasks.attest.build import Build
from tasks.attest.manifest import compression, lifetime, vendor_of

STATEMENT = "https://in-toto.io/Statement/v1"
SLSA_PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
# Ours; docs/provenance.md says what they mean.
IMAGE_BUILD = "urn:x-vmbake:image:1"
COLLECTION = "urn:x-vmbake:build:1"
# The digest of a source tree: SHA256 of compact JSON, keys sorted, from path to SHA256.
TREE_DIGEST = "vmbakeTree1"

JsonObject = dict[str, Any]


def statement(digests: Mapping[str, str], kind: str, predicate: JsonObject) -> JsonObject:
    """A statement about files, given as name to SHA256."""
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(digests.items())
        ],
        "predicateType": kind,
        "predicate": predicate,
    }


def as_text(statement: JsonObject) -> str:
    """A statement as its file has it."""
    return json.dumps(statement, indent=1) + "\n"


def provenance(
    manifest: Mapping[str, Any],
    build: Build,
    *,
    subjects: Mapping[str, str],
    materials: Mapping[str, str],
) -> JsonObject:
    """How an image came to be, https://slsa.dev/spec/v1.2/build-provenance.

    Args:
        subjects: the image's files, name to SHA256.
        materials: the bills of materials, name to SHA256.

    Raises:
        KeyError, TypeError, ValueError: the manifest is none.
    """
    since, until = lifetime(manifest)
    return statement(
        subjects,
        SLSA_PROVENANCE,
        {
            "buildDefinition": {
                "buildType": IMAGE_BUILD,
                "externalParameters": {
                    "variant": manifest["variant"],
                    "version": manifest["version"],
                    "base": manifest["base"]["name"],
                    "layout": manifest["source"]["layout"],
                    "compression": compression(manifest),
                    "disk_size_bytes": manifest["virtual_size_bytes"],
                },
                "internalParameters": {
                    "fingerprints": {
                        name: stage["fingerprint"] for name, stage in manifest["stages"].items()
                    },
                },
                "resolvedDependencies": [*dependencies(manifest), *repository(build)],
            },
            "runDetails": {
                "builder": {
                    "id": build.builder,
                    "version": {**build.versions, **manifest["tools"]},
                },
                "metadata": {
                    **({"invocationId": build.invocation} if build.invocation else {}),
                    "startedOn": rfc3339(since),
                    "finishedOn": rfc3339(until),
                },
                "byproducts": [
                    *(resource(name, digest) for name, digest in sorted(materials.items())),
                    *(
                        resource(manifest[part]["file"], manifest[part]["sha256"])
                        for part in ("module", "tool")
                    ),
                ],
            },
        },
    )


def dependencies(manifest: Mapping[str, Any]) -> list[JsonObject]:
    """What the image was made from: base, source, kernel."""
    base = manifest["base"]
    kernel = f"linux-image-{manifest['kernel']}"
    found = [
        {
            **resource("base", base["sha256"]),
            "annotations": {name: value for name, value in base.items() if name != "sha256"},
        },
        {"name": "source", "digest": {TREE_DIGEST: manifest["source"]["sha256"]}},
    ]
    if kernel in manifest["packages"]:
        vendor = vendor_of(manifest["packages"])
        version = quote(str(manifest["packages"][kernel]), safe=":")
        found.append({"name": "kernel", "uri": f"pkg:deb/{vendor}/{quote(kernel)}@{version}"})
    return found


def repository(build: Build) -> list[JsonObject]:
    """The checkout that did it, if it is known."""
    if not build.commit:
        return []
    place = {"uri": f"git+{build.repository}@{build.commit}"} if build.repository else {}
    return [{"name": "repository", **place, "digest": {"gitCommit": build.commit}}]


def test_result(validation: Validation, *, record: str, sha256: str) -> JsonObject:
    """What was found out about an image, in the words of in-toto's test-result.

    A check that does not apply is warned of: somebody may have relied on it. Subjects are the
    record, which has each check's command and output, and the image, if it could be read.

    https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md

    Args:
        record: name of the record's file.
        sha256: of that file.
    """
    failed = [*names_of(validation, "failed"), *names_of(validation, "error")]
    warned = names_of(validation, "skipped")
    good = "WARNED" if warned else "PASSED"
    image = {validation.image: validation.sha256} if validation.sha256 else {}
    how = {"accel": validation.accel, "firmware": validation.firmware}
    return statement(
        {**image, record: sha256},
        TEST_RESULT,
        {
            "result": good if validation.passed else "FAILED",
            "configuration": [
                {
                    "name": "machine",
                    "mediaType": "application/json",
                    "content": base64.b64encode(json.dumps(how).encode()).decode(),
                }
            ],
            "passedTests": names_of(validation, "passed"),
            "warnedTests": warned,
            # An image that could not be validated has failed, though no check of it has.
            "failedTests": failed or ([] if validation.passed else ["validation"]),
        },
    )


def names_of(validation: Validation, outcome: str) -> list[str]:
    """The checks that ended like that."""
    return [
        f"{check.group}/{check.name}" for check in validation.checks if check.outcome == outcome
    ]


def collection(digests: Mapping[str, str], build: Build) -> JsonObject:
    """That these files are what one build left."""
    return statement(
        digests,
        COLLECTION,
        {
            "builder": build.builder,
            "invocation": build.invocation,
            "number": build.number,
            "commit": build.commit,
            "tag": build.tag,
        },
    )


def resource(name: str, sha256: str) -> JsonObject:
    """in-toto's ResourceDescriptor of a file."""
    return {"name": name, "digest": {"sha256": sha256}}


def rfc3339(moment: datetime) -> str:
    """A time as SLSA wants it: UTC, in seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def differences(found: Any, expected: Any, path: str = "") -> Iterable[str]:
    """Where two JSON documents differ, each place in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            below = f"{path}.{key}" if path else str(key)
            if key not in found:
                yield f"{below} is missing"
            elif key not in expected:
                yield f"{below} was added"
            else:
                yield from differences(found[key], expected[key], below)
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif found != expected or type(found) is not type(expected):
        yield f"{path} is {brief(found)}, not {brief(expected)}"


def brief(value: Any) -> str:
    """A value as JSON, short enough for a message."""
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}…"
