"""Ubuntu's official cloud images, out of a dated release whose signed list gives the digest."""

from __future__ import annotations

import datetime as dt
import difflib
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.artifacts.download import Download, Fetched, Patience, fetch, scheme_of
from tasks.artifacts.pins import Pins
from tasks.core.digest import sha256_of
from tasks.core.errors import BadInput, VerificationFailed
from tasks.core.events import Reporter
from tasks.core.process import Runner
from tasks.guest.signature import Signature, verify_signature

HERE = Path(__file__).parent
BASES = HERE / "bases.toml"
KIND = "ubuntu-cloud-image"
SUMS = "SHA256SUMS"
MOST_SUMS_BYTES = 1 << 20
# sha256sum's output, in text ("  ") or binary (" *") mode, for a plain file name.
SUMS_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64}) [ *](?P<name>[A-Za-z0-9][A-Za-z0-9._+~-]*)")
# A release is signed on its day or later; time zones may make that the day before.
DAY_SLACK = dt.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Release:
    """One dated release of one base image.

    Args:
        base: the name that users give, `ubuntu-24.04`.
        day: the date in the directory's name.
        file: the image's name in it.
        folders: the directory's URL on each mirror, in order of preference.
        sha256: the image's digest if the project pins it for this release.
        keyring: the keys that may be there; `signers`: the fingerprints that count.
    """

    base: str
    day: dt.date
    file: str
    folders: tuple[str, ...] = field(repr=False)
    sha256: str | None
    keyring: Path
    signers: frozenset[str]

    @property
    def name(self) -> str:
        """The directory's name."""
        return f"release-{self.day:%Y%m%d}"

    def urls(self, file: str) -> tuple[str, ...]:
        """Where a file of this release can be had."""
        return tuple(f"{folder}/{file}" for folder in self.folders)


@dataclass(frozen=True, kw_only=True)
class Image:
    """A base image on disk, with what vouches for it."""

    path: Path
    size_bytes: int
    sha256: str
    release: Release
    signature: Signature


def require_release(base: str, *, day: str = "", mirror: str = "", bases: Path = BASES) -> Release:
    """The release that a base name stands for.

    Args:
        day: another dated release than the project's, as YYYYMMDD.
        mirror: a URL to use instead of the project's. It replaces everything before
            `/SERIES/release-YYYYMMDD`, or is a template with {series} and {release}.

    Raises:
        BadInput: no such base; or the day or the mirror is not usable.
    """
    table = ubuntu_table(base, bases)
    known_day = str(table["release"])
    day = day.removeprefix("release-") or known_day
    templates = [mirror_template(mirror)] if mirror else table["mirrors"]
    return Release(
        base=base,
        day=parse_day(day),
        file=table["file"],
        folders=tuple(
            each.rstrip("/").replace("{series}", table["series"]).replace("{release}", day)
            for each in templates
        ),
        sha256=table.get("sha256") if day == known_day else None,
        keyring=HERE / "keys" / table["keyring"],
        signers=frozenset(table["signers"]),
    )


def ubuntu_table(base: str, bases: Path = BASES) -> dict[str, Any]:
    """What the catalog says of a base.

    Raises:
        BadInput: it knows no such Ubuntu image; the message names those that it knows.
    """
    catalog: dict[str, dict[str, Any]] = tomllib.loads(bases.read_text(encoding="utf-8"))["bases"]
    images = {name: table for name, table in catalog.items() if table["kind"] == KIND}
    if base in images:
        return images[base]
    near = difflib.get_close_matches(base, images, n=1)
    raise BadInput(
        f"{base!r} is no Ubuntu base image; there are {', '.join(sorted(images))}.",
        hint=f"Did you mean {near[0]}?" if near else "",
    )


def parse_day(text: str) -> dt.date:
    """The date of a release directory.

    Raises:
        BadInput: it is not YYYYMMDD.
    """
    if re.fullmatch(r"\d{8}", text):
        try:
            return dt.date(int(text[:4]), int(text[4:6]), int(text[6:]))
        except ValueError:
            pass
    raise BadInput(
        f"{text!r} is no date of an Ubuntu release; YYYYMMDD is expected, 20260926 say.",
        hint="The mirror's directory names (release-YYYYMMDD) say which dates there are.",
    )


def mirror_template(mirror: str) -> str:
    """The directory URL's template for a mirror that the user named.

    Raises:
        BadInput: it is no URL.
    """
    if scheme_of(mirror) not in ("http", "https", "file"):
        raise BadInput(
            "The mirror is no http, https or file URL.",
            hint="Write https://HOST/PATH, or file:///PATH for a folder of this machine.",
        )
    if "{release}" in mirror:
        return mirror
    return mirror.rstrip("/") + "/{series}/release-{release}"


def fetch_image(
    release: Release,
    cache: Path,
    *,
    runner: Runner,
    reporter: Reporter,
    offline: bool = False,
    pins: Pins | None = None,
    patience: Patience | None = None,
    digest_of: Callable[[Path], str] = sha256_of,
) -> Image:
    """Have the image in the download cache, verified from the signature down.

    The signed list is verified each time, the image by the list's digest; so what is in the cache
    is trusted no more than what comes from the network.

    Args:
        cache: the download cache; the release gets its own folder in it.
        offline: use only what is in the cache.
        pins: digests recorded on first use; a signed list that says something else is refused.

    Raises:
        DownloadFailed: a mirror doesn't have it, or `offline` and it is not in the cache.
        VerificationFailed: signature, list, pin and image don't agree.
        NoRoom: it doesn't fit.
        MissingTool: gpgv is not installed.
    """
    folder = cache / release.base / release.name

    def get(source: Download) -> Fetched:
        return fetch(
            source,
            folder,
            reporter=reporter,
            offline=offline,
            pins=pins,
            patience=patience,
            digest_of=digest_of,
        )

    reporter.say(f"verifying the signature of {release.base}, {release.name}")
    text, signature = signed_sums(release, folder, get, runner, offline=offline)
    sha256 = digest_in(text, release.file)
    if release.sha256 not in (None, sha256):
        raise VerificationFailed(
            f"The signed list of {release.name} gives {release.file} the SHA256 {sha256}; this "
            f"project pins {release.sha256} for it.",
            hint="The mirror has another release under this date: use another mirror.",
        )
    image = get(
        Download(
            name=release.file,
            urls=release.urls(release.file),
            sha256=sha256,
            pin=f"{release.base}/{release.name}/{release.file}",
            absent_hint=vanished(release),
        )
    )
    return Image(
        path=image.path,
        size_bytes=image.size_bytes,
        sha256=image.sha256,
        release=release,
        signature=signature,
    )


def signed_sums(
    release: Release,
    folder: Path,
    get: Callable[[Download], Fetched],
    runner: Runner,
    *,
    offline: bool,
) -> tuple[str, Signature]:
    """The text of the release's list of digests, and the signature that holds for it.

    Raises:
        DownloadFailed, VerificationFailed, NoRoom, MissingTool: as `fetch_image`.
    """
    sums, signature = folder / SUMS, folder / f"{SUMS}.gpg"
    if sums.is_file() and signature.is_file():
        try:
            return verified_text(release, sums, signature, runner)
        except VerificationFailed:
            # Where there is a network, a damaged cache is no reason to fail.
            if offline:
                raise
    get(
        Download(
            name=sums.name,
            urls=release.urls(sums.name),
            most_bytes=MOST_SUMS_BYTES,
            absent_hint=vanished(release),
        )
    )
    get(
        Download(
            name=signature.name,
            urls=release.urls(signature.name),
            most_bytes=MOST_SUMS_BYTES,
            absent_hint=f"Without the signature beside {SUMS} nothing of the release is used: a "
            "mirror must carry both.",
        )
    )
    try:
        return verified_text(release, sums, signature, runner)
    except VerificationFailed:
        sums.unlink(missing_ok=True)
        signature.unlink(missing_ok=True)
        raise


def verified_text(
    release: Release, sums: Path, signature: Path, runner: Runner
) -> tuple[str, Signature]:
    """Check the signature and its day, and read the list.

    Raises:
        VerificationFailed, MissingTool: as `fetch_image`.
    """
    good = verify_signature(
        sums, signature, keyring=release.keyring, signers=release.signers, runner=runner
    )
    # The signature doesn't say for which release it was made: a mirror could serve an older one,
    # whose holes are known, under a newer date.
    if good.day < release.day - DAY_SLACK:
        raise VerificationFailed(
            f"The list in {release.name} was signed on {good.day}, before that release: it "
            "belongs to an older one.",
            hint="Use another mirror.",
        )
    return sums.read_text(encoding="ascii", errors="replace"), good


def digest_in(text: str, name: str) -> str:
    """The SHA256 that a list in the form of sha256sum gives for a file.

    Raises:
        VerificationFailed: a line is not in that form, or the file is not listed exactly once.
    """
    found: set[str] = set()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        match = SUMS_LINE.fullmatch(line)
        if match is None:
            raise VerificationFailed(
                f"Line {number} of {SUMS} is not a digest and a plain file name: {line[:100]!r}."
            )
        if match["name"] == name:
            found.add(match["sha256"])
    if len(found) != 1:
        state = "lists it with several digests" if found else "doesn't list it"
        raise VerificationFailed(
            f"There is no one digest for {name}: the signed {SUMS} {state}.",
            hint="The release may be incomplete: choose another date, or another mirror.",
        )
    return found.pop()


def vanished(release: Release) -> str:
    """What to do about a release that is not there."""
    return (
        f"Dated releases are removed after some months, and {release.name} may be gone. Choose "
        "another with --image-release release-YYYYMMDD (or its setting in invoke.yaml), or name a "
        "mirror that keeps it with --image-mirror URL."
    )
