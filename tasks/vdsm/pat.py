"""Synology's installation file (PAT) of a DSM build: found, fetched and verified."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.artifacts.download import Download, Patience, check, expected_sha256
from tasks.artifacts.download import fetch as download
from tasks.artifacts.pins import FILE_NAME, Pins
from tasks.core.digest import sha256_of
from tasks.core.errors import BadInput, VerificationFailed, VmbakeError
from tasks.core.store import Publication

if TYPE_CHECKING:
    from tasks.core.events import Reporter
    from tasks.core.stage import Facts, Site, Step
    from tasks.core.store import Result

ROOT = Path(__file__).parents[2]
VERSIONS = Path(__file__).parent / "versions.toml"
VERSION = re.compile(r"\d{1,2}(\.\d{1,2}){1,3}")
BUILD = re.compile(r"\d{4,6}(-\d{1,3})?")
# The installer of vdsm/virtual-dsm takes a smaller file for an update pack (its exit status 62).
LEAST_BYTES = 250_000_000
OTHERS = (
    "Name the file's address with --pat-url (DSM_PAT_URL), or a copy of it with --pat-file "
    "(DSM_PAT_FILE); or choose another build with --dsm-version and --dsm-build."
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The PAT of one DSM build, and what is known of it beforehand.

    Args:
        version: as Synology writes it, 7.2.2 say.
        build: the number behind it, with -N for a rebuilt one.
        url: where it is; may hold secrets.
        file: the user's own copy, which is then used where it lies; None: it is downloaded.
        size_bytes, sha256: what it must have, if known.
    """

    version: str
    build: str
    url: str = field(repr=False)
    file: Path | None = None
    size_bytes: int | None = None
    sha256: str | None = None

    @property
    def title(self) -> str:
        """What people call it."""
        return f"DSM {self.version}-{self.build}"

    @property
    def name(self) -> str:
        """The file's name in the download cache; upstream's installer takes BASE from it."""
        return f"DSM_VirtualDSM_{number_of(self.build)}.pat"

    @property
    def pin(self) -> str:
        """The key under which its digest is recorded. A mirror has to have the same file."""
        return f"dsm/{self.version}-{self.build}"


@dataclass(frozen=True, kw_only=True)
class FetchedPat:
    """A verified PAT on this machine."""

    path: Path
    sha256: str
    size_bytes: int


def require_source(
    version: str,
    build: str = "",
    *,
    pat_url: str = "",
    pat_file: str = "",
    root: Path = ROOT,
    versions: Path = VERSIONS,
) -> Source:
    """What is known of a DSM build.

    Args:
        build: "" means the newest one that is listed for the version.
        pat_url: another address of the same file, http, https or file.
        pat_file: a copy of it; relative paths count from `root`.

    Raises:
        BadInput: no such build is known and it can't be found without more; or an argument is
            not of its form.
    """
    require_form(version, build, pat_url, pat_file)
    table = tomllib.loads(versions.read_text(encoding="utf-8"))
    builds: list[dict[str, Any]] = table["builds"]
    known = find_build(builds, version, build)
    if known is None:
        require_consistent(builds, version, build)
    known = known or {"build": build}
    url = str(table["url"]).format(
        version=version,
        folder=known.get("folder", known["build"]),
        number=number_of(known["build"]),
    )
    return Source(
        version=version,
        build=known["build"],
        url=pat_url or url,
        file=root / Path(pat_file).expanduser() if pat_file else None,
        size_bytes=known.get("size_bytes"),
        sha256=known.get("sha256"),
    )


def require_form(version: str, build: str, pat_url: str, pat_file: str) -> None:
    """Check what the user wrote, before it becomes part of names and addresses.

    Raises:
        BadInput: it is not usable.
    """
    if not VERSION.fullmatch(version):
        raise BadInput(
            f"{version!r} is no DSM version; numbers with dots are expected, 7.2.2 say.",
            hint="The number behind the dash is the build: --dsm-build.",
        )
    if build and not BUILD.fullmatch(build):
        raise BadInput(f"{build!r} is no DSM build; a number is expected, 72806 or 69057-1 say.")
    if pat_url and pat_file:
        raise BadInput(
            "--pat-url (DSM_PAT_URL) and --pat-file (DSM_PAT_FILE) are both set.",
            hint="Set the one that is meant.",
        )


def find_build(builds: list[dict[str, Any]], version: str, build: str) -> dict[str, Any] | None:
    """The table of a build, or of the version's newest; None if none is listed."""
    return next(
        (
            table
            for table in builds
            if table["version"] == version and build in ("", table["build"], table.get("folder"))
        ),
        None,
    )


def require_consistent(builds: list[dict[str, Any]], version: str, build: str) -> None:
    """Check that a version and a build that aren't listed together can be what is meant.

    Raises:
        BadInput: they can't.
    """
    if not build:
        raise unknown_version(version, builds)
    for table in builds:
        if number_of(build) == table["build"] and version != table["version"]:
            raise BadInput(
                f"{build} is a build of DSM {table['version']}, not of {version}.",
                hint="Set --dsm-version (DSM_VERSION) and --dsm-build (DSM_BUILD) together; an "
                "empty build is the newest one that is known of the version.",
            )


def unknown_version(version: str, builds: list[dict[str, Any]]) -> BadInput:
    """The error for a version without a listed build, when none was named."""
    listed = list(dict.fromkeys(table["version"] for table in builds))
    near = difflib.get_close_matches(version, listed, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return BadInput(
        f"No build of DSM {version} is known here; there are {', '.join(listed)}.",
        hint=f"{guess}For any other version, name its build, too: --dsm-build NUMBER.",
    )


def number_of(build: str) -> str:
    """The build without the -N of a rebuilt one: what is in the file's name."""
    return build.partition("-")[0]


def fetch(
    source: Source,
    cache: Path,
    *,
    reporter: Reporter,
    offline: bool = False,
    pins: Pins | None = None,
    patience: Patience | None = None,
    digest_of: Callable[[Path], str] = sha256_of,
) -> FetchedPat:
    """Have the PAT on this machine, verified.

    The user's own file stays where it is and is not copied. A download lands in `cache`, in a
    folder of its own; it is resumed, and two runs at once download it once.

    Args:
        offline: use no network.
        pins: where the digest of a first download is recorded, and enforced from ever after.
        digest_of: computes (or remembers) the SHA256 of a finished file.

    Raises:
        BadInput: the user's file or address is not usable.
        DownloadFailed: the server doesn't deliver it, or `offline` and it is not in the cache.
        VerificationFailed: size or digest is another than expected, or too small for any PAT.
        NoRoom: it doesn't fit.
    """
    if source.file is not None:
        return adopt(source, source.file, pins, reporter, digest_of)
    first = expected_sha256(wanted(source), pins) is None
    found = download(
        wanted(source),
        cache / f"{source.version}-{source.build}",
        reporter=reporter,
        offline=offline,
        pins=pins,
        patience=patience,
        digest_of=digest_of,
    )
    if first and pins:
        reporter.tell(
            f"The SHA256 of {source.title} is {found.sha256}. It is recorded in {pins.path}; put "
            f"it into {VERSIONS.name}, and it holds on every machine."
        )
    return FetchedPat(path=found.path, sha256=found.sha256, size_bytes=found.size_bytes)


def wanted(source: Source) -> Download:
    """The PAT as something to download."""
    return Download(
        name=source.name,
        urls=(source.url,),
        size_bytes=source.size_bytes,
        sha256=source.sha256,
        least_bytes=LEAST_BYTES,
        pin=source.pin,
        absent_hint=f"Synology removes builds from its servers. {OTHERS}",
    )


def adopt(
    source: Source,
    path: Path,
    pins: Pins | None,
    reporter: Reporter,
    digest_of: Callable[[Path], str],
) -> FetchedPat:
    """Verify the user's own file by all that is known of the build.

    Its digest is not recorded: it says nothing about what Synology has.

    Raises:
        BadInput, VerificationFailed: as `fetch`.
    """
    for problem in file_problems(source, path):
        raise problem
    expected = expected_sha256(wanted(source), pins)
    reporter.say(f"verifying {path.name}")
    sha256 = digest_of(path)
    if expected not in (None, sha256):
        raise VerificationFailed(
            f"{path} has SHA256 {sha256}; {expected} is that of {source.title}.",
            hint=foreign(source),
        )
    return FetchedPat(path=path, sha256=sha256, size_bytes=path.stat().st_size)


def file_problems(source: Source, path: Path) -> Iterator[VmbakeError]:
    """What can be seen of the user's own file without reading it."""
    if not path.is_file():
        yield BadInput(
            f"The PAT file {path} is not a file.",
            hint="--pat-file (DSM_PAT_FILE) names a downloaded DSM_VirtualDSM_BUILD.pat.",
        )
        return
    size_bytes = path.stat().st_size
    if size_bytes < LEAST_BYTES:
        yield BadInput(
            f"The PAT file {path} has {size_bytes} bytes; a DSM installation has at least "
            f"{LEAST_BYTES}.",
            hint="It may be an update pack, or cut short: take the whole DSM_VirtualDSM_BUILD.pat.",
        )
    elif source.size_bytes not in (None, size_bytes):
        yield VerificationFailed(
            f"The PAT file {path} has {size_bytes} bytes; {source.title} has {source.size_bytes}.",
            hint=foreign(source),
        )


def foreign(source: Source) -> str:
    """What to do about a file that is not of the build that it is said to be of."""
    return (
        f"It is cut short, or of another build than {source.build}: fetch it again, or say of "
        "which it is with --dsm-version and --dsm-build."
    )


def make(step: Step, source: Source, *, offline: bool) -> Facts:
    """Body of the stage: the PAT, as a file that is used where it lies.

    It is published, not stored: the record has its path and digest, so it is verified before each
    use like any result, but it is neither copied nor made read-only.
    """
    found = fetch(
        source,
        step.site.cache / "downloads" / "dsm",
        reporter=step,
        offline=offline,
        # Not in the cache: a digest is only worth something as long as it is remembered.
        pins=Pins(path=step.site.state / FILE_NAME),
        digest_of=step.digests.of,
    )
    step.digests.remember(found.path, found.sha256)
    step.published.append(Publication(path=found.path, sha256=found.sha256))
    return {
        "version": source.version,
        "build": source.build,
        "sha256": found.sha256,
        "size_bytes": found.size_bytes,
    }


def path_of(result: Result) -> Path:
    """Where the PAT of a finished stage lies."""
    return result.published[0].path


def files(pat_file: str, **_: Any) -> list[Path]:
    """What the stage reads: the user's own file, if there is one."""
    return [ROOT / Path(pat_file).expanduser()] if pat_file else []


def inputs(site: Site, dsm_version: str, dsm_build: str, **_: Any) -> dict[str, str]:
    """What the stage depends on: the build, and what versions.toml says of it."""
    try:
        source = require_source(dsm_version, dsm_build, root=site.root)
    except BadInput:
        return {}  # for `problems` to report, together with all others
    known = f"{source.size_bytes or '?'} bytes, SHA256 {source.sha256 or '?'}"
    return {"DSM": f"{source.version}-{source.build}", "known of the PAT": known}


def problems(
    site: Site, dsm_version: str, dsm_build: str, pat_url: str, pat_file: str, **_: Any
) -> Iterator[VmbakeError]:
    """What keeps the stage from running, before it does."""
    try:
        source = require_source(
            dsm_version, dsm_build, pat_url=pat_url, pat_file=pat_file, root=site.root
        )
        check(wanted(source))
    except BadInput as error:
        yield error
        return
    if source.file is not None:
        yield from file_problems(source, source.file)
