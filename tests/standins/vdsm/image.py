"""The stand-in's container image, assembled from Debian packages and the scripts under rootfs/.

It honours the contract of vdsm/virtual-dsm (entry scripts, environment, volume, exit statuses,
QEMU's command line) in one of two layouts, which stand for the versions up to and from 7.63.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from tasks.core.digest import digest_of, files_under
from tests.standins.vdsm.debian import CACHE, KEY_DIGITS, Recipe, unpacked
from tests.standins.vdsm.wizard import FAULTS

Layout = Literal["7.41", "7.63"]

HERE = Path(__file__).parent
FILES = HERE / "rootfs"
REPOSITORY = "vmbake-standin/vdsm"
DEBIAN_REPOSITORY = "vmbake-standin/debian"
IMPORT_TIMEOUT_S = 600
SECOND_NS = 10**9
# Those of rootfs/common/run/utils.sh, which says what they do.
CONTAINER_FAULTS = ("exit", "die-after-boot", "no-agent")

ENTRYPOINT = ["/usr/bin/tini", "-s", "/run/entry.sh"]
PORTS: Mapping[Layout, tuple[int, ...]] = {"7.41": (22, 139, 445, 5000), "7.63": (445, 5000)}
ENVIRONMENT = {"RAM_SIZE": "2G", "CPU_CORES": "2", "DISK_SIZE": "256G"}
HEALTHCHECK = {
    "Test": ["CMD-SHELL", "/run/check.sh"],
    "Interval": 60 * SECOND_NS,
    "StartPeriod": 45 * SECOND_NS,
    "Retries": 2,
}


def recipe() -> Recipe:
    """What of Debian is in the image, whatever the layout."""
    return Recipe(
        name="container",
        packages=(
            *("base-files", "bash", "busybox", "coreutils", "dash", "dnsmasq-base", "e2fsprogs"),
            *("fdisk", "findutils", "grep", "gzip", "iproute2", "iptables", "netcat-openbsd"),
            *("procps", "python3-minimal", "qemu-system-x86", "qemu-utils", "sed", "tar"),
            *("tini", "xz-utils"),
        ),
        hook=(FILES / "stage").read_text(),
    )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that makes an image: its scripts, and what the engine is told of it.

    Args:
        scripts: a tar file, to be unpacked over Debian.
        config: in the form of the engine's API.
    """

    scripts: bytes
    config: dict[str, Any]

    @property
    def key(self) -> str:
        """A digest of these and of what they are put upon."""
        scripts = hashlib.sha256(self.scripts).hexdigest()
        return digest_of([recipe().key, scripts, self.config])[:KEY_DIGITS]


def build(
    layout: Layout,
    *,
    faults: str = "",
    cache: Path = CACHE,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The reference of the image, which is made unless the engine has it already.

    Args:
        faults: words separated by commas, see rootfs/common/run/utils.sh and wizard.py; can be
            changed for a container by the variable STANDIN_FAULTS.
        cache: where the unpacked Debian is kept.
        environment: more variables for the image.

    Raises:
        ValueError: there is no such fault.
        docker.errors.DockerException: the engine can't be reached, or refused.
        CannotRun, MissingTool, CommandFailed: as debian.unpacked.
    """
    import docker

    check_faults(faults)
    variables = {**ENVIRONMENT, "STANDIN_FAULTS": faults, **(environment or {})}
    parts = Parts(scripts=scripts(layout), config=config(layout, variables))
    key = digest_of([recipe().key, hashlib.sha256(parts.scripts).hexdigest(), parts.config])[
        :KEY_DIGITS
    ]
    reference = f"{REPOSITORY}:{layout}-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    client = docker.from_env(timeout=IMPORT_TIMEOUT_S)
    try:
        with FileLock(cache / "image.lock"):
            if not has_image(client, reference):
                commit(client, debian_image(client, cache), parts, reference)
    finally:
        client.close()
    return reference


def check_faults(words: str) -> None:
    """Find a mistyped fault here and not in a guest that never comes up.

    Raises:
        ValueError: neither the container nor the guest's web server knows it.
    """
    known = {*CONTAINER_FAULTS, *FAULTS}
    for word in filter(None, words.split(",")):
        if word.partition("=")[0] not in known:
            raise ValueError(f"no fault {word!r}; there are {', '.join(sorted(known))}")


def config(layout: Layout, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the engine is told of the image (contract, 1.1)."""
    return {
        "Entrypoint": ENTRYPOINT,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "ExposedPorts": {f"{port}/tcp": {} for port in PORTS[layout]},
        "Volumes": {"/storage": {}},
        "Healthcheck": HEALTHCHECK,
    }


def scripts(layout: Layout) -> bytes:
    """A tar file of what is put over Debian; the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for folder in ("common", layout):
            for path in files_under([FILES / folder]):
                entry = tarfile.TarInfo(str(path.relative_to(FILES / folder)))
                entry.size = path.stat().st_size
                entry.mode = 0o755
                archive.addfile(entry, io.BytesIO(path.read_bytes()))
        link = tarfile.TarInfo("run/shm")
        link.type, link.linkname = tarfile.SYMTYPE, "/dev/shm"
        archive.addfile(link)
    return buffer.getvalue()


def debian_image(client: Any, cache: Path) -> str:
    """The reference of the image that both layouts stand on; imported if the engine lacks it."""
    reference = f"{DEBIAN_REPOSITORY}:{recipe().key}"
    if not has_image(client, reference):
        tar = unpacked(recipe(), cache)
        client.api.import_image_from_file(str(tar), repository=DEBIAN_REPOSITORY, tag=recipe().key)
    return reference


def commit(client: Any, base: str, parts: Parts, reference: str) -> None:
    """Make the image by a container that never runs: an engine may lack a builder."""
    repository, _, tag = reference.rpartition(":")
    container = client.containers.create(base, command=["/bin/true"])
    try:
        container.put_archive("/", parts.scripts)
        container.commit(repository, tag, conf=parts.config)
    finally:
        container.remove(force=True, v=True)


def has_image(client: Any, reference: str) -> bool:
    """Whether the engine has the image."""
    from docker.errors import ImageNotFound

    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True


def remove_images() -> list[str]:
    """Remove all images of ours that no container needs; returns their references."""
    import docker

    client = docker.from_env(timeout=IMPORT_TIMEOUT_S)
    try:
        references = [
            tag
            for repository in (REPOSITORY, DEBIAN_REPOSITORY)
            for image in client.images.list(repository)
            for tag in image.tags
            if tag.startswith(f"{repository}:")
        ]
        for reference in references:
            client.images.remove(reference)
    finally:
        client.close()
    return references
