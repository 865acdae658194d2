"""Disk images with the real qemu-img."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from tasks.core.errors import BadInput, NoRoom
from tasks.core.process import Runner
from tasks.qemu import disk as images
from tasks.qemu import qcow2

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "stage.log", timeout_s=60)


@pytest.fixture
def base(tmp_path: Path, runner: Runner) -> Path:
    raw = tmp_path / "base.raw"
    pattern = b"".join(hashlib.sha256(bytes([n % 256, n >> 8])).digest() for n in range(4096))
    raw.write_bytes((pattern * 16)[: 2 * MIB].ljust(8 * MIB, b"\0"))
    path = tmp_path / "store" / "one" / "base.qcow2"
    path.parent.mkdir(parents=True)
    images.convert(runner, raw, "raw", path, "qcow2")
    return path


def test_an_overlay_moves_with_its_store(tmp_path: Path, runner: Runner, base: Path) -> None:
    overlay = tmp_path / "store" / "two.part" / "disk.qcow2"
    overlay.parent.mkdir()
    images.create_overlay(
        runner, overlay, backing=base, backing_format="qcow2", size_bytes=16 * MIB
    )
    overlay.parent.rename(tmp_path / "store" / "two")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "two" / "disk.qcow2"
    found = images.info(runner, moved, "qcow2")
    assert (found.virtual_bytes, found.backing) == (16 * MIB, "../one/base.qcow2")
    images.convert(runner, moved, "qcow2", tmp_path / "flat.raw", "raw")
    assert (tmp_path / "flat.raw").stat().st_size == 16 * MIB


def test_what_lies_between_is_absorbed(tmp_path: Path, runner: Runner, base: Path) -> None:
    other = tmp_path / "other.raw"
    other.write_bytes(b"\0" * MIB + b"between" * 1000 + b"\0" * (7 * MIB - 7000))
    between, overlay = tmp_path / "between.qcow2", tmp_path / "top.qcow2"
    # With a backing file given, only what differs from it is written.
    words = ("-f", "raw", "-O", "qcow2", "-B", base, "-F", "qcow2")
    runner.run(["qemu-img", "convert", *words, other, between])
    images.create_overlay(runner, overlay, backing=between, backing_format="qcow2")
    images.absorb(runner, overlay, down_to=base, backing_format="qcow2")
    between.unlink()
    assert images.info(runner, overlay, "qcow2").backing == "./store/one/base.qcow2"
    flat = tmp_path / "flat.raw"
    images.convert(runner, overlay, "qcow2", flat, "raw")
    assert flat.read_bytes() == other.read_bytes()


def test_an_overlay_that_moved_alone_is_rebased(tmp_path: Path, runner: Runner, base: Path) -> None:
    overlay = tmp_path / "disk.qcow2"
    images.create_overlay(runner, overlay, backing=base, backing_format="qcow2")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    moved = overlay.rename(tmp_path / "deep" / "er" / "disk.qcow2")
    with pytest.raises(BadInput, match=r"base\.qcow2.*No such file"):
        images.convert(runner, moved, "qcow2", tmp_path / "x.raw", "raw")
    images.rebase(runner, moved, backing=base, backing_format="qcow2")
    images.convert(runner, moved, "qcow2", tmp_path / "x.raw", "raw")


def test_converting_twice_gives_the_same_bytes(tmp_path: Path, runner: Runner, base: Path) -> None:
    targets = [tmp_path / f"{n}.qcow2" for n in range(2)]
    for target in targets:
        images.convert(runner, base, "qcow2", target, "qcow2")
        images.check(runner, target)
    assert targets[0].read_bytes() == targets[1].read_bytes()


def test_a_chain_is_compacted(tmp_path: Path, runner: Runner, base: Path) -> None:
    """Whatever QEMU reads in the chain it reads in what is made of it, by however many threads."""
    overlay = tmp_path / "top.qcow2"
    images.create_overlay(
        runner, overlay, backing=base, backing_format="qcow2", size_bytes=70 * MIB
    )
    # Over what is below, where nothing is, zeros over data, and into the last cluster.
    writes = ("-P 7 100k 300k", "-P 8 66M 5k", "-z 1M 128k", "-P 9 71675k 5k")
    runner.run(
        ["qemu-io", *(word for write in writes for word in ("-c", f"write {write}")), overlay]
    )
    targets = {threads: tmp_path / f"{threads}.qcow2" for threads in (1, 2, 5)}
    for threads, target in targets.items():
        assert images.compact(runner, overlay, "qcow2", target, threads=threads) == 70 * MIB
        images.check(runner, target)
        runner.run(["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", overlay, target])
        assert target.read_bytes() == targets[1].read_bytes()
    images.require_standalone(runner, targets[1], "qcow2")
    # Those of the base but two, and two more.
    told = json.loads(runner.output(["qemu-img", "check", "--output=json", targets[1]]))
    assert told["allocated-clusters"] == 32 - 2 + 2


def test_what_does_not_compress_stays_as_it_is(tmp_path: Path, runner: Runner) -> None:
    """Many sizes, so that packed clusters end everywhere; a raw disk that ends within a cluster."""
    raw, target = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    dice = random.Random(5)
    raw.write_bytes(
        b"".join(
            dice.randbytes(length) + bytes([value]) * (64 * 1024 - length)
            for value, length in enumerate([0, 1, 64 * 1024, 1000, 65535, 0, 40000] * 20)
        )
        + b"the end".ljust(512, b"!")
    )
    images.compact(runner, raw, "raw", target, threads=2)
    images.check(runner, target)
    runner.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, target])
    told = json.loads(runner.output(["qemu-img", "check", "--output=json", target]))
    # Zeros; what is random to the last byte but one is stored as it is, too.
    assert told["allocated-clusters"] == 140 - 1 + 1
    assert told["compressed-clusters"] == 140 - 1 + 1 - 2 * 20


@pytest.mark.parametrize("size", [512, (4 << 40) + 512], ids=["a sector", "over 4 TiB"])
def test_small_and_large_disks_are_compacted(tmp_path: Path, runner: Runner, size: int) -> None:
    """The largest needs more than one cluster for its table of tables."""
    raw, target = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    with raw.open("wb") as stream:
        stream.truncate(size)
        stream.seek(size - 512)
        stream.write(b"end".ljust(512, b"."))
    images.compact(runner, raw, "raw", target, threads=2)
    images.check(runner, target)
    runner.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, target])


def test_more_clusters_than_one_block_counts(tmp_path: Path, runner: Runner) -> None:
    """2 GiB that can't be compressed; the same piece again and again."""
    piece, target = tmp_path / "piece", tmp_path / "disk.qcow2"
    piece.write_bytes(random.Random(5).randbytes(MIB))
    extents = [qcow2.Extent(start=n * MIB, length=MIB, file=piece, offset=0) for n in range(2049)]
    qcow2.write(extents, 2049 * MIB, target, threads=2)
    images.check(runner, target)
    assert target.stat().st_size > qcow2.REFCOUNTS * qcow2.CLUSTER
    target.unlink()


def test_an_image_without_its_plain_content_is_no_source(tmp_path: Path, runner: Runner) -> None:
    packed, target = tmp_path / "packed.qcow2", tmp_path / "again.qcow2"
    runner.run(["qemu-img", "create", "-q", "-f", "qcow2", packed, "1M"])
    runner.run(["qemu-io", "-c", "write -c -P 7 0 64k", packed])
    elsewhere = tmp_path / "elsewhere.qcow2"
    file = f"data_file={tmp_path / 'data.raw'}"
    runner.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", file, elsewhere, "1M"])
    runner.run(["qemu-io", "-c", "write -P 7 0 64k", elsewhere])
    for source in (packed, elsewhere):
        with pytest.raises(ValueError, match="not all of its content"):
            images.compact(runner, source, "qcow2", target, threads=2)
    assert not target.exists()


def test_a_disk_grows_and_does_not_shrink(runner: Runner, base: Path) -> None:
    images.resize(runner, base, "qcow2", 32 * MIB)
    assert images.info(runner, base, "qcow2").virtual_bytes == 32 * MIB
    with pytest.raises(BadInput, match=r"[Ss]hrink"):
        images.resize(runner, base, "qcow2", 8 * MIB)


def test_a_truncated_or_corrupted_image_is_found(runner: Runner, base: Path) -> None:
    data = bytearray(base.read_bytes())
    # The first L1 entry points beyond the end of the file (qcow2 specification, "l1_table_offset").
    l1 = int.from_bytes(data[40:48], "big")
    data[l1 : l1 + 8] = ((1 << 63) | (1 << 40)).to_bytes(8, "big")
    base.write_bytes(data)
    with pytest.raises(BadInput, match="not usable"):
        images.check(runner, base)


def test_what_is_no_image_is_named(tmp_path: Path, runner: Runner) -> None:
    page = tmp_path / "image.qcow2"
    page.write_text("<html>404</html>")
    with pytest.raises(BadInput, match="a web page"):
        images.format_of(page)
    with pytest.raises(BadInput, match=r"not usable: .*qcow2"):
        images.info(runner, page, "qcow2")
    with pytest.raises(BadInput, match="No such file"):
        images.format_of(tmp_path / "nothing")
    page.write_bytes(bytes(1024))
    with pytest.raises(BadInput, match="no disk image"):
        images.format_of(page)
    page.write_bytes(bytes(510) + b"\x55\xaa")
    assert images.format_of(page) == "raw"


def test_a_missing_backing_file_is_named(tmp_path: Path, runner: Runner) -> None:
    with pytest.raises(BadInput, match=r"gone\.qcow2"):
        images.create_overlay(
            runner, tmp_path / "x", backing=tmp_path / "gone.qcow2", backing_format="qcow2"
        )


def test_a_foreign_image_leads_to_no_other_file(tmp_path: Path, runner: Runner, base: Path) -> None:
    assert images.require_standalone(runner, base, "qcow2").backing is None
    overlay = tmp_path / "overlay.qcow2"
    images.create_overlay(runner, overlay, backing=base, backing_format="qcow2")
    with pytest.raises(BadInput, match="backing file"):
        images.require_standalone(runner, overlay, "qcow2")
    encrypted = tmp_path / "encrypted.qcow2"
    # Not LUKS: making one measures this machine's speed, and fails on a noisy one.
    secret = ("--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s")
    runner.run(("qemu-img", "create", "-q", "-f", "qcow2", *secret, encrypted, "1M"))
    with pytest.raises(BadInput, match="encrypted"):
        images.require_standalone(runner, encrypted, "qcow2")


def test_too_little_room_is_seen_before_the_start(
    tmp_path: Path, runner: Runner, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(NoRoom, match=r"0\.0 GB free"):
        images.convert(runner, base, "qcow2", tmp_path / "x", "raw")


def test_a_disk_that_fills_up_leaves_no_half_image(
    tmp_path: Path, runner: Runner, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A qemu-img that meets a full disk: these are its words there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "qemu-img"
    fake.write_text(
        "#!/bin/sh\n"
        '[ "$1" = convert ] || exec /usr/bin/qemu-img "$@"\n'
        'for target; do :; done\necho half > "$target"\n'
        "echo 'qemu-img: error while writing at byte 0: No space left on device' >&2\nexit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    target = tmp_path / "x.raw"
    with pytest.raises(NoRoom, match="No space left on device"):
        images.convert(runner, base, "qcow2", target, "raw")
    assert not target.exists()
