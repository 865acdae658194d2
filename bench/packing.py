"""Compressing an image with its checksums, and writing a seed."""

from __future__ import annotations

import contextlib
import tarfile
from dataclasses import replace
from pathlib import Path

from bench.measure import Comparison, Finding, Omission, Way, compare
from tasks.artifacts.compress import compress
from tasks.core.capacity import core_count
from tasks.core.events import Silent
from tasks.core.process import Runner
from tasks.core.tools import find_tool
from tasks.guest import iso
from tasks.qemu import disk
from tasks.vexfs import seed

# What the classic pipeline's image has.
BULK_BYTES = 2_570_000_000
TREE = Path("/usr")
SEED = "seed ISO"
MUCH = "compress + checksum a large file"
CLASSIC = 'gzip -c "$1" > "$2" && sha256sum "$1" "$2"'


def packing(image: Path, work: Path, runner: Runner, rounds: int) -> Comparison:
    """zstd and both digests in one pass, against gzip and two runs of sha256sum."""
    # As it is before vmbake compresses its clusters: what the other way would start from.
    plain = work / "plain.qcow2"
    disk.convert(runner, image, "qcow2", plain, "qcow2")
    return both_ways(f"compress + checksum {image.name}", plain, work, runner, rounds)


def packing_much(work: Path, runner: Runner, rounds: int) -> Comparison:
    """The same with as much as a large image has: what a system consists of, in one file.

    There is no uncounted run of either: it takes minutes, and what was just written is in the page
    cache as far as it fits.
    """
    bulk = work / "system.tar"
    with tarfile.open(bulk, "w") as archive:
        for path in sorted(TREE.rglob("*")):
            if path.is_file() and not path.is_symlink():
                # Others may install or remove something meanwhile.
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    archive.add(path)
            if archive.offset > BULK_BYTES:
                break
    found = both_ways(MUCH, bulk, work, runner, rounds, warm_up=False)
    bulk.unlink()
    return replace(found, note=f"{archive.offset / 1e9:.2f} GB of this machine's /usr")


def both_ways(
    what: str, plain: Path, work: Path, runner: Runner, rounds: int, *, warm_up: bool = True
) -> Comparison:
    """The comparison for one file."""
    packed, zipped = work / "packed.zst", work / "packed.gz"
    ours, theirs = "zstd, digests on the way", "gzip -c, 2 x sha256sum"
    classic: list[str | Path] = ["sh", "-c", CLASSIC, "sh", plain, zipped]
    return compare(
        what,
        Way(
            name=ours,
            run=lambda: compress(
                plain, packed, method="zstd", reporter=Silent(), threads=core_count()
            ),
        ),
        Way(name=theirs, run=lambda: runner.run(classic)),
        rounds=rounds,
        warm_up=warm_up,
        goal=1 / 10,
        sizes=lambda: {
            "image": plain.stat().st_size,
            ours: packed.stat().st_size,
            theirs: zipped.stat().st_size,
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
            what=SEED,
            why="neither cloud-localds, genisoimage nor xorriso is installed",
        )
    return compare(
        SEED,
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
