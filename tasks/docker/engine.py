"""The connection to a Docker engine: found, checked, and closed again."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tasks.core.errors import BadInput, CannotRun
from tasks.docker.failures import EngineGone, one_line, translated

# Docker 20.10, the engine of Debian 12: the oldest one that this layer is tested with.
OLDEST_API = (1, 41)
OLDEST_ENGINE = "20.10"
REPLY_TIMEOUT_S = 60.0

# Told of a transfer: bytes done, and their total if it is known.
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What an engine says of itself.

    Args:
        cores, memory_bytes: of the machine that it runs on.
        root: where it keeps images and containers on that machine.
        free_bytes: room in there; None if that is not this machine.
        architecture: as in images: amd64, arm64.
    """

    version: str
    cores: int
    memory_bytes: int
    root: str
    free_bytes: int | None
    architecture: str


class Engine:
    """A connection to an engine; made by `connect`. Leaving the block closes it.

    Args:
        address: where it listens, as in DOCKER_HOST.
        api: the SDK's low-level client, whose calls belong into `translated`.
    """

    def __init__(self, address: str, settings: Mapping[str, Any], timeout_s: float) -> None:
        self.address = address
        self._settings = settings
        self.api = self._client(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; harmless when repeated."""
        self.api.close()

    @functools.cached_property
    def id(self) -> str:
        """The engine's own mark, which survives restarts.

        Raises:
            EngineGone: it does not answer any more.
        """
        with translated("say who it is"):
            return str(self.api.info()["ID"])

    @property
    def facts(self) -> EngineFacts:
        """What it is and has now.

        Raises:
            EngineGone: it does not answer any more.
        """
        with translated("describe itself"):
            info, version = self.api.info(), self.api.version()
        root = str(info["DockerRootDir"])
        return EngineFacts(
            version=str(version["Version"]),
            cores=int(info["NCPU"]),
            memory_bytes=int(info["MemTotal"]),
            root=root,
            free_bytes=free_bytes(root) if self._is_here(info) else None,
            architecture=str(version["Arch"]),
        )

    @contextlib.contextmanager
    def client(self, timeout_s: float) -> Iterator[Any]:
        """A second low-level client, for a thread of its own or for what takes longer.

        Args:
            timeout_s: how long a single answer may take.
        """
        api = self._client(timeout_s)
        try:
            yield api
        finally:
            api.close()

    def _client(self, timeout_s: float) -> Any:
        from docker import APIClient

        return APIClient(timeout=timeout_s, **self._settings)

    def _is_here(self, info: Mapping[str, Any]) -> bool:
        # Behind a unix socket, too, may be a VM (Docker Desktop, colima) or the host of the
        # container that this runs in.
        return self.address.startswith("unix://") and info["Name"] == platform.node()


def connect(timeout_s: float = REPLY_TIMEOUT_S) -> Engine:
    """Connect to the engine that `docker` would use: DOCKER_HOST, DOCKER_CONTEXT, or the default.

    Args:
        timeout_s: how long a single answer may take; what is known to take longer has its own.

    Raises:
        CannotRun: there is no engine, or it is too old, or we may not use it.
        BadInput: DOCKER_HOST or the Docker context makes no sense.
        TimedOut: it does not answer.
    """
    settings = settings_by_environment()
    address = str(settings["base_url"])
    require_socket(address, timeout_s)
    return Engine(address, {**settings, "version": version_to_speak(address, timeout_s)}, timeout_s)


@functools.cache
def version_to_speak(address: str, timeout_s: float) -> str:
    """As `negotiate`; a run has a dozen connections, and an engine that answered is asked once."""
    return negotiate(address, settings_by_environment(), timeout_s)


def settings_by_environment() -> dict[str, Any]:
    """The SDK's arguments for the engine that the environment names.

    Raises:
        BadInput: what it names makes no sense.
    """
    from docker.context import ContextAPI
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env, parse_host

    try:
        settings: dict[str, Any] = kwargs_from_env()
        if "base_url" not in settings:
            settings = {**ContextAPI.kwargs_from_context(), **settings}
        if "base_url" not in settings:
            raise BadInput(
                f"There is no Docker context {os.environ.get('DOCKER_CONTEXT', '')!r}.",
                hint="docker context ls lists those that there are.",
            )
        parse_host(settings["base_url"])
    except DockerException as error:
        raise BadInput(
            f"The address of the Docker engine can't be used: {one_line(str(error))}.",
            hint="Set DOCKER_HOST to something like unix:///var/run/docker.sock, or not at all.",
        ) from error
    return settings


def negotiate(address: str, settings: Mapping[str, Any], timeout_s: float) -> str:
    """The version of the API to speak: the engine's newest, but none that the SDK doesn't know.

    Raises: as `connect`.
    """
    from docker import APIClient
    from docker.constants import DEFAULT_DOCKER_API_VERSION

    try:
        with translated("say its version"):
            # Naming any version keeps the SDK from asking by itself, which hides what went wrong.
            api = APIClient(version=dotted(OLDEST_API), timeout=timeout_s, **settings)
            with contextlib.closing(api):
                versions = api.version(api_version=False)
    except EngineGone as error:
        raise no_engine(address, str(error.__cause__)) from error
    newest, oldest = numbers(versions["ApiVersion"]), numbers(versions.get("MinAPIVersion", "1.0"))
    if newest < OLDEST_API:
        raise CannotRun(
            f"The Docker engine at {address} is version {versions['Version']}; at least "
            f"{OLDEST_ENGINE} is needed.",
            hint="Update it.",
        )
    return dotted(max(oldest, min(newest, numbers(DEFAULT_DOCKER_API_VERSION))))


def require_socket(address: str, timeout_s: float) -> None:
    """Look whether an engine listens at a unix socket; the kernel says best why not.

    Raises:
        CannotRun: none does, or we may not talk to it.
    """
    from docker.utils import parse_host

    path = parse_host(address).removeprefix("http+unix://")
    if not path.startswith("/"):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(path)
        except PermissionError as error:
            user = os.environ.get("USER", "$USER")
            raise CannotRun(
                f"You may not use the Docker engine at {address} (permission denied).",
                hint="Join its group and log in again, or use sudo: "
                f"sudo usermod -aG docker {user}",
            ) from error
        except OSError as error:
            raise no_engine(address, error.strerror or str(error)) from error


def no_engine(address: str, why: str) -> CannotRun:
    """The error for an engine that doesn't answer."""
    return CannotRun(
        f"No Docker engine answers at {address} ({one_line(why)}).", hint=how_to_start(os.environ)
    )


def how_to_start(environment: Mapping[str, str]) -> str:
    """What to do when no engine runs."""
    if environment.get("DOCKER_HOST"):
        return "DOCKER_HOST names it: is that right, and does it run there?"
    if sys.platform == "darwin":
        return "Start Docker Desktop, or colima start."
    if Path("/run/systemd/system").is_dir():  # sd_booted(3)
        return "Start it: sudo systemctl start docker"
    return "Start it: there is no service manager here, so by hand: sudo dockerd &"


def free_bytes(directory: str) -> int | None:
    """Free room on the file system of a directory; None if it can't be looked at."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(directory).free
    return None


def numbers(version: str) -> tuple[int, ...]:
    """A dotted version for comparing."""
    return tuple(int(part) for part in version.split("."))


def dotted(version: tuple[int, ...]) -> str:
    """The inverse of `numbers`."""
    return ".".join(map(str, version))
