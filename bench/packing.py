"""Compressing an image with its checksums, and writing a seed."""

from __future__ import annotations

from pathlib import Path

from bench.measure import Comparison, Finding, Omission, Way, compare
from tasks.artifacts.compress import compress
from tasks.core.events import Silent
from tasks.core.process import Runner
from tasks.core.tools import find_tool
from tasks.guest import iso
from tasks.qemu import disk
from tasks.vexfs import seed

CLASSIC = 'gzip -c "$1" > "$2" && sha256sum "$1" "$2"'


def packing(image: Path, work: Path, runner: Runner, rounds: int) -> Comparison:
    """zstd and both digests in one pass, against gzip and two runs of sha256sum."""
    # As it is before vmbake compresses its clusters: what the other way would start from.
    plain, packed, zipped = work / "plain.qcow2", work / "image.zst", work / "image.gz"
    disk.convert(runner, image, "qcow2", plain, "qcow2")
    return compare(
        f"compress + checksum {image.name}",
        Way(
            name="zstd, digests on the way",
            run=lambda: compress(plain, packed, method="zstd", reporter=Silent()),
        ),
        Way(
            name="gzip -c, 2 x sha256sum",
            run=lambda: runner.run(["sh", "-c", CLASSIC, "sh", plain, zipped]),
        ),
        rounds=rounds,
        goal=1 / 10,
        sizes=lambda: {
            "image": plain.stat().st_size,
            "zstd, digests on the way": packed.stat().st_size,
            "gzip -c, 2 x sha256sum": zipped.stat().st_size,
        },
    )


def seeding(work: Path, runner: Runner, rounds: int) -> Finding:
    """The seed in this process, against the program that others start for it."""
    keys = work / "keys"
    keys.mkdir()
    seed.make_keys(keys, runner)
    files = seed.render(variant="minimal", version="1.0.0", keys=keys, bootstrapped=True)
    paths = [work / name for name in sorted(files)]
    for path in paths:
        path.write_bytes(files[path.name])
    target = work / "seed.iso"
    command = seed_command(work / "other.iso", {path.name: path for path in paths})
    if command is None:
        return Omission(
            what="seed ISO",
            why="neither cloud-localds, genisoimage nor xorriso is installed",
        )
    return compare(
        "seed ISO",
        Way(name="pycdlib, in process", run=lambda: iso.write_seed(target, files)),
        Way(name=Path(command[0]).name, run=lambda: runner.run(command)),
        rounds=rounds,
        goal=1 / 10,
        note="the other way includes the start of its program, as a build pays for it",
    )


def seed_command(target: Path, files: dict[str, Path]) -> list[str] | None:
    """How to write the same seed with what is installed here, the most usual first."""
    user_data, meta_data = str(files["user-data"]), str(files["meta-data"])
    network = str(files["network-config"])
    if find_tool("cloud-localds"):
        return ["cloud-localds", "-N", network, str(target), user_data, meta_data]
    words = ["-quiet", "-output", str(target), "-volid", "cidata", "-joliet", "-rock"]
    words += [user_data, meta_data, network]
    if find_tool("genisoimage"):
        return ["genisoimage", *words]
    if find_tool("xorriso"):
        return ["xorriso", "-as", "genisoimage", *words]
    return None
