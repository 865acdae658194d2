"""An image of one program, busybox, with a bit of every setting that an image can have."""

from __future__ import annotations

import io
import secrets
import tarfile
from pathlib import Path

from tasks.docker import images
from tasks.docker.engine import Engine
from tasks.docker.images import Image
from tests.standins.debs import unpack

PROGRAMS = (
    "sh",
    "cat",
    "echo",
    "head",
    "ls",
    "mkfifo",
    "nc",
    "sed",
    "sleep",
    "stat",
    "test",
    "true",
)
SETTINGS = (
    'ENV KEPT="a b" CHANGED=old',
    "EXPOSE 5000",
    "VOLUME /data",
    'ENTRYPOINT ["/bin/sh", "-c"]',
    'CMD ["echo hello"]',
    "HEALTHCHECK --interval=1h CMD true",
    "LABEL org.vmbake.test=tiny",
)


class TinyImage:
    """The image as a tar archive, and under a name of its own in an engine."""

    def __init__(self, directory: Path) -> None:
        tree = unpack(directory, "busybox-static")
        self.archive = root(next(tree.rglob("bin/busybox")).read_bytes())
        self.reference = f"vmbake-tiny-{secrets.token_hex(4)}:1"

    def import_into(self, engine: Engine, settings: tuple[str, ...] = SETTINGS) -> Image:
        """Put it into an engine."""
        name, _, tag = self.reference.partition(":")
        engine.api.import_image_from_data(
            self.archive, repository=name, tag=tag, changes=list(settings)
        )
        return images.require(engine, self.reference)

    def find_in(self, engine: Engine) -> Image:
        return images.require(engine, self.reference)

    def remove_from(self, engine: Engine) -> None:
        images.remove(engine, self.find_in(engine).id)


def root(busybox: bytes) -> bytes:
    """The archive of a root directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "data", "dev", "etc", "proc", "sys", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(busybox), 0o755
        tar.addfile(program, io.BytesIO(busybox))
        for name in PROGRAMS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()
