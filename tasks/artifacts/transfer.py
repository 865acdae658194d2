"""One try at getting a file by HTTP into its partial file; who calls decides about the next."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from tasks.artifacts.partial import Origin, Partial, require_room
from tasks.core.errors import VerificationFailed

if TYPE_CHECKING:
    import requests

    from tasks.core.events import Reporter

CHUNK_BYTES = 1 << 20
# 408 and 425 ask for another try by their definition (RFC 9110, RFC 8470), 429 after a while.
WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


class Broken(Exception):
    """This try failed in a way that another may not.

    Args:
        reason: a clause that says what happened.
        retry_after_s: how long the server asks to wait, in seconds, if it does.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """Another try at this URL would fail the same way."""

    def __init__(self, reason: str, *, hint: str = "", absent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.absent = absent


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a connection counts as dead.

    Args:
        connect_s: seconds for connecting, TLS included.
        silence_s: seconds without a single byte.
        pace_bytes: fewer bytes than this within `pace_s` seconds are as good as none: a server
            that drips would otherwise hold a build for days.
        clock: a monotonic clock, in seconds.
        wall_clock: the time of day in seconds since 1970, for Retry-After with a date.
    """

    connect_s: float = 20.0
    silence_s: float = 60.0
    pace_bytes: int = 64 << 10
    pace_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is known of the file before it comes.

    Args:
        least_bytes: a smaller file is refused.
        most_bytes: a bigger file is refused, if not None.
        verifiable: a digest will be checked at the end, so bytes of several origins may be
            joined: a wrong join is noticed.
    """

    name: str
    size_bytes: int | None
    most_bytes: int | None
    verifiable: bool
    least_bytes: int = 0


def open_session() -> requests.Session:
    """A session that verifies TLS, takes proxies from the environment and never drops https."""
    import requests

    session = requests.Session()
    session.max_redirects = 10
    session.headers["User-Agent"] = "vmbake"
    # Bytes on disk are the server's own: a digest is one of the file, not of what it unpacks to.
    session.headers["Accept-Encoding"] = "identity"
    session.hooks["response"].append(refuse_downgrade)
    return session


def refuse_downgrade(response: requests.Response, **_: object) -> None:
    """A redirect from https leads to https, or nowhere."""
    if not response.is_redirect:
        return
    target = urljoin(response.url, response.headers["location"])
    if urlsplit(response.url).scheme == "https" and urlsplit(target).scheme != "https":
        raise Refused(
            f"it redirects from https to {shown(target)}, where nobody checks who answers",
            hint="Use another mirror, or the address that it redirects to if you trust it.",
        )


def receive(
    session: requests.Session,
    url: str,
    part: Partial,
    wanted: Wanted,
    limits: Limits,
    reporter: Reporter,
) -> None:
    """Make one request and append its answer to `part`; returns when the file is whole.

    Raises:
        Broken: worth another try; the bytes that came are kept.
        Refused: not worth another try at this URL.
        NoRoom: the rest doesn't fit on the disk.
        VerificationFailed: the server has a file of another size than the one wanted.
    """
    headers = resumption(part, url, wanted)
    with (
        naming_failures(),
        session.get(
            url, headers=headers, stream=True, timeout=(limits.connect_s, limits.silence_s)
        ) as response,
    ):
        total_bytes = begin(response, url, part, wanted, limits)
        if total_bytes is not None:
            check_size(total_bytes, wanted)
            require_room(part.path.parent, total_bytes - part.size_bytes, wanted.name)
        stream(response, part, total_bytes, wanted, limits, reporter)


def resumption(part: Partial, url: str, wanted: Wanted) -> dict[str, str]:
    """The headers that ask for the rest of a partial file; {} (and an empty file) if it's no use.

    If-Range makes the server send the whole file if it has changed (RFC 9110, 13.1.5).
    """
    if part.size_bytes == 0:
        return {}
    origin = part.origin
    ask = {"Range": f"bytes={part.size_bytes}-"}
    if origin and origin.validator and origin.source == source_id(url):
        return {**ask, "If-Range": origin.validator}
    if origin and wanted.verifiable:
        return ask
    part.restart()
    return {}


def begin(
    response: requests.Response, url: str, part: Partial, wanted: Wanted, limits: Limits
) -> int | None:
    """Judge an answer's status and set `part` to where its body goes on; the file's size, if said.

    Raises:
        Broken, Refused: see there.
    """
    match response.status_code:
        case 200:
            if part.size_bytes:
                part.restart()
            total_bytes = length_of(response)
        case 206:
            total_bytes = continued(response, part)
        case 416:
            return already_whole(response, part)
        case status:
            raise judged(status, response, limits)
    part.remember(
        Origin(source=source_id(url), validator=validator_of(response), total_bytes=total_bytes)
    )
    part.resumed = part.resumed or part.size_bytes > 0
    return total_bytes


def length_of(response: requests.Response) -> int | None:
    """The length of the whole body as announced, in bytes."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def continued(response: requests.Response, part: Partial) -> int:
    """The size of the whole file, from the Content-Range of a 206 that fits what is there."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text)
    origin = part.origin
    # A shorter piece than asked for is allowed: the next try gets the next one.
    if match and int(match[1]) == part.size_bytes:
        total_bytes = int(match[3])
        if origin is None or origin.total_bytes in (None, total_bytes):
            return total_bytes
    part.restart()
    raise Broken(f"the server continued with other bytes than asked for ({text or 'unnamed'})")


def already_whole(response: requests.Response, part: Partial) -> int:
    """The file's size after a 416: nothing lies behind the bytes that are there."""
    match = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    if match and int(match[1]) == part.size_bytes:
        return part.size_bytes
    part.restart()
    raise Broken("the file on the server is shorter than what came of it before")


def judged(status: int, response: requests.Response, limits: Limits) -> Broken | Refused:
    """What an answer other than success means."""
    said = f"the server answered {status} {response.reason or ''}".rstrip()
    if status >= 500 or status in WORTH_ANOTHER_TRY:
        return Broken(said, retry_after_s(response, limits))
    if status in (404, 410):
        return Refused(said, absent=True)
    if status in (401, 403, 407):
        return Refused(said, hint="Check the credentials, the proxy and whether the link expired.")
    return Refused(said)


def retry_after_s(response: requests.Response, limits: Limits) -> float | None:
    """The seconds to wait that Retry-After asks for, as a number or a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - limits.wall_clock())
    return None


def check_size(size_bytes: int, wanted: Wanted) -> None:
    """Compare the size that the server announces with what is known of the file.

    Raises:
        VerificationFailed: it can't be the file.
    """
    if wanted.size_bytes is not None and size_bytes != wanted.size_bytes:
        raise VerificationFailed(
            f"{wanted.name} has {size_bytes} bytes on the server; {wanted.size_bytes} were "
            "promised.",
            hint="The file there is another one: use another mirror, or correct the pin.",
        )
    if size_bytes < wanted.least_bytes:
        raise VerificationFailed(
            f"{wanted.name} has {size_bytes} bytes on the server; such a file has at least "
            f"{wanted.least_bytes}.",
            hint="What is there is another file, or a page about an error: check the address.",
        )
    check_most(size_bytes, wanted)


def check_most(size_bytes: int, wanted: Wanted) -> None:
    """Refuse a file that is bigger than its kind can be.

    Raises:
        VerificationFailed: it is.
    """
    if wanted.most_bytes is not None and size_bytes > wanted.most_bytes:
        raise VerificationFailed(
            f"{wanted.name} is bigger than the {wanted.most_bytes} bytes that such a file can "
            "have.",
            hint="The file there is another one: use another mirror.",
        )


def stream(
    response: requests.Response,
    part: Partial,
    total_bytes: int | None,
    wanted: Wanted,
    limits: Limits,
    reporter: Reporter,
) -> None:
    """Append the body to `part`, until the file is whole.

    Raises:
        Broken: the connection ended early, or drips.
        VerificationFailed: a file whose size the server didn't say is not of the wanted one.
    """
    # The end is judged below, in words that say how much came.
    response.raw.enforce_content_length = False
    since, seen_bytes = limits.clock(), part.size_bytes
    reporter.progress(part.size_bytes, total_bytes)
    while part.size_bytes != total_bytes:
        # read1 returns what is there; read would wait for a full chunk, unbounded by the timeout.
        chunk = response.raw.read1(CHUNK_BYTES, decode_content=False)
        if not chunk:
            if total_bytes is None:
                judge_end(part, wanted)
                return
            raise Broken(f"the connection ended after {part.size_bytes} of {total_bytes} bytes")
        part.append(chunk, total_bytes)
        reporter.progress(part.size_bytes, total_bytes)
        check_most(part.size_bytes, wanted)
        now = limits.clock()
        if now - since >= limits.pace_s:
            if part.size_bytes - seen_bytes < limits.pace_bytes:
                raise Broken(
                    f"only {part.size_bytes - seen_bytes} bytes came in {now - since:.0f} s"
                )
            since, seen_bytes = now, part.size_bytes


def judge_end(part: Partial, wanted: Wanted) -> None:
    """Decide whether a body of unannounced length was the whole file.

    Raises:
        Broken: it is shorter than the file that is wanted.
        VerificationFailed: it can't be that file.
    """
    if wanted.size_bytes is not None and part.size_bytes < wanted.size_bytes:
        raise Broken(f"the connection ended after {part.size_bytes} of {wanted.size_bytes} bytes")
    try:
        check_size(part.size_bytes, wanted)
    except VerificationFailed:
        part.restart()
        raise


@contextlib.contextmanager
def naming_failures() -> Iterator[None]:
    """Turn what requests and urllib3 raise into Broken or Refused, without their texts.

    Their texts hold the URL with its query, where signed links keep their secret.
    """
    import requests
    import urllib3

    errors = requests.exceptions
    # `from None`: a chained traceback would print those texts after all.
    try:
        yield
    except (errors.InvalidURL, errors.InvalidSchema, errors.MissingSchema):
        raise Refused("that is no http, https or file URL") from None
    except errors.TooManyRedirects:
        raise Refused("it redirects in circles") from None
    except errors.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise Broken("the TLS connection failed") from None
        raise Refused(
            "its TLS certificate is not valid for this machine",
            hint="Check the clock; name a private authority's file in REQUESTS_CA_BUNDLE.",
        ) from None
    except errors.ProxyError:
        raise Broken("the proxy could not be used") from None
    except errors.ConnectTimeout:
        raise Broken("connecting took too long") from None
    except (errors.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
        raise Broken("the server fell silent") from None
    except (errors.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise Broken(root_cause(error)) from None


def root_cause(error: BaseException) -> str:
    """The operating system's words for a failed connection, dug out of its wrappings."""
    todo: list[object] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, OSError) and each.strerror:
            return f"the connection failed ({each.strerror})"
        if isinstance(each, BaseException):
            todo += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    return "the connection broke"


def validator_of(response: requests.Response) -> str:
    """What If-Range may hold: a strong ETag, else Last-Modified, else "" (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return str(tag)
    return str(response.headers.get("Last-Modified", ""))


def source_id(url: str) -> str:
    """What tells one URL from another, without giving either away."""
    return hashlib.sha256(url.encode()).hexdigest()


def shown(url: str) -> str:
    """A URL as it may be printed and logged: no user, no password, no query, no fragment."""
    parts = urlsplit(url)
    query = "?…" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"
