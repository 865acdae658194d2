"""Files from elsewhere, verified before they get their name: resumed, retried, downloaded once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tasks.artifacts.partial import Partial, locked_partial, require_room
from tasks.artifacts.pins import Pins
from tasks.artifacts.transfer import (
    Broken,
    Limits,
    Refused,
    Wanted,
    check_size,
    open_session,
    receive,
    shown,
)
from tasks.core.digest import sha256_of
from tasks.core.errors import BadInput, DownloadFailed, VerificationFailed
from tasks.core.events import Reporter

# A try that brought this much was not in vain: the count of failed tries begins again.
WORTHWHILE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file to be had from elsewhere, and all that is known of it beforehand.

    Args:
        name: its name here; a plain file name.
        urls: where it can be had (http, https, file), in order of preference. They may hold
            secrets (`user:password@`, a signed query); what is printed never does.
        size_bytes: its exact size, if known.
        sha256: its digest in hexadecimal, if known.
        least_bytes, most_bytes: nothing smaller, or (if not None) bigger, can be it.
        pin: the key under which its digest is recorded on first use, or "".
        absent_hint: what the user can do if no URL has it (404).
    """

    name: str
    urls: tuple[str, ...] = field(repr=False)
    size_bytes: int | None = None
    sha256: str | None = None
    least_bytes: int = 0
    most_bytes: int | None = None
    pin: str = ""
    absent_hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A verified file."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long a download is tried again; with the clocks, for tests.

    Args:
        tries: tries in a row that bring next to nothing, for each URL.
        first_wait_s: seconds before the second try; doubled for each further one, up to
            `longest_wait_s`, and shortened at random by up to a half, so that many builds that
            were cut off together don't come back together.
        longest_retry_after_s: a server that asks for a longer wait than this is given up.
        jitter: random numbers from 0 to 1.
    """

    tries: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    longest_retry_after_s: float = 300.0
    limits: Limits = field(default_factory=Limits)
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def wait_s(self, failed: int, broken: Broken) -> float:
        """Seconds to wait after `failed` tries in a row."""
        backoff_s = min(self.first_wait_s * 2.0 ** (failed - 1), self.longest_wait_s)
        return max(backoff_s * (1 - self.jitter() / 2), broken.retry_after_s or 0.0)


def fetch(
    source: Download,
    into: Path,
    *,
    reporter: Reporter,
    offline: bool = False,
    pins: Pins | None = None,
    patience: Patience | None = None,
    digest_of: Callable[[Path], str] = sha256_of,
) -> Fetched:
    """Have the file `source.name` in the folder `into`, verified.

    A file that is there and has the expected digest is taken as it is. Otherwise it comes into
    `NAME.part`, which survives a kill and is gone on with; it gets its name when size and digest
    are right. Only one process at a time downloads it, others wait and share.

    Without an expected digest (none given, none pinned) there is nothing to verify by: the file
    is got anew each time, except offline, and the caller must check it, by a signature say.

    Args:
        offline: use no network; `file:` URLs are still read.
        pins: where the digest is recorded under `source.pin`, and enforced from.
        digest_of: computes (or remembers) the SHA256 of a finished file.

    Raises:
        BadInput: a URL or the name is not usable.
        DownloadFailed: no URL delivered it, or it is not here and `offline`.
        VerificationFailed: it has another size or digest than expected; it has been deleted.
        NoRoom: it doesn't fit on the disk.
    """
    check(source)
    patience = patience or Patience()
    urls = tuple(url for url in source.urls if not offline or scheme_of(url) == "file")
    expected = expected_sha256(source, pins)
    into.mkdir(parents=True, exist_ok=True)
    target = into / source.name
    before = identity(target)
    usable = expected is not None or not urls
    if usable and (found := find_whole(target, expected, digest_of)):
        return found
    if not urls:
        raise absent_offline(source, into)
    waiting = f"waiting for another download of {source.name}"
    with locked_partial(part_of(target), lambda: reporter.say(waiting)) as part:
        # Whoever was waited for may have finished it.
        usable = usable or identity(target) != before
        if usable and (found := find_whole(target, expected, digest_of)):
            part.discard()
            return found
        obtain(source, urls, expected, part, patience, reporter)
        fetched = Fetched(path=target, size_bytes=part.size_bytes, sha256=part.sha256)
        if pins and source.pin:
            pins.record(source.pin, fetched.sha256)
        part.commit(target)
    return fetched


def expected_sha256(source: Download, pins: Pins | None) -> str | None:
    """The digest that the file must have, from what is known of it and from the pin.

    Raises:
        VerificationFailed: the two differ.
    """
    known = source.sha256.lower() if source.sha256 else None
    pinned = pins.find(source.pin) if pins and source.pin else None
    if pins and pinned and known and pinned != known:
        raise pins.conflict(source.pin, pinned, known)
    return known or pinned


def find_whole(
    target: Path, expected: str | None, digest_of: Callable[[Path], str]
) -> Fetched | None:
    """The finished file, if it is there and has the expected digest."""
    if not target.is_file():
        return None
    sha256 = digest_of(target)
    if expected not in (None, sha256):
        return None
    return Fetched(path=target, size_bytes=target.stat().st_size, sha256=sha256)


def obtain(
    source: Download,
    urls: tuple[str, ...],
    expected: str | None,
    part: Partial,
    patience: Patience,
    reporter: Reporter,
) -> None:
    """Fill `part` with the file and verify it.

    Raises:
        DownloadFailed, VerificationFailed, NoRoom: as `fetch`.
    """
    wanted = Wanted(
        name=source.name,
        size_bytes=source.size_bytes,
        least_bytes=source.least_bytes,
        most_bytes=source.most_bytes,
        verifiable=expected is not None,
    )
    receive_from_any(source, urls, wanted, part, patience, reporter)
    if expected not in (None, part.sha256) and part.resumed:
        # What an earlier try left may have been damaged, by a power cut say: once from zero.
        reporter.say(f"the joined pieces of {source.name} don't fit, starting over")
        part.restart()
        receive_from_any(source, urls, wanted, part, patience, reporter)
    if expected not in (None, part.sha256):
        part.discard()
        raise VerificationFailed(
            f"{source.name} from {' or '.join(map(shown, urls))} has SHA256 {part.sha256}; "
            f"{expected} was expected. It has been deleted.",
            hint="Try again; if it stays so, the server has another file: use another mirror.",
        )


def receive_from_any(
    source: Download,
    urls: tuple[str, ...],
    wanted: Wanted,
    part: Partial,
    patience: Patience,
    reporter: Reporter,
) -> None:
    """Fill `part` from the first URL that has the whole file.

    Raises:
        DownloadFailed: none has.
    """
    if part.size_bytes and part.size_bytes == source.size_bytes and wanted.verifiable:
        return
    refusals: list[tuple[str, Refused]] = []
    with open_session() as session:
        for url in urls:
            reporter.say(f"downloading {source.name}")
            try:
                if scheme_of(url) == "file":
                    copy(url, part, wanted, reporter)
                else:
                    attempt = partial(
                        receive, session, url, part, wanted, patience.limits, reporter
                    )
                    persist(attempt, part, patience, reporter)
            except Refused as refused:
                refusals.append((url, refused))
            else:
                return
    raise failure(source, refusals, part)


def persist(
    attempt: Callable[[], None], part: Partial, patience: Patience, reporter: Reporter
) -> None:
    """Repeat `attempt` with growing waits, until it works or `patience.tries` in a row were vain.

    Raises:
        Refused: it is no use.
    """
    failed, furthest_bytes = 0, part.size_bytes
    while True:
        try:
            return attempt()
        except Broken as broken:
            failed += 1
            # Only what was never reached before counts: a server that cuts each answer at the
            # same place brings nothing.
            if part.size_bytes >= furthest_bytes + WORTHWHILE_BYTES:
                failed, furthest_bytes = 1, part.size_bytes
            if failed >= patience.tries:
                raise Refused(f"{broken.reason}, {failed} times in a row") from None
            wait_s = patience.wait_s(failed, broken)
            if wait_s > patience.longest_retry_after_s:
                raise Refused(f"{broken.reason} and asks to wait {wait_s:.0f} s") from None
            reporter.say(f"{broken.reason}; trying again in {wait_s:.0f} s")
            patience.sleep(wait_s)


def copy(url: str, part: Partial, wanted: Wanted, reporter: Reporter) -> None:
    """Fill `part` from a `file:` URL.

    Raises:
        Refused: the file can't be read.
        NoRoom, VerificationFailed: as `fetch`.
    """
    path = Path(unquote(urlsplit(url).path))
    part.restart()
    try:
        with path.open("rb") as stream:
            total_bytes = path.stat().st_size
            check_size(total_bytes, wanted)
            require_room(part.path.parent, total_bytes, wanted.name)
            while chunk := stream.read(1 << 20):
                part.append(chunk, total_bytes)
                reporter.progress(part.size_bytes, total_bytes)
    except FileNotFoundError:
        raise Refused("there is no such file", absent=True) from None
    except (PermissionError, IsADirectoryError) as error:
        raise Refused(f"it can't be read ({error.strerror})") from error


def failure(source: Download, refusals: list[tuple[str, Refused]], part: Partial) -> DownloadFailed:
    """The error for a file that no URL delivered."""
    reasons = "; ".join(f"{shown(url)}: {refused.reason}" for url, refused in refusals)
    kept = ""
    if part.size_bytes:
        kept = f" {part.size_bytes} bytes are kept: the next run goes on from there."
    else:
        part.discard()
    if all(refused.absent for _, refused in refusals):
        hint = source.absent_hint
    else:
        hint = next((refused.hint for _, refused in refusals if refused.hint), "")
    return DownloadFailed(
        f"{source.name} could not be downloaded ({reasons}).{kept}",
        hint=hint or "Check the address and the network (and http_proxy, https_proxy, no_proxy).",
    )


def absent_offline(source: Download, into: Path) -> DownloadFailed:
    """The error for a file that is not here while the network must not be used."""
    return DownloadFailed(
        f"{source.name} is not in {into}, or not as it should be, and offline nothing is "
        "downloaded.",
        hint="Run once without offline, or copy the file there: it is verified before it is used.",
    )


def check(source: Download) -> None:
    """Look for what can't be downloaded, before anything is done.

    Raises:
        BadInput: a URL or the name is not usable.
    """
    if source.name in ("", ".", "..") or Path(source.name).name != source.name:
        raise BadInput(f"{source.name!r} is no plain file name to download to.")
    for url in source.urls:
        scheme = scheme_of(url)
        if scheme not in ("http", "https", "file"):
            raise BadInput(
                f"The address of {source.name} begins with {scheme or 'no scheme'}; http, https "
                "and file are possible.",
                hint="Write a whole address such as https://HOST/PATH or file:///PATH.",
            )


def scheme_of(url: str) -> str:
    """The URL's scheme in small letters, or "" for what is no URL."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def identity(path: Path) -> tuple[int, int] | None:
    """What changes when another file is put at `path`; None if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def part_of(target: Path) -> Path:
    """The partial file of a download."""
    return target.with_name(target.name + ".part")
