"""A small pipeline's result, for trying what vouches for it: two images, one validated."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, TypedDict

import zstandard
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tasks.artifacts import checks
from tasks.attest import collection, images
from tasks.attest.build import Build, Variant
from tasks.attest.signing import PrivateKey

KERNEL = "6.12.1-cloud-amd64"
DPKG_STATUS = f"""\
Package: base-files
Essential: yes
Status: install ok installed
Priority: required
Section: admin
Maintainer: Santiago Vila <sanvila@debian.org>
Architecture: amd64
Version: 13.8+deb13u8
Provides: base
Description: Debian base system miscellaneous files

Package: dpkg
Status: install ok installed
Maintainer: Dpkg Developers <debian-dpkg@lists.debian.org>
Architecture: amd64
Version: 1.22.22
Depends: tar (>= 1.28-1), base
Description: Debian package management system

Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc
Version: 2.41-12
Description: GNU C Library: Shared libraries

Package: linux-image-{KERNEL}
Status: install ok installed
Maintainer: Debian Kernel Team <debian-kernel@lists.debian.org>
Architecture: amd64
Source: linux-signed-amd64 (6.12.1+1)
Version: 6.12.1-1
Depends: libc6
Description: Linux 6.12 for cloud

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""
CARGO_LOCK = """\
version = 3

[[package]]
name = "libc"
version = "0.2.170"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "875b3680cb2f8f71bdcf9a30f38d48282f5d3c95cbf9b3fa57269bb5d5c06828"

[[package]]
name = "vexctl"
version = "1.0.0"
dependencies = [
 "libc",
]
"""
BUILD = Build(
    builder="https://ci.example/workflows/images",
    invocation="https://ci.example/runs/7",
    number="7",
    commit="0123456789abcdef0123456789abcdef01234567",
    repository="https://ci.example/vmbake.git",
    started="2026-01-01T00:00:00Z",
    finished="2026-01-01T00:10:00Z",
    versions={"vmbake": "0.1.0"},
    variants=(
        Variant(
            name="vexfs-minimal-1.0.0",
            outcome="passed",
            files=("vexfs-minimal-1.0.0.qcow2", "vexfs-minimal-1.0.0.qcow2.zst"),
        ),
        Variant(
            name="vexfs-production-1.0.0",
            outcome="built",
            files=("vexfs-production-1.0.0.qcow2", "vexfs-production-1.0.0.qcow2.zst"),
        ),
        Variant(name="vexfs-development-1.0.0", outcome="failed", reason="It did not compile."),
    ),
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest_of(variant: str, files: dict[str, bytes]) -> dict[str, Any]:
    """A manifest as tasks/vexfs/manifest.py composes it."""
    return {
        "format": 1,
        "name": "vexfs",
        "version": "1.0.0",
        "variant": variant,
        "base": {"name": "debian-13", "release": "trixie", "sha256": sha256(b"base")},
        "kernel": KERNEL,
        "module": {
            "file": "vexfs.ko",
            "sha256": sha256(b"module"),
            "license": "GPL",
            "vermagic": f"{KERNEL} SMP",
        },
        "tool": {
            "file": "vexctl",
            "sha256": sha256(b"tool"),
            "licenses": {"vexctl": "GPL-2.0-only"},
            "version": "vexctl 1.0.0",
        },
        "source": {"files": 11, "layout": "vm-build", "sha256": sha256(b"source")},
        "packages": {
            "base-files": "13.8+deb13u8",
            "dpkg": "1.22.22",
            "libc6:amd64": "2.41-12",
            f"linux-image-{KERNEL}": "6.12.1-1",
        },
        "artifacts": {
            name: {"sha256": sha256(content), "size_bytes": len(content)}
            for name, content in files.items()
        },
        "virtual_size_bytes": 10 << 30,
        "stages": {
            "seal": {
                "seconds": 60.5,
                "finished": "2026-01-01T01:02:03.456789+01:00",
                "fingerprint": sha256(b"fingerprint"),
            },
        },
        "tools": {"qemu-img": "qemu-img version 7.2.22"},
    }


def write_image(directory: Path, variant: str) -> Path:
    """The files of an image as `inv vexfs.image` leaves them; returns its manifest's path."""
    stem = f"vexfs-{variant}-1.0.0"
    content = f"image of {variant}".encode()
    files = {f"{stem}.qcow2": content, f"{stem}.qcow2.zst": zstandard.compress(content)}
    for name, content in files.items():
        (directory / name).write_bytes(content)
        (directory / f"{name}.sha256").write_text(f"{sha256(content)}  {name}\n")
    path = directory / f"{stem}.manifest.json"
    path.write_text(json.dumps(manifest_of(variant, files), indent=1) + "\n")
    return path


class Inputs(TypedDict):
    """What stages leave for the bills of materials."""

    dpkg_status: Path
    cargo_lock: Path


def write_inputs(folder: Path) -> Inputs:
    """What stages leave for the bills of materials."""
    folder.mkdir(exist_ok=True)
    (folder / "dpkg-status").write_text(DPKG_STATUS)
    (folder / "Cargo.lock").write_text(CARGO_LOCK)
    return {"dpkg_status": folder / "dpkg-status", "cargo_lock": folder / "Cargo.lock"}


def validation(directory: Path, variant: str, *outcomes: checks.Outcome) -> checks.Validation:
    """What was found out about an image, one check for each outcome."""
    name = f"vexfs-{variant}-1.0.0.qcow2"
    content = (directory / name).read_bytes()
    return checks.Validation(
        image=name,
        sha256=sha256(content),
        size_bytes=len(content),
        variant=variant,
        version="1.0.0",
        accel="tcg",
        firmware="bios",
        started="2026-01-01T00:05:00Z",
        seconds=70.0,
        checks=tuple(
            checks.Check(
                group="boot", name=f"{outcome}-{n}", command="true", expected="0", outcome=outcome
            )
            for n, outcome in enumerate(outcomes)
        ),
    )


def write_result(directory: Path, inputs: Inputs, key: PrivateKey | None) -> None:
    """A pipeline's whole result, sealed."""
    directory.mkdir()
    for variant in ("minimal", "production"):
        images.attest_image(write_image(directory, variant), BUILD, key=key, **inputs)
    (directory / "validation").mkdir()
    record = directory / "validation" / "vexfs-minimal-1.0.0.json"
    checks.write(validation(directory, "minimal", "passed", "skipped"), record)
    images.attest_validation(record, key=key)
    (directory / "logs").mkdir()
    (directory / "logs" / "vexfs.seal.log").write_text("# $ true\n")
    (directory / "report.html").write_text("<!doctype html>\n")
    collection.seal(directory, BUILD, key=key)


@functools.cache
def private_pem(kind: str, passphrase: str = "") -> bytes:
    """A new private key, the same for all who ask."""
    match kind:
        case "ed25519":
            key: Any = ed25519.Ed25519PrivateKey.generate()
        case "ecdsa":
            key = ec.generate_private_key(ec.SECP256R1())
        case "p384":
            key = ec.generate_private_key(ec.SECP384R1())
        case "k1":
            key = ec.generate_private_key(ec.SECP256K1())
        case "rsa":
            key = rsa.generate_private_key(65537, 2048)
        case "short rsa":
            key = rsa.generate_private_key(65537, 1024)
    lock = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))


def write_keys(folder: Path, kind: str, passphrase: str = "", name: str = "") -> tuple[Path, Path]:
    """A pair of key files: the private one, the public one."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = private_pem(kind, passphrase)
    private, public = (
        folder / f"{name or kind}{'-locked' if passphrase else ''}{end}"
        for end in (".pem", ".pub.pem")
    )
    private.write_bytes(pem)
    loaded = load_pem_private_key(pem, passphrase.encode() or None)
    public.write_bytes(
        loaded.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public
