"""Files in and out of containers, also of those that were never started."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tasks.core.errors import CommandFailed
from tasks.docker.engine import Progress
from tasks.docker.failures import NOT_FOUND, status_of, translated

# read() is for texts and settings.
MOST_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
# The bits for folder, link, device and so on in Go's os.FileMode, which the engine's answers have.
GO_MODE_TYPE = 0x8F280000


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file to be written.

    Args:
        mode: permission bits.
        owner: user and group number in the container.
    """

    data: bytes
    mode: int = 0o644
    owner: int = 0


def read(api: Any, container: str, path: str) -> bytes | None:
    """The content of a plain file; None if there is nothing of that name.

    Raises:
        CommandFailed: it is no plain file, or bigger than MOST_BYTES.
        EngineGone: the engine does not answer.
    """
    try:
        with translated(f"read {path} of {container}"), download(api, container, path) as found:
            require_small(f"{path} of {container}", found)
            archived = b"".join(found.chunks)
    except CommandFailed as error:
        if status_of(error) == NOT_FOUND:
            return None
        raise
    with tarfile.open(fileobj=io.BytesIO(archived)) as tar:
        member = tar.next()
        stream = tar.extractfile(member) if member and member.isfile() else None
        if stream is None:
            raise CommandFailed(f"{path} of {container} is not a plain file.")
        return stream.read()


def require_small(name: str, found: Archive) -> None:
    """Check that an archive can be held in memory.

    Raises:
        CommandFailed: it can't, or its size can't be known beforehand.
    """
    if found.size_bytes is None:
        raise CommandFailed(f"{name} is not a plain file.")
    if found.size_bytes > MOST_BYTES:
        raise CommandFailed(f"{name} is too big to be read at once.")


def write(api: Any, container: str, files: Mapping[str, Content]) -> None:
    """Write files; their folders are made where they are missing.

    Raises:
        NoRoom: the engine's disk is full.
        CommandFailed: the engine refused.
        EngineGone: the engine does not answer.
    """
    for name, content in files.items():
        path = PurePosixPath(name)
        entry = tarfile.TarInfo(path.name)
        entry.size, entry.mode = len(content.data), content.mode
        entry.uid = entry.gid = content.owner
        make_folder(api, container, path.parent)
        with translated(f"write {name} of {container}"):
            api.put_archive(container, str(path.parent), archive([(entry, content.data)]))


def copy(
    api: Any, source: str, target: str, path: str, on_progress: Progress | None = None
) -> None:
    """Copy a file, or a folder with all in it, to the same place in another container.

    It goes from one connection to the other as it comes: neither memory nor this machine's disk
    holds it. Owners, modes, times and links are kept; holes in files are filled.

    Args:
        on_progress: called with the bytes done, and with all of them if `path` is a file.

    Raises:
        CommandFailed: there is no such path in the source, or the engine refused.
        NoRoom: the engine's disk is full.
        EngineGone: the engine does not answer.
    """
    parent = PurePosixPath(path).parent
    make_folder(api, target, parent)
    with (
        translated(f"copy {path} from {source} to {target}"),
        download(api, source, path) as found,
    ):
        api.put_archive(target, str(parent), counted(found, on_progress))


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A tar archive on its way from the engine.

    Args:
        size_bytes: of the plain file in it; None for all else.
    """

    size_bytes: int | None
    chunks: Iterator[bytes]


@contextlib.contextmanager
def download(api: Any, container: str, path: str) -> Iterator[Archive]:
    """A file or folder as an archive. However the block is left, the engine is told.

    The SDK's own get_archive can't be given up: until all of it is read, the engine keeps the
    container locked, and nobody can even remove it.

    Raises:
        docker.errors.APIError: there is no such path.
    """
    from docker.errors import create_api_error_from_http_exception

    url = f"{api.base_url}/v{api.api_version}/containers/{container}/archive"
    with api.get(
        url,
        params={"path": path},
        headers={"Accept-Encoding": "identity"},  # to compress it would cost most of the time
        stream=True,
        timeout=api.timeout,
    ) as response:
        try:
            response.raise_for_status()
        except OSError as error:
            create_api_error_from_http_exception(error)
        stat = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))
        yield Archive(
            size_bytes=None if stat["mode"] & GO_MODE_TYPE else int(stat["size"]),
            chunks=response.iter_content(CHUNK_BYTES),
        )


def counted(found: Archive, on_progress: Progress | None) -> Iterator[bytes]:
    """The chunks of an archive, with word of how many bytes have gone by."""
    done_bytes, total_bytes = 0, found.size_bytes
    for chunk in found.chunks:
        yield chunk
        done_bytes += len(chunk)
        if on_progress:
            # The archive around a file is a bit bigger than the file.
            done_of_it = done_bytes if total_bytes is None else min(done_bytes, total_bytes)
            on_progress(done_of_it, total_bytes)


def make_folder(api: Any, container: str, path: PurePosixPath) -> None:
    """Have a folder in a container, made for all to read if it is missing.

    Raises: as `write`.
    """
    if is_folder(api, container, path):
        return
    make_folder(api, container, path.parent)
    entry = tarfile.TarInfo(path.name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    with translated(f"make {path} in {container}"):
        api.put_archive(container, str(path.parent), archive([(entry, b"")]))


def is_folder(api: Any, container: str, path: PurePosixPath) -> bool:
    """Whether a folder is there: the engine unpacks nothing into it, which changes nothing.

    Raises: as `write`.
    """
    try:
        with translated(f"look for {path} in {container}"):
            api.put_archive(container, str(path), archive([]))
    except CommandFailed as error:
        if status_of(error) == NOT_FOUND:
            return False
        raise
    return True


def archive(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive; its times are zero, so that the same files are the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, data in entries:
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
