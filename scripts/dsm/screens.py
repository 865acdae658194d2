"""Screens of a page: which one is shown, and pressing what it asks for until that worked."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as NotInTime

from scripts.dsm.connection import PLACEHOLDER, open_page
from scripts.dsm.failures import Refused, UnknownScreen
from scripts.dsm.secret import say
from scripts.dsm.session import Dsm, count, headline, on_screen, texts

# Seconds, for a DSM on KVM; --slow multiplies them.
CLICK_S = 10.0  # until a thing that is shown can be clicked
RETRY_S = 5.0  # until a click without any effect is repeated
ANSWER_S = 180.0  # the same if it has made a request that is not answered
LOOK_S = 5.0  # a page that stays the same for two of these is an unknown screen
# Not multiplied: how often a wait looks what else has happened.
LAP_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Screen:
    """Something that DSM shows, and what to do there.

    Args:
        name: as it is reported.
        shows: the selector of the element that identifies it; it counts where it is visible.
        text: a regular expression that is found in the element's text.
        press: what is clicked, one after the other; each is looked for in the smallest part of
            the page that holds the identifying element and the last of them.
        done: the selector of what is visible when that worked; empty: the screen is gone.
        answered: whether `done` may have been there before, so that it counts only when DSM has
            answered a request that was made after the click.
        refusal: the selector of messages that say why DSM does not do it.
    """

    name: str
    shows: str
    text: str = ""
    press: tuple[str, ...] = ()
    done: str = ""
    answered: bool = False
    refusal: str = ""


@dataclass(frozen=True, kw_only=True)
class Field:
    """An input of a form: by the text before it, or else by its id; always of its kind."""

    name: str
    label: str
    css: str
    kind: str = "input:not([type=password])"


def next_screen(dsm: Dsm, screens: Sequence[Screen]) -> Screen:
    """Wait for one of the screens; the first of them if several are visible.

    Raises:
        UnknownScreen: the page has shown something else for a while.
    """
    names = ", ".join(screen.name for screen in screens)
    patience_s, seen = LOOK_S, ""
    while True:
        if screen := look(dsm, screens, patience_s):
            say(f"screen: {screen.name}")
            return screen
        dsm.require_time(f"one of {names}")
        last, seen = seen, headline(dsm.page)
        if seen and seen == last:
            raise UnknownScreen(f"DSM shows {on_screen(dsm.page)}. Expected one of {names}.")
        if dsm.traffic.broken or count(dsm.page.locator(PLACEHOLDER)):
            # Half a page stays half. A DSM that is slow gets more time after each try.
            say("the page is incomplete, opening it again")
            open_page(dsm)
            patience_s *= 2


def look(dsm: Dsm, screens: Sequence[Screen], patience_s: float) -> Screen | None:
    """The first of the screens that is visible, waiting up to `patience_s` for any."""
    shown = [visible(dsm.page, screen) for screen in screens]
    with contextlib.suppress(NotInTime):
        functools.reduce(Locator.or_, shown).first.wait_for(timeout=dsm.ms(patience_s))
    return next((screen for screen, at in zip(screens, shown, strict=True) if count(at)), None)


def visible(page: Page, screen: Screen) -> Locator:
    """The visible elements that identify a screen; there may be several."""
    found = page.locator(screen.shows).filter(visible=True)
    return found.filter(has_text=re.compile(screen.text)) if screen.text else found


def part_of(page: Page, screen: Screen, css: str) -> Locator:
    """The smallest part of the page that holds the screen's identifying element and `css`."""
    around = visible(page, screen).first.locator("xpath=ancestor::*")
    return around.filter(has=page.locator(css).filter(visible=True)).last


def press(dsm: Dsm, screen: Screen) -> None:
    """Click what the screen wants clicked, until it is done or something else is shown.

    Raises:
        Refused: DSM shows a message instead.
        UnknownScreen: the screen stays, but what is to be clicked is not there.
    """
    before = messages(dsm.page, screen)
    while True:
        mark = dsm.traffic.mark()
        try:
            for css in screen.press:
                target = part_of(dsm.page, screen, screen.press[-1]).locator(css)
                target.filter(visible=True).first.click(timeout=dsm.ms(CLICK_S))
        except NotInTime as error:
            if not count(visible(dsm.page, screen)):
                return
            dsm.require_time(f"the screen {screen.name}")
            what = f"On the screen {screen.name} this cannot be clicked: {', '.join(screen.press)}."
            raise UnknownScreen(f"{what} DSM shows {on_screen(dsm.page)}.") from error
        if took_effect(dsm, screen, mark, before):
            return
        say(f"{screen.name}: nothing happened, clicking again")


def took_effect(dsm: Dsm, screen: Screen, mark: int, before: list[str]) -> bool:
    """Wait for the screen's done-condition; False if the click at `mark` did nothing.

    A request that is not answered yet is a DSM that is slow, and waited for.
    """
    began = idle_since = time.monotonic()
    while not is_done(dsm, screen, mark):
        said = messages(dsm.page, screen)
        now = time.monotonic()
        if dsm.traffic.pending(mark):
            # The page has yet to do something with the answer when it is there.
            idle_since = now
            patient = now - began < ANSWER_S * dsm.slow
        else:
            patient = now - idle_since < RETRY_S * dsm.slow
        if said and (said != before or not patient):
            raise Refused(f"DSM refused it on the screen {screen.name}: {' '.join(said)}")
        dsm.require_time(f"the screen {screen.name} to take effect")
        if not patient:
            return False
    return True


def is_done(dsm: Dsm, screen: Screen, mark: int) -> bool:
    """Whether the screen's done-condition comes to hold within a lap."""
    lap_ms = dsm.plain_ms(LAP_S)
    try:
        if screen.done:
            dsm.page.locator(screen.done).filter(visible=True).first.wait_for(timeout=lap_ms)
        else:
            expect(visible(dsm.page, screen)).to_have_count(0, timeout=lap_ms)
        if screen.answered and not dsm.traffic.answered(mark):
            dsm.page.wait_for_event("response", timeout=lap_ms)
            return dsm.traffic.answered(mark)
    except (NotInTime, AssertionError):
        return False
    return True


def messages(page: Page, screen: Screen) -> list[str]:
    """The texts of the visible messages by which DSM refuses what a screen asked for."""
    return texts(page.locator(screen.refusal)) if screen.refusal else []


def input_of(page: Page, form: Screen, field: Field) -> Locator:
    """The one visible input of a field of a form."""
    part = part_of(page, form, form.press[-1])
    label = part.locator(f":text-matches({json.dumps(field.label)}, 'i')")
    for place in (label.locator("xpath=following::input[1]"), part.locator(field.css)):
        found = place.and_(page.locator(field.kind)).filter(visible=True)
        if count(found) == 1:
            return found
    raise UnknownScreen(f"The {form.name} form has no {field.name} ({field.kind}, {field.css}).")
