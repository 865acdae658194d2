"""Disk images with the real qemu-img."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tasks.core.errors import BadInput, NoRoom
from tasks.core.process import Runner
from tasks.qemu import disk as images

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


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_converting_twice_gives_the_same_bytes(
    tmp_path: Path, runner: Runner, base: Path, compression: images.Compression | None
) -> None:
    targets = [tmp_path / f"{n}.qcow2" for n in range(2)]
    for target in targets:
        images.convert(runner, base, "qcow2", target, "qcow2", compression=compression)
        images.check(runner, target)
    assert targets[0].read_bytes() == targets[1].read_bytes()


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
