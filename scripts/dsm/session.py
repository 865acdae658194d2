"""A step's DSM: where it is, the page that shows it, what the page asks, the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Locator, Page, Request, Response

from scripts.dsm.failures import Gone, TimedOut

T = TypeVar("T")
LONGEST_HEADLINE = 80
# What names a screen that is in none of the tables, best first.
HEADLINES = (
    *("div.dialog-content", "div.title", "div.v-notification-title", "div.welcome-step-title"),
    *("[role=dialog]", "h1", "h2", "button"),
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """What DSM is set up with."""

    server: str
    user: str
    password: str


class Traffic:
    """What the page asks of DSM by itself, and what became of it."""

    def __init__(self, page: Page) -> None:
        self.broken = False
        self._sent: list[Request] = []
        self._over: set[Request] = set()
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        page.on("requestfailed", self._on_failure)

    def mark(self) -> int:
        """A point in time, for the other methods."""
        return len(self._sent)

    def pending(self, mark: int) -> bool:
        """Whether a request that was made after the mark has no answer yet."""
        return any(request not in self._over for request in self._sent[mark:])

    def answered(self, mark: int) -> bool:
        """Whether a request that was made after the mark has its answer."""
        return any(request in self._over for request in self._sent[mark:])

    def _on_request(self, request: Request) -> None:
        if request.resource_type in ("xhr", "fetch"):
            self._sent.append(request)

    def _on_response(self, response: Response) -> None:
        self._over.add(response.request)
        self.broken |= response.status >= 500

    def _on_failure(self, request: Request) -> None:
        self._over.add(request)
        # The browser aborts what is under way when a page is left.
        self.broken |= "ERR_ABORTED" not in (request.failure or "")


class Dsm:
    """The DSM of a step: where it is, the page that shows it, and the time that is left.

    Args:
        slow: what every time limit is multiplied by.
    """

    def __init__(
        self, *, url: str, account: Account, page: Page, limit_s: float, slow: float
    ) -> None:
        self.url = url
        self.account = account
        self.page = page
        self.traffic = Traffic(page)
        self.slow = slow
        self.limit_s = limit_s
        self._ends = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        return max(self._ends - time.monotonic(), 0.0)

    def ms(self, patience_s: float) -> float:
        """A limit for Playwright, which takes 0 for none: scaled, and not after the deadline."""
        return self.plain_ms(patience_s * self.slow)

    def plain_ms(self, patience_s: float) -> float:
        """The same, not scaled."""
        return max(min(patience_s, self.left_s) * 1000, 1.0)

    def require_time(self, waiting_for: str) -> None:
        """Raise TimedOut, or Gone if there is no page, when the step's time is over."""
        if self.left_s:
            return
        what = f"Waited {self.limit_s:.0f} s for {waiting_for}."
        if self.page.url.startswith("chrome-error:"):
            raise Gone(f"{what} DSM does not answer at {self.url}.")
        raise TimedOut(f"{what} On screen: {on_screen(self.page)}.")


def unless_leaving(ask: Callable[[], T], nothing: T) -> T:
    """What the page says to a question; `nothing` if it is just being left for another one."""
    try:
        return ask()
    except BrowserError as error:
        if "context was destroyed" not in error.message:
            raise
        return nothing


def count(locator: Locator) -> int:
    """How many elements there are now."""
    return unless_leaving(locator.count, 0)


def texts(locator: Locator) -> list[str]:
    """The texts of visible elements, each in one line; without empty ones and repetitions."""
    found = unless_leaving(locator.filter(visible=True).all_inner_texts, list[str]())
    return list(dict.fromkeys(" ".join(text.split()) for text in found if text.strip()))


def headline(page: Page) -> str:
    """The most telling visible text of the page; empty if there is none, as while it loads."""
    found = (text for css in HEADLINES for text in texts(page.locator(css)))
    return next(found, "")[:LONGEST_HEADLINE]


def on_screen(page: Page) -> str:
    """The page in a few words."""
    title = unless_leaving(page.title, "")
    return f"{headline(page) or 'nothing to read'!r} (title {title!r})"
