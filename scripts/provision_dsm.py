#!/usr/bin/env python3
"""Drives the web wizard of a Virtual-DSM in a browser, step by step.

It needs Playwright for Python, and scripts/dsm beside it. What DSM shows is the data at the top,
which is the part to edit when DSM changes. A step can be run again at any time: it goes
on from the page that it finds, and changes nothing that is done. How it went is in
VIDEOS/STEP.webm; a failed step leaves STEP.png, STEP.html and STEP.trace.zip as well.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

if __name__ == "__main__":  # it is run by its path, wherever that leads from
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    from playwright.sync_api import TimeoutError as NotInTime
except ModuleNotFoundError:
    print("Playwright for Python is missing here; .venv/bin/python has it.", file=sys.stderr)
    raise SystemExit(7) from None

from scripts.dsm.api import login_works, require_login, wait_for_api
from scripts.dsm.browser import browsing, ended_by_signals
from scripts.dsm.connection import open_page
from scripts.dsm.failures import (
    Failed,
    Interrupted,
    LoginFailed,
    Refused,
    TimedOut,
    UnknownScreen,
    Usage,
)
from scripts.dsm.recording import recorded, save_state
from scripts.dsm.screens import (
    CLICK_S,
    LOOK_S,
    RETRY_S,
    Field,
    Screen,
    input_of,
    look,
    next_screen,
    press,
    took_effect,
)
from scripts.dsm.secret import admin_password, say
from scripts.dsm.session import Account, Dsm, on_screen

WELCOME = Screen(
    name="welcome", shows="button.welcome-page-btn", press=("button.welcome-page-btn",)
)
ADMIN_FORM = Screen(
    name="admin",
    shows="div.welcome-step-title",
    text="Get started with your VirtualDSM",
    press=("button.v-btn-main",),
    # DSM's own class for this is not known for sure; a message that appears after the click counts.
    refusal="[class*=error i], [class*=invalid i], [role=alert], div.dialog-content",
)
ADMIN_FIELDS = (
    Field(name="server name", label="^(device|server) name", css="#syno-0"),
    Field(name="user", label="^(administrator|user ?name)", css="#syno-1"),
    Field(name="password", label="^password", css="#syno-2", kind="input[type=password]"),
    Field(name="confirmation", label="^confirm", css="#syno-3", kind="input[type=password]"),
)
LOGIN = Screen(
    name="login",
    shows="input[syno-id=username], input[syno-id=password]",
    refusal="[class*=error i], [role=alert]",
)
LOGIN_USER = "input[syno-id=username]"
LOGIN_PASSWORD = "input[syno-id=password]"  # noqa: S105 - a selector
# After the admin form, in any order. Earlier ones are looked for first.
WIZARD = (
    Screen(
        name="update-options",
        shows="div.welcome-step-title",
        text="Select an update option",
        press=(
            "div.v-radio-wrapper[syno-id=welcome-app-select-update-radio-notify]",
            "button.v-btn-main",
        ),
    ),
    Screen(
        name="synology-account",
        shows="div.welcome-step-title",
        text="Create a Synology Account",
        press=("button[syno-id=welcome-app-wizard-fbar-back]",),  # Skip
    ),
    Screen(
        name="user-experience",
        shows="div.welcome-step-title",
        text="Opt-in for a better user experience",
        press=("button[syno-id=welcome-app-wizard-fbar-next]",),  # Submit
    ),
    Screen(
        name="file-access",
        shows="div.title",
        text="Securely Access and Share Files From Anywhere",
        press=("button[syno-id=syno-promotion-preinstall-btn-skip]",),  # No, thanks
    ),
    Screen(
        name="two-factor",
        shows="div.title",
        text=r"Enable 2-Factor Authentication \(2FA\)",
        press=("button[syno-id=syno-promotion-ss-btn-skip]",),  # No, thanks
    ),
    Screen(
        name="adaptive-mfa",
        shows="div.title",
        text="Protect your account with Adaptive MFA",
        press=("button[syno-id=syno-promotion-manually-amfa-btn-give-up]",),
    ),
    Screen(
        name="mfa-warning",
        shows="div.dialog-content",
        text="We strongly recommend enabling 2FA or Adaptive MFA",
        press=("button[syno-id=promotion-app-window-msgbox-fbar-commit]",),  # OK
    ),
    Screen(
        name="notification-setup",
        shows="div.v-notification-panel div.v-notification-title",
        text="Notification Setup",
        press=("i.close-btn.window-tool-close",),
    ),
    Screen(
        name="notification-reminder",
        shows="div.dialog-content",
        text="You can enable notifications later",
        press=("button[syno-id=window-manager-msg-box-fbar-commit]",),  # OK
    ),
)
FILE_SERVICES = Screen(
    name="file-services",
    shows='div[fn="SYNO.SDS.AdminCenter.FileService.Main"]',
    press=('div[fn="SYNO.SDS.AdminCenter.FileService.Main"]',),
    done='span.x-tab-strip-text:text-is("NFS")',
)
DESKTOP = Screen(
    name="desktop",
    shows="div[elementtiming=desktop-item-title]",
    text=r"Package\s*Center",
    press=('li.icon-item[syno-id="SYNO.SDS.AdminCenter.Application"]',),  # Control Panel
    done=FILE_SERVICES.shows,
)
NFS_ON = Screen(name="nfs-on", shows="input[name=enable_nfs]:checked + div.syno-ux-checkbox-icon")
NFS_OFF = Screen(
    name="nfs-checkbox",
    shows="input[name=enable_nfs]:not(:checked) + div.syno-ux-checkbox-icon",
    press=("input[name=enable_nfs] + div.syno-ux-checkbox-icon",),
    done=NFS_ON.shows,
)
NFS_TAB = Screen(
    name="nfs-tab",
    shows='span.x-tab-strip-text:text-is("NFS")',
    press=('span.x-tab-strip-text:text-is("NFS")',),
    done="input[name=enable_nfs] + div.syno-ux-checkbox-icon",
)
APPLY = Screen(
    name="apply",
    shows='button.x-btn-text:text-is("Apply")',
    press=('button.x-btn-text:text-is("Apply")',),
    done='div.syno-ux-statusbar-success:has-text("Changes applied")',
    answered=True,
    refusal="div.syno-ux-statusbar-error",
)
# Seconds; --slow multiplies it.
QUIET_S = 3.0  # the desktop must be free of dialogs for this long
# A screen that comes back more often, or a setting that does not stay, is a failure.
MOST_RETURNS = 5
MOST_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a step did; `already`: there was nothing to do."""

    done: tuple[str, ...]
    already: bool


# The steps


def wait_for_boot(dsm: Dsm) -> Report:
    """Wait until DSM shows its welcome page, or its login if it has been set up."""
    wait_for_api(dsm)
    say("DSM's API answers")
    open_page(dsm)
    screen = next_screen(dsm, (WELCOME, LOGIN))
    return Report(done=(screen.name,), already=screen is LOGIN)


def configure_admin(dsm: Dsm) -> Report:
    """Name the server and create its administrator, then prove that the login works."""
    done: list[str] = []
    open_page(dsm)
    while (screen := next_screen(dsm, (LOGIN, ADMIN_FORM, WELCOME))) is WELCOME:
        press(dsm, WELCOME)
        done.append(WELCOME.name)
    if screen is ADMIN_FORM:
        create_admin(dsm)
        done.append(ADMIN_FORM.name)
    require_login(dsm)
    say(f"the login of {dsm.account.user} works")
    return Report(done=tuple(done), already=not done)


def post_wizard(dsm: Dsm) -> Report:
    """Answer the screens that follow, until nothing is before the desktop."""
    done: list[str] = []
    open_page(dsm)
    while True:
        _, passed = walk(dsm, (*WIZARD, DESKTOP), goals=(DESKTOP,))
        done += passed
        if desktop_is_free(dsm):
            return Report(done=tuple(done), already=not {*done} - {LOGIN.name})


def configure_system(dsm: Dsm) -> Report:
    """Enable NFS, and see on a fresh page that it has stayed."""
    done: list[str] = []
    way = (*WIZARD, NFS_ON, NFS_OFF, NFS_TAB, FILE_SERVICES, DESKTOP)
    for tried in range(MOST_TRIES + 1):
        open_page(dsm)
        state, passed = walk(dsm, way, goals=(NFS_ON, NFS_OFF))
        done += passed
        if state is NFS_ON:
            return Report(done=(*done, NFS_ON.name), already=not tried)
        if tried < MOST_TRIES:
            say("NFS is off" if not tried else "NFS is off again")
            press(dsm, NFS_OFF)
            press(dsm, APPLY)
            done += [NFS_OFF.name, APPLY.name]
    raise Refused(f"NFS was enabled and applied {MOST_TRIES} times and is off on a fresh page.")


# Screens


def walk(
    dsm: Dsm, screens: Sequence[Screen], *, goals: Sequence[Screen]
) -> tuple[Screen, list[str]]:
    """Press through the screens as they come; returns the goal that was reached, and the way."""
    passed: list[str] = []
    while True:
        screen = next_screen(dsm, (LOGIN, *screens))
        if screen in goals:
            return screen, passed
        if Counter(passed)[screen.name] >= MOST_RETURNS:
            raise TimedOut(f"The screen {screen.name} came back {MOST_RETURNS} times.")
        if screen is LOGIN:
            log_in(dsm)
        else:
            press_unless_covered(dsm, screen, screens)
        passed.append(screen.name)


def press_unless_covered(dsm: Dsm, screen: Screen, screens: Sequence[Screen]) -> None:
    """Press, or do nothing if one of the screens that are looked for earlier is before it."""
    try:
        press(dsm, screen)
    except UnknownScreen:
        if look(dsm, screens, LOOK_S) is screen:
            raise


def desktop_is_free(dsm: Dsm) -> bool:
    """Whether nothing is before the desktop; False: a screen that we know is.

    Raises:
        UnknownScreen: it is covered by something else.
    """
    if look(dsm, WIZARD, QUIET_S):
        return False
    icon = dsm.page.locator(DESKTOP.press[0]).first
    try:
        icon.click(trial=True, timeout=dsm.ms(CLICK_S))
    except NotInTime as error:
        if look(dsm, (LOGIN, *WIZARD), LOOK_S):
            return False
        dsm.require_time("the desktop")
        raise UnknownScreen(f"The desktop is covered by {on_screen(dsm.page)}.") from error
    return True


# The account


def create_admin(dsm: Dsm) -> None:
    """Fill in the admin form and submit it.

    Raises:
        Refused: DSM does not take the values.
    """
    values = (dsm.account.server, dsm.account.user, dsm.account.password, dsm.account.password)
    inputs = [input_of(dsm.page, ADMIN_FORM, field) for field in ADMIN_FIELDS]
    try:
        for place, value in zip(inputs, values, strict=True):
            place.fill(value, timeout=dsm.ms(CLICK_S))
        kept = [place.input_value(timeout=dsm.ms(CLICK_S)) for place in inputs]
    except NotInTime as error:
        dsm.require_time("the admin form")
        raise UnknownScreen(f"{on_screen(dsm.page)} cannot be filled in.") from error
    for field, value, seen in zip(ADMIN_FIELDS, values, kept, strict=True):
        if seen != value:
            raise Refused(f"The admin form does not keep what is put into its {field.name}.")
    try:
        press(dsm, ADMIN_FORM)
    except Refused:
        # If the answer to the first click was lost, the second one finds the user existing.
        if not login_works(dsm):
            raise


def log_in(dsm: Dsm) -> None:
    """Log in by the page's form; the API tells first whether account and password are right.

    Raises:
        LoginFailed: they are not, or the form is not left.
    """
    require_login(dsm)
    user, password = (dsm.page.locator(css).first for css in (LOGIN_USER, LOGIN_PASSWORD))
    limit_ms = dsm.ms(RETRY_S)
    for _ in range(MOST_TRIES):
        with contextlib.suppress(NotInTime):
            if user.is_visible():
                user.fill(dsm.account.user, timeout=limit_ms)
            if not password.is_visible():  # DSM 7 asks for one after the other
                user.press("Enter", timeout=limit_ms)
            password.fill(dsm.account.password, timeout=limit_ms)
            mark = dsm.traffic.mark()
            password.press("Enter", timeout=limit_ms)
            if took_effect(dsm, LOGIN, mark, []):
                return
        if not look(dsm, (LOGIN,), LOOK_S):
            return
    dsm.require_time("the login form")
    raise LoginFailed(f"DSM's API takes the password, but its login form stays: {dsm.page.url}.")


# The command line


@dataclass(frozen=True, kw_only=True)
class Step:
    """A subcommand.

    Args:
        limit_s: how long it may take, in seconds, on KVM.
        session: whether it begins with the cookies of --state. The earlier steps look at DSM as
            a stranger does, to whom it shows whether there is an administrator.
    """

    run: Callable[[Dsm], Report]
    limit_s: float
    session: bool = False


STEPS = {
    "wait-for-boot": Step(run=wait_for_boot, limit_s=600),
    "configure-admin": Step(run=configure_admin, limit_s=300),
    "post-wizard": Step(run=post_wizard, limit_s=300, session=True),
    "configure-system": Step(run=configure_system, limit_s=180, session=True),
}
ALL = "all"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    steps = "\n".join(f"  {name:17} {step.run.__doc__}" for name, step in STEPS.items())
    causes = sorted(Failed.__subclasses__(), key=lambda cause: cause.status)
    statuses = "\n".join(f"  {cause.status}  {cause.__doc__}" for cause in causes)
    made = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{__doc__}\nsteps:\n{steps}\n  {ALL:17} All of them, in this order.",
        epilog="environment:\n"
        "  DSM_SERVER_NAME   name of the server (vdsm-ci)\n"
        "  DSM_ADMIN_USER    its administrator (ciadmin)\n"
        "  DSM_ADMIN_PASS    the administrator's password\n"
        "  DSM_BASE_URL      DSM's address, if neither --url nor --vm-ip is given\n\n"
        f"exit status:\n  0  Done, or nothing to do.\n  1  A mistake in this program.\n{statuses}",
    )
    made.add_argument("step", choices=(*STEPS, ALL), metavar="STEP")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--url", help="DSM's address, such as http://127.0.0.1:5000")
    where.add_argument("--vm-ip", metavar="IP", help="DSM's IP address; its port is 5000")
    made.add_argument("--videos", type=Path, default=Path("videos"), help="default: videos")
    made.add_argument("--artifacts", type=Path, help="for what a failure leaves; default: VIDEOS")
    made.add_argument("--state", type=Path, help="keep the cookies in this file; default: nowhere")
    made.add_argument("--timeout", type=positive, metavar="SECONDS", help="time for each step")
    made.add_argument(
        "--slow",
        type=positive,
        default=1.0,
        metavar="FACTOR",
        help="stretch every limit: 10 on TCG",
    )
    made.add_argument("--headed", action="store_true", help="show the browser")
    return made


def positive(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def address(url: str | None, vm_ip: str | None) -> str:
    """DSM's address, without a slash at the end.

    Raises:
        Usage: there is none, or it isn't one.
    """
    if vm_ip:
        try:
            ip = ipaddress.ip_address(vm_ip)
        except ValueError as error:
            raise Usage(f"--vm-ip: {error}.") from error
        return f"http://{f'[{ip}]' if ip.version == 6 else ip}:5000"
    chosen = url or os.environ.get("DSM_BASE_URL") or ""
    if not chosen:
        raise Usage("Where is DSM? Give --url or --vm-ip.")
    if not re.fullmatch(r"http://[^/?#@\s]+/?", chosen):
        raise Usage(f"DSM's address must be like http://127.0.0.1:5000, not {chosen}.")
    return chosen.rstrip("/")


def account() -> Account:
    """What the environment says about DSM's administrator."""
    return Account(
        server=os.environ.get("DSM_SERVER_NAME") or "vdsm-ci",
        user=os.environ.get("DSM_ADMIN_USER") or "ciadmin",
        password=admin_password(),
    )


def run(options: argparse.Namespace) -> None:
    """Run the steps that the command line names; a JSON line on stdout for each."""
    url = address(options.url, options.vm_ip)
    artifacts = options.artifacts or options.videos
    for folder in (options.videos, artifacts):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Usage(f"Nothing can be written there: {error}.") from error
    names = tuple(STEPS) if options.step == ALL else (options.step,)
    with browsing(headed=options.headed) as (browser, scratch):
        for name in names:
            step = STEPS[name]
            began = time.monotonic()
            say(f"{name} at {url}")
            state = options.state if step.session else None
            places = {"videos": options.videos, "artifacts": artifacts, "state": state}
            with recorded(browser, scratch, name, **places) as page:
                limit_s = options.timeout or step.limit_s * options.slow
                dsm = Dsm(url=url, account=account(), page=page, limit_s=limit_s, slow=options.slow)
                report = step.run(dsm)
                if options.state:
                    save_state(page.context, options.state)
            say(
                f"{name}: {'nothing to do' if report.already else 'done'}"
                f" in {time.monotonic() - began:.1f} s"
            )
            result = {"step": name, "done": report.done, "already": report.already}
            print(json.dumps(result), flush=True)


def tell_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python's own excepthook, but without the password."""
    say("".join(traceback.format_exception(kind, error, trace)))


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status; anything but a failure of a step is a bug and keeps its traceback."""
    sys.excepthook = tell_bug
    options = parser().parse_args(argv)
    try:
        with ended_by_signals():
            run(options)
    except Failed as error:
        say(f"failed: {error}")
        return error.status
    except Interrupted as error:
        say(f"ended by {error}")
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
