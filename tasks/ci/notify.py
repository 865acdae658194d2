"""Posts the result of a run to webhooks; whatever they do, the run goes on.

The URL of a webhook is its password: it is in no log and in no message.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tasks.ci.data import ReportData
from tasks.ci.figures import OUTCOMES, count_all, verdict
from tasks.ci.origin import Origin
from tasks.ci.problems import labels, problems
from tasks.ci.text import one_line
from tasks.core.display import in_seconds

ATTEMPTS = 3
PAUSE_S = 2.0
# For each wait within an attempt, and for all attempts at all webhooks together.
ATTEMPT_S = 10.0
ALTOGETHER_S = 45.0
MOST_PROBLEMS = 10
SCHEMES = ("http", "https")
# Worth another attempt, beside all from 500 on: 408 Request Timeout, 425 Too Early, 429 Too Many.
TRY_AGAIN = (408, 425, 429)
# What a hostile or broken answer can make of the client.
FAILURES = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long and how often it is tried; in seconds."""

    attempts: int = ATTEMPTS
    pause_s: float = PAUSE_S
    attempt_s: float = ATTEMPT_S
    altogether_s: float = ALTOGETHER_S


class NoRedirects(HTTPRedirectHandler):
    """Takes a redirect for a failure: urllib would follow it with a GET and without the data."""

    def redirect_request(self, *args: Any, **words: Any) -> None:
        return None


def notify(
    urls: str, body: bytes, tell: Callable[[str], None], patience: Patience | None = None
) -> bool:
    """Post `body` to each URL; True if all took it.

    Args:
        urls: separated by white space.
        tell: is told what went wrong, without the URL.
    """
    chosen = patience or Patience()
    told: list[str] = []
    done = threading.Event()

    def work() -> None:
        try:
            for number, url in enumerate(urls.split(), start=1):
                if wrong := post(url, body, chosen):
                    told.append(f"webhook {number} was not told: {wrong}")
        finally:
            done.set()

    # A server that sends a byte now and then can hold every single wait; not this one.
    threading.Thread(target=work, daemon=True).start()
    if not done.wait(chosen.altogether_s):
        told.append(f"the webhooks took more than {chosen.altogether_s:g} s: given up")
    for line in told:
        tell(line)
    return not told


def post(url: str, body: bytes, patience: Patience) -> str:
    """Post once, and again after a passing failure; returns why it failed, or ""."""
    wrong = ""
    for attempt in range(patience.attempts):
        if attempt:
            # Nobody says when a server is well again: the one wait here that is just a time.
            time.sleep(patience.pause_s * 2 ** (attempt - 1))
        wrong, passing = post_once(url, body, patience.attempt_s)
        if not passing:
            break
    return wrong


def post_once(url: str, body: bytes, timeout_s: float) -> tuple[str, bool]:
    """Why it failed ("": it didn't), and whether another attempt might not."""
    try:
        if urlsplit(url).scheme not in SCHEMES:
            return "its URL is not one of http or https", False
        request = Request(  # noqa: S310 (the scheme was just looked at)
            url, data=body, headers={"Content-Type": "application/json"}, method="POST"
        )
        with build_opener(NoRedirects).open(request, timeout=timeout_s):
            return "", False
    except HTTPError as error:
        error.close()
        again = error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR or error.code in TRY_AGAIN
        return f"it answered with status {error.code}", again
    except FAILURES as error:
        # Its text may hold the URL; its kind doesn't.
        cause = error.reason if isinstance(error, URLError) else error
        return f"{type(cause).__name__}", not isinstance(error, ValueError)


def message(data: ReportData, origin: Origin, form: str) -> bytes:
    """What is posted.

    Args:
        form: json: all figures. slack: a text, as Slack's incoming webhooks take it.
    """
    content = {"text": slack_text(data, origin)} if form == "slack" else generic(data, origin)
    return json.dumps(content).encode()


def generic(data: ReportData, origin: Origin) -> Mapping[str, Any]:
    """The figures of a run."""
    names = labels(data.everything)
    return {
        "schema": 1,
        "passed": data.passed,
        "verdict": verdict(data),
        "build": data.build,
        "commit": data.commit,
        "tag": origin.tag,
        "url": origin.run_url,
        "started": data.started,
        "seconds": round(data.seconds, 1),
        "checks": count_all(data.everything),
        "images": [
            {
                "image": each.image,
                "variant": each.variant,
                "version": each.version,
                "sha256": each.sha256,
                "size_bytes": each.size_bytes,
                "accel": each.accel,
                "firmware": each.firmware,
                "passed": each.passed,
            }
            for each in data.judged
        ],
        "problems": [
            {
                "outcome": problem.outcome,
                "check": f"{problem.group}: {problem.name}",
                "reason": one_line(problem.reason),
                "images": [names[place.image] for place in problem.places],
            }
            for problem in problems(data.everything)[:MOST_PROBLEMS]
        ],
    }


def slack_text(data: ReportData, origin: Origin) -> str:
    """The result in some lines of Slack's mrkdwn.

    https://docs.slack.dev/messaging/formatting-message-text (the three characters to escape)
    """
    names = labels(data.everything)
    counts = count_all(data.everything)
    mark = ":white_check_mark:" if data.passed else ":x:"
    build = f" #{data.build}" if data.build else ""
    figures = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    lines = [
        f"{mark} *{escaped(data.title)}{escaped(build)}: {escaped(verdict(data))}*",
        escaped(f"{figures or 'no checks'}; {in_seconds(data.seconds)}"),
    ]
    for problem in problems(data.everything)[:MOST_PROBLEMS]:
        where = ", ".join(names[place.image] for place in problem.places[:3])
        lines.append(f"• {escaped(one_line(f'{where}: {problem.name}: {problem.reason}', 200))}")
    if origin.run_url:
        lines.append(f"<{origin.run_url}|The run>")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text in which Slack finds no markup of links and mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
