"""Base images: made or fetched, always `disk.qcow2` of the wanted size.

A Debian base is bootstrapped with the variant's packages in it and comes with its kernel, for a
direct boot. On any other base cloud-init installs the packages in the guest, or the native engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.artifacts.pins import FILE_NAME, Pins
from tasks.core.stage import Facts, Step
from tasks.guest import cloudconfig, debian, headers, ubuntu
from tasks.qemu import disk
from tasks.vexfs.options import CLOUD_INIT

DISK = "disk.qcow2"
KERNEL = "vmlinuz"
INITRD = "initrd.img"
HEADERS = "headers"
DEBIAN = {"debian-13": "trixie", "debian-12": "bookworm"}
FILE = "file:"
# What Ubuntu calls packages that the variants name as Debian does.
UBUNTU_NAMES = {headers.PACKAGE: "linux-headers-virtual"}


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Where bases and packages come from; "" is the usual place."""

    mirror: str
    image_mirror: str
    image_release: str
    offline: bool


def local_file(base: str, root: Path) -> Path | None:
    """The disk that `file:PATH` names; relative paths count from the checkout."""
    return root / Path(base.removeprefix(FILE)).expanduser() if base.startswith(FILE) else None


def packages_before(base: str, variant: str, engine: str) -> tuple[str, ...]:
    """The packages of a variant that are in the base already, before its first boot.

    The native engine installs them over a base that all variants share.
    """
    if base not in DEBIAN or engine == "native":
        return ()
    return cloudconfig.packages_of(CLOUD_INIT, variant)


def names_of_packages(base: str) -> dict[str, str]:
    """Debian's name to the base's own, for packages that have another one there."""
    return UBUNTU_NAMES if base.startswith("ubuntu") else {}


def names_for_kernel(kernel: str) -> dict[str, str]:
    """Other names for packages of a disk that keeps its kernel, whatever the archive has."""
    return {headers.PACKAGE: f"linux-headers-{kernel}"}


def make(
    step: Step, base: str, packages: tuple[str, ...], servers: Servers, size_bytes: int
) -> Facts:
    """Make the base in `step.out`; returns where it came from and what is in it.

    Args:
        packages: put into it, where that can be done (see `packages_before`).
    """
    if base in DEBIAN:
        return bootstrap(step, base, packages, servers, size_bytes)
    if path := local_file(base, step.site.root):
        source_sha256 = step.digests.of(path)
        return adopt(step, path, {"file": path.name, "source_sha256": source_sha256}, size_bytes)
    release = ubuntu.require_release(base, day=servers.image_release, mirror=servers.image_mirror)
    image = ubuntu.fetch_image(
        release,
        step.site.cache / "downloads",
        runner=step.runner,
        reporter=step,
        offline=servers.offline,
        pins=Pins(path=step.site.cache / FILE_NAME),
        digest_of=step.digests.of,
    )
    origin = {"release": release.name, "file": release.file, "source_sha256": image.sha256}
    return adopt(step, image.path, origin, size_bytes)


def bootstrap(
    step: Step, base: str, packages: tuple[str, ...], servers: Servers, size_bytes: int
) -> Facts:
    """A Debian base, which comes with its kernel and that kernel's headers."""
    spec = debian.DebianSpec(
        release=DEBIAN[base],
        packages=packages,
        size_bytes=size_bytes,
        mirror=servers.mirror or None,
        offline=servers.offline,
        hostname="vexfs",
    )
    made = debian.build(spec, step.out, runner=step.runner, reporter=step)
    return {
        "origin": {"release": spec.release, "made_by": "mmdebstrap"},
        "kernel": made.kernel_release,
        "root_uuid": made.root_uuid,
        "packages": made.packages,
    }


def adopt(step: Step, source: Path, origin: dict[str, str], size_bytes: int) -> Facts:
    """Any disk with cloud-init: converted, because it may be raw, and grown."""
    step.say(f"converting {source.name}")
    source_format = disk.format_of(source)
    found = disk.require_standalone(step.runner, source, source_format)
    target = step.out / DISK
    disk.convert(step.runner, source, source_format, target, "qcow2")
    if found.virtual_bytes < size_bytes:
        disk.resize(step.runner, target, "qcow2", size_bytes)
    return {"origin": origin, "kernel": "", "root_uuid": "", "packages": {}}
