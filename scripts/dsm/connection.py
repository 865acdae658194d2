"""The way to DSM: tried until it answers."""

from __future__ import annotations

from playwright.sync_api import Error as BrowserError
from playwright.sync_api import TimeoutError as NotInTime

from scripts.dsm.failures import Failed, Gone
from scripts.dsm.secret import say
from scripts.dsm.session import Dsm, count

# Seconds; --slow multiplies the first.
NAVIGATION_S = 60.0  # one try to open the page
LEAST_TRY_S = 5.0
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 5.0
# What upstream's container shows on the same port until DSM answers.
PLACEHOLDER = "h1#info"


class Retry:
    """Waits between the tries of what nothing announces: a server that is back."""

    def __init__(self, dsm: Dsm, waiting_for: str) -> None:
        self._dsm = dsm
        self._waiting_for = waiting_for
        self._said = ""
        self._wait_s = FIRST_BACKOFF_S

    def after(self, why: str, failure: type[Failed]) -> None:
        """Wait longer than the last time; raise `failure` when the step's time is over."""
        if why != self._said:
            say(f"waiting for {self._waiting_for}: {why}")
            self._said = why
        if not self._dsm.left_s:
            waited = f"Waited {self._dsm.limit_s:.0f} s for {self._waiting_for}"
            raise failure(f"{waited} at {self._dsm.url}: {why}.")
        self._dsm.page.wait_for_timeout(self._dsm.plain_ms(self._wait_s))
        self._wait_s = min(self._wait_s * 2, LONGEST_BACKOFF_S)

    def limit_ms(self, patience_s: float) -> float:
        """A limit for a try; never so short, before the deadline, that it says nothing."""
        return max(self._dsm.ms(patience_s), LEAST_TRY_S * 1000)


def open_page(dsm: Dsm) -> None:
    """Open DSM's page; tried until it is there, because DSM drops connections at times.

    Raises:
        Gone: it never came.
    """
    retry = Retry(dsm, "DSM's page")
    while True:
        dsm.traffic.broken = False
        try:
            limit_ms = retry.limit_ms(NAVIGATION_S)
            answer = dsm.page.goto(dsm.url, wait_until="domcontentloaded", timeout=limit_ms)
        except BrowserError as error:
            if "net::ERR_" not in error.message and not isinstance(error, NotInTime):
                raise
            why = error.message.partition("\n")[0]
        else:
            if answer is None or not answer.ok:
                why = f"HTTP status {answer and answer.status}"
            elif count(dsm.page.locator(PLACEHOLDER)):
                why = "the container's own page is shown, not DSM's"
            else:
                return
        retry.after(why, Gone)
