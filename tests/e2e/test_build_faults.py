"""Builds that are killed, lose QEMU or its daemon, or run out of disk, in every stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tasks.core.process import Runner
from tasks.qemu import disk
from tasks.vexfs import compiling
from tests.e2e.faults import GIB, Fault, Place
from tests.e2e.test_engines import inside
from tests.e2e.test_minimal_image import edited_sample
from tests.standins import trees
from tests.standins.file_system import FileSystem

pytestmark = pytest.mark.e2e

QEMU: Final = "qemu-system"
QSD: Final = "qemu-storage-daemon"
# In the order in which a build comes to them. Base and compilers are bootstrapped in memory;
# the store's disk fills up when they are put into it.
NATIVE = (
    Fault("killed", "vexfs.build-cloudimg", "installing essential packages"),
    Fault("store is full", "vexfs.build-cloudimg", "putting the disk together"),
    Fault("killed", "vexfs.fill", "applying the cloud-init data", QSD),
    Fault("daemon dies", "vexfs.fill", "applying the cloud-init data", QSD),
    Fault("store is full", "vexfs.fill", "applying the cloud-init data", QSD),
    Fault("killed", "vexfs.compilers", "extracting archives"),
    Fault("store is full", "vexfs.compilers", "writing the toolchain's image"),
    Fault("killed", "vexfs.compile-vexfs", "compiling natively"),
    Fault("store is full", "vexfs.compile-vexfs", "compiling natively"),
    Fault("killed", "vexfs.seal", "installing the module", QSD),
    Fault("daemon dies", "vexfs.seal", "installing the module", QSD),
    Fault("store is full", "vexfs.seal", "installing the module", QSD),
    Fault("killed", "vexfs.compress", "writing the image"),
    Fault("store is full", "vexfs.compress", "writing the image"),
    Fault("store is full", "vexfs.compress", "compressing with zstd"),
    Fault("store is full", "vexfs.checksum", ""),
    Fault("killed", "vexfs.checksum", "started"),
    Fault("killed", "vexfs.image", "publishing vexfs-minimal-1.0.0.qcow2.zst"),
    Fault("output is full", "vexfs.image", "publishing vexfs-minimal-1.0.0.qcow2.zst"),
)
# A variant that has packages of its own.
PACKAGES = (
    Fault("killed", "vexfs.packages", "installing", QSD, logged="Unpacking "),
    Fault("daemon dies", "vexfs.packages", "installing", QSD, logged="Unpacking "),
    Fault("store is full", "vexfs.packages", "installing", QSD, logged="Unpacking "),
)
# Of a base that isn't Debian's.
TOOLCHAIN = (
    Fault("killed", "vexfs.toolchain", "waiting for cloud-init", QEMU),
    Fault("QEMU dies", "vexfs.toolchain", "waiting for cloud-init", QEMU),
)
# The stages in a guest; the others are the same as above. tests/integration/test_checkpoint.py has
# the disk that is full when a machine is saved: it needs no guest of this size.
VM = (
    Fault("killed", "vexfs.boot", "waiting for cloud-init", QEMU),
    Fault("QEMU dies", "vexfs.boot", "waiting for cloud-init", QEMU),
    Fault("store is full", "vexfs.boot", "waiting for cloud-init", QEMU),
    Fault("killed", "vexfs.savevm", "saving the machine's state", QEMU),
    Fault("QEMU dies", "vexfs.savevm", "saving the machine's state", QEMU),
    Fault("killed", "vexfs.compile-vexfs", "compiling", QEMU, logged="make -C"),
    Fault("QEMU dies", "vexfs.compile-vexfs", "compiling", QEMU, logged="make -C"),
    Fault("store is full", "vexfs.compile-vexfs", "compiling", QEMU, logged="make -C"),
    Fault("killed", "vexfs.seal", "installing the module", QEMU),
    Fault("QEMU dies", "vexfs.seal", "installing the module", QEMU),
    Fault("store is full", "vexfs.seal", "installing the module", QEMU),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Store and output on file systems of their own: nothing can be renamed between them."""
    folder = tmp_path_factory.mktemp("place")
    store = FileSystem(folder / "store", 12 * GIB)
    output = FileSystem(folder / "output", 2 * GIB)
    with store.mounted(), output.mounted():
        yield Place(store=store, output=output, settings=folder / "settings.json")


def test_a_native_build_with_a_fault_in_every_stage_gets_to_its_end(
    place: Place, tmp_path: Path
) -> None:
    for fault in NATIVE:
        place.suffer(fault)
        place.check_output()
    check_what_is_damaged_is_found(place)
    damage(place.results("vexfs.compile-vexfs")[0] / "vexctl")
    damage(place.results("vexfs.compress")[0] / "image.qcow2.zst")
    _, said = place.inv("vexfs.image")
    assert "vexfs.compile-vexfs: vexctl was changed" in said
    assert "vexfs.compress: image.qcow2.zst was changed" in said
    place.check_output()
    place.check_tidy()
    # Nothing that was finished before a fault was made again, but what was damaged.
    again = {"vexfs.compile-vexfs": 2, "vexfs.compress": 2}
    assert place.done == dict.fromkeys(place.done, 1) | again
    _, said = place.inv("vexfs.image")
    assert "up to date" in said
    check_image(place, tmp_path)
    assert undisturbed(place, tmp_path) == {}


def check_what_is_damaged_is_found(place: Place) -> None:
    """By its digest, whatever it is; it would be made again, with what stands on it."""
    for stage, name in (
        ("vexfs.build-cloudimg", "disk.qcow2"),
        ("vexfs.toolchain", "toolchain.squashfs"),
        ("vexfs.seal", "machine.qcow2"),
        ("vexfs.compress", "image.qcow2"),
    ):
        (result,) = place.results(stage)
        damage(result / name)
        out, _ = place.inv("explain", "--json", "vexfs.image")
        reasons = {entry["stage"]: entry["reason"] for entry in json.loads(out)}
        # The toolchain is the same file as the compilers that it was taken over from.
        assert f"{name} was changed" in {reasons[stage], reasons["vexfs.compilers"]}
        damage(result / name)


def damage(file: Path) -> None:
    """Change a byte of a result; the second time changes it back."""
    file.chmod(0o600)
    middle = file.stat().st_size // 2
    with file.open("r+b") as stream:
        stream.seek(middle)
        byte = stream.read(1)
        stream.seek(middle)
        stream.write(bytes([byte[0] ^ 1]))


def check_image(place: Place, folder: Path) -> None:
    """The published image is sound in itself, and so is the file system in it."""
    image = place.output.folder / "vexfs-minimal-1.0.0.qcow2"
    runner = Runner(folder / "log")
    disk.check(runner, image)
    disk.require_standalone(runner, image, "qcow2")
    raw = folder / "disk.raw"
    disk.convert(runner, image, "qcow2", raw, "raw")
    table = json.loads(runner.output(["sfdisk", "--json", raw]))["partitiontable"]
    root = max(table["partitions"], key=lambda part: int(part["size"]))
    runner.run(["e2fsck", "-fn", f"{raw}?offset={root['start'] * 512}"])
    raw.unlink()


def undisturbed(place: Place, folder: Path) -> Mapping[str, object]:
    """What an image differs in that is made from the same base and toolchain without a fault."""
    one = sealed(place, folder / "suffered")
    for stage in ("vexfs.fill", "vexfs.compile-vexfs", "vexfs.seal"):
        shutil.rmtree(place.store.folder / "results" / stage)
    place.inv("vexfs.seal")
    two = sealed(place, folder / "undisturbed")
    assert (one["packages"], one["units"]) == (two["packages"], two["units"])
    return trees.compare(one["tree"], two["tree"], []).different


def sealed(place: Place, folder: Path) -> dict[str, Any]:
    """Everything in the only sealed disk that there is."""
    (result,) = place.results("vexfs.seal")
    found: dict[str, Any] = inside(result / "machine.qcow2", folder)
    assert len(found["tree"]) > 5000
    return found


def test_packages_are_installed_after_all(place: Place) -> None:
    """Before any other test makes them."""
    place.done.clear()
    for fault in PACKAGES:
        place.suffer(fault, "--variant", "production")
    place.inv("vexfs.packages", "--variant", "production")
    place.check_tidy()
    assert place.done["vexfs.packages"] == 1


def test_two_builds_of_different_variants_at_once(place: Place, tmp_path: Path) -> None:
    """They have the toolchain, the base and what is compiled in common."""
    tree = str(edited_sample(tmp_path, "MODULE_LICENSE", "static int __used two;\nMODULE_LICENSE"))
    both = [
        place.start("vexfs.image", "--variant", variant, "--source", tree)
        for variant in ("minimal", "production")
    ]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0, err
    for variant in ("minimal", "production"):
        assert (place.output.folder / f"vexfs-{variant}-1.0.0.manifest.json").exists()
    place.check_output()
    place.check_tidy()
    place.inv("cache.verify")


def test_of_a_toolchain_in_a_guest_nothing_is_left(place: Place) -> None:
    """It isn't finished here: under emulation apt takes ten minutes."""
    place.inv("vexfs.image")
    image = place.output.folder / "vexfs-minimal-1.0.0.qcow2"
    for fault in TOOLCHAIN:
        place.suffer(fault, "--engine", "vm", "--base", f"file:{image}")
    place.check_tidy()


def test_a_build_in_a_guest_with_a_fault_in_every_stage_gets_to_its_end(
    place: Place, tmp_path: Path
) -> None:
    place.done.clear()
    before = kept_objects(place)
    for fault in VM:
        place.suffer(fault, "--engine", "vm")
    place.inv("vexfs.image", "--engine", "vm")
    assert kept_objects(place) - before, "what ccache had in the guest was kept"
    place.check_output()
    place.check_tidy()
    # The guest that boots is no result: it lasts as long as its run.
    boots = place.done.pop("vexfs.boot")
    assert place.done == dict.fromkeys(place.done, 1)
    assert {fault.stage for fault in VM} <= {*place.done, "vexfs.boot"}
    assert boots == 3
    check_image(place, tmp_path)


def kept_objects(place: Place) -> set[tuple[str, int]]:
    """Name and time of the compile cache's archives of objects."""
    archives = (place.store.folder / "cache" / compiling.CACHE).glob("objects-*.tar.zst")
    return {(archive.name, archive.stat().st_mtime_ns) for archive in archives}
