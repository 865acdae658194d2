"""Registries: what goes to and comes from them, and why it did not."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CommandFailed, DownloadFailed, NoRoom, VmbakeError
from tasks.docker.failures import DISK_FULL, one_line, translated

if TYPE_CHECKING:
    from tasks.core.process import Runner
    from tasks.docker.engine import Engine, Progress

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# A registry may be silent while it puts gigabytes in order.
PUSH_TIMEOUT_S = 900.0
INDEX_TIMEOUT_S = 300.0
# The folder that --config names has no contexts.
CLI_ENVIRONMENT = {"DOCKER_CONTEXT": "default"}


class RegistryFailed(DownloadFailed):
    """A registry did not deliver an image, or did not take it."""


# What engines and registries say, why that is, and the way out. The first that fits counts.
REASONS = (
    (
        r"unauthorized|no basic auth credentials|authentication required",
        "the registry wants a login, or didn't accept the one it got",
        "docker login REGISTRY keeps one for it.",
    ),
    (
        r"denied|forbidden|insufficient_scope",
        "the registry does not allow it, or has no such image",
        "Check the image's name and the rights of the account: docker login REGISTRY.",
    ),
    (
        r"no such host|name resolution|server misbehaving",
        "there is no such host",
        "Check the registry's name in front of the first slash, and the network.",
    ),
    (
        r"x509|tls: |certificate",
        "TLS with the registry failed, perhaps because its certificate is not trusted",
        "Put its CA under /etc/docker/certs.d/REGISTRY/ca.crt.",
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "the registry speaks plain HTTP",
        "The engine allows that for registries listed as insecure-registries in its daemon.json.",
    ),
    (
        r"connection refused|no route to host|network is unreachable|i/o timeout|timeout exceeded",
        "the registry does not answer",
        "Check its name and port, and whether it runs.",
    ),
    (
        r"manifest unknown|no such manifest|not found",
        "the registry has no such image",
        "Check the image's name and tag.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a member of a multi-architecture index runs on, in the words of Go."""

    architecture: str
    os: str = "linux"
    variant: str = ""


def push(engine: Engine, reference: str, on_progress: Progress | None = None) -> str:
    """Send an image to the registry in its name; returns the digest there, `sha256:…`.

    The login is the one that `docker login` keeps.

    Args:
        on_progress: called with the bytes done and their total so far.

    Raises:
        RegistryFailed: the registry did not take it, with the reason.
        CommandFailed: there is no such image.
        EngineGone: the engine ended in the middle.
    """
    name, tag = split_reference(reference)
    with translated(f"find the image {reference}"):
        engine.api.inspect_image(f"{name}:{tag}")
    with engine.client(PUSH_TIMEOUT_S) as api, registry_trouble(f"push {reference}"):
        messages = api.push(name, tag=tag, stream=True, decode=True)
        return transfer(messages, f"push {reference}", "Pushing", on_progress)


def split_reference(reference: str) -> tuple[str, str]:
    """Name and tag of `NAME[:TAG]`, or name and digest of `NAME@sha256:…`."""
    name, at, digest = reference.partition("@")
    if at:
        return name, digest
    name, colon, tag_ = reference.rpartition(":")
    # The colon of a registry's port stands before a slash.
    if not colon or "/" in tag_:
        return reference, "latest"
    return name, tag_


def transfer(
    messages: Iterable[Mapping[str, Any]], doing: str, moving: str, on_progress: Progress | None
) -> str:
    """Follow a push or a pull to its end; returns the digest of what was sent or fetched.

    Args:
        moving: the status of a layer whose bytes are on their way.

    Raises:
        RegistryFailed: it failed, with the reason.
    """
    done: dict[str, int] = {}
    total: dict[str, int] = {}
    digest = trouble = ""
    # To the end, also after an error: only then is the connection free.
    for message in messages:
        trouble = trouble or str(message.get("error", ""))
        detail = message.get("progressDetail") or {}
        if message.get("status") == moving and detail.get("total"):
            layer = str(message["id"])
            done[layer], total[layer] = int(detail["current"]), int(detail["total"])
            if on_progress:
                on_progress(min(sum(done.values()), sum(total.values())), sum(total.values()))
        digest = digest_in(message) or digest
    if trouble:
        raise explain(trouble, doing)
    if not digest:
        raise RegistryFailed(
            f"The Docker engine did not say what came of it when it was to {doing}."
        )
    return digest


def digest_in(message: Mapping[str, Any]) -> str:
    """The digest in a message of the engine: a pull tells it as text, a push as data."""
    told = str((message.get("aux") or {}).get("Digest", ""))
    status = str(message.get("status", ""))
    if not told and status.startswith("Digest: "):
        told = status.removeprefix("Digest: ")
    return told if DIGEST.fullmatch(told) else ""


@contextlib.contextmanager
def registry_trouble(doing: str) -> Iterator[None]:
    """As `translated`, for what a registry has a part in.

    Raises:
        RegistryFailed: the engine refused, which then is about the registry.
    """
    try:
        with translated(doing):
            yield
    except CommandFailed as error:
        said = getattr(error.__cause__, "explanation", None)
        raise explain(str(said or error.what), doing) from error


def explain(text: str, doing: str) -> VmbakeError:
    """The error for what the engine says about a registry."""
    text = one_line(text)
    if DISK_FULL.search(text):
        return NoRoom(f"The Docker engine's disk is full; it could not {doing} ({text}).")
    for pattern, why, hint in REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return RegistryFailed(f"Docker could not {doing}: {why} ({text}).", hint=hint)
    return RegistryFailed(f"Docker could not {doing}: {text}.")


def push_index(
    runner: Runner,
    work: Path,
    target: str,
    members: Mapping[str, Platform],
    *,
    insecure: bool = False,
) -> str:
    """Publish one name for the images of several architectures; returns its digest.

    The images must be in the registry already, in the same repository. `docker manifest` does
    it, which needs no engine.

    Args:
        work: an empty or missing folder, for the CLI's notes.
        members: reference (`NAME:TAG` or `NAME@sha256:…`) to what it runs on.
        insecure: the registry speaks plain HTTP, or has a certificate that nobody trusts.

    Raises:
        MissingTool: there is no Docker CLI.
        RegistryFailed: the registry lacks a member, or did not take the index.
    """
    login(work)
    options = ["--insecure"] if insecure else []
    docker = ["docker", "--config", str(work), "manifest"]
    with index_trouble(f"publish {target}"):
        runner.run(
            [*docker, "create", *options, target, *members],
            env=CLI_ENVIRONMENT,
            timeout_s=INDEX_TIMEOUT_S,
        )
        for member, platform in members.items():
            runner.run(
                [*docker, "annotate", *platform_words(platform), target, member],
                env=CLI_ENVIRONMENT,
                timeout_s=INDEX_TIMEOUT_S,
            )
        said = runner.output(
            [*docker, "push", "--purge", *options, target],
            env=CLI_ENVIRONMENT,
            timeout_s=INDEX_TIMEOUT_S,
        )
    return str(DIGEST.findall(said)[-1])


def platform_words(platform: Platform) -> list[str]:
    """Options of `docker manifest annotate`."""
    words = ["--os", platform.os, "--arch", platform.architecture]
    return [*words, "--variant", platform.variant] if platform.variant else words


def login(work: Path) -> None:
    """Let the CLI use the user's logins, while it keeps its own notes in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    with contextlib.suppress(FileExistsError):
        (work / "config.json").symlink_to(folder / "config.json")


@contextlib.contextmanager
def index_trouble(doing: str) -> Iterator[None]:
    """Say what the CLI's failure was about."""
    try:
        yield
    except CommandFailed as error:
        said = error.tail[-1] if error.tail else error.what
        failure = explain(said, doing)
        failure.log, failure.tail = error.log, error.tail
        raise failure from error
