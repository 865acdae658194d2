"""The finished files of an image: standalone disk, compressed form, checksums, manifest."""

from __future__ import annotations

from pathlib import Path

from tasks.artifacts import publish
from tasks.artifacts.compress import ENDINGS, Method, compress
from tasks.core.stage import Facts, Step
from tasks.core.store import Publication, Result
from tasks.qemu import disk
from tasks.vexfs import manifest
from tasks.vexfs.manifest import Names

IMAGE = "image.qcow2"


def compressed_name(method: str) -> str:
    """The name of the compressed image in the store."""
    return IMAGE + ENDINGS[as_method(method)]


def as_method(text: str) -> Method:
    """The option's value as its type; its choices are the same."""
    return "gzip" if text == "gzip" else "zstd"


def names(variant: str, version: str, method: str) -> Names:
    """The published names for a variant, a version and a way to compress."""
    return manifest.names(variant, version, ENDINGS[as_method(method)])


def finish(step: Step, sealed: Path, method: str) -> Facts:
    """Write the standalone image and its compressed form, both digests on the way."""
    image = step.out / IMAGE
    packed = step.out / compressed_name(method)
    step.say("writing the image")
    # Compressed clusters: half the bytes to move, for every QEMU from 5.1 on.
    size_bytes = disk.compact(step.runner, sealed, "qcow2", image, threads=step.cores)
    step.say(f"compressing with {method}")
    made = compress(image, packed, method=as_method(method), reporter=step, threads=step.cores)
    step.knows_digest(image.name, made.source_sha256)
    step.knows_digest(packed.name, made.target_sha256)
    return {"virtual_size_bytes": size_bytes}


def write_checksums(step: Step, compressed: Result, method: str, names: Names) -> None:
    """One file for each image, as `sha256sum -c` reads it."""
    for source, name in ((IMAGE, names.image), (compressed_name(method), names.compressed)):
        sha256 = compressed.outputs[source]["sha256"]
        (step.out / f"{name}.sha256").write_text(f"{sha256}  {name}\n")


def publish_all(
    step: Step, compressed: Result, checksums: Result, method: str, names: Names, text: str
) -> None:
    """Put everything into the output folder; the manifest last, as it vouches for the rest.

    An old manifest goes first, so that there never is one that speaks of other bytes.
    """
    output = step.site.output
    (output / names.manifest).unlink(missing_ok=True)
    sources = {
        names.image: compressed.path(IMAGE),
        names.compressed: compressed.path(compressed_name(method)),
        **{name: checksums.path(name) for name in checksums.outputs},
    }
    for name, source in sources.items():
        step.say(f"publishing {name}")
        publish.publish(source, output / name)
    publish.publish_text(text, output / names.manifest)
    for name in (*sources, names.manifest):
        target = output / name
        step.published.append(Publication(path=target, sha256=step.digests.of(target)))
