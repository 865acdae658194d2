"""The browser: found, started, ended in any case; and the ffmpeg for its videos."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess  # noqa: TID251 - part of a program that stands alone
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright
from playwright.sync_api import Error as BrowserError

from scripts.dsm.failures import Interrupted, NoBrowser

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
FFMPEG_NAMES = {"linux": "ffmpeg-linux", "darwin": "ffmpeg-mac"}  # as Playwright looks for it
DRY_RUN_S = 60


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn the first signal that asks for the end into Interrupted; a second one does nothing."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        heard.append(number)
        raise Interrupted(number)

    # What is ignored stays ignored: a shell does that to its background jobs.
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    except Exception as error:
        # In the middle of Playwright's work it may come out as an error of Playwright's own.
        if heard:
            raise Interrupted(heard[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def browsing(*, headed: bool) -> Iterator[tuple[Browser, Path]]:
    """A running browser, and a private folder for what it writes; both end with the block.

    Raises:
        NoBrowser: none can be started.
    """
    with private_folder() as folder, sync_playwright() as playwright:
        browser = launch(playwright, folder, headed=headed)
        try:
            yield browser, folder
        finally:
            with contextlib.suppress(BrowserError):  # it has crashed, or was ended before us
                browser.close()


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for all temporary files of Playwright and Chromium, which leave some behind.

    Nobody else can look into it: raw traces hold the password. Its name is short, because
    Chromium puts a socket there.
    """
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="dsm-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder  # Playwright's driver knows no other way
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


def launch(playwright: Playwright, traces: Path, *, headed: bool) -> Browser:
    """Start Playwright's own Chromium, or else the system's."""
    reasons = []
    for path in (None, *filter(None, map(shutil.which, CHROMIUMS))):
        try:
            return playwright.chromium.launch(
                executable_path=path,
                headless=not headed,
                traces_dir=traces,
                # Chromium refuses to run its sandbox as root; everybody else has it.
                chromium_sandbox=os.geteuid() != 0,
                # DSM is near; a proxy would only be in the way.
                args=["--no-proxy-server"],
            )
        except BrowserError as error:
            reasons.append(f"{path or 'of Playwright'}: {telling_line(error.message)}")
    raise NoBrowser(
        "No Chromium can be started. Install the package chromium, or run"
        f" `{sys.executable} -m playwright install chromium`. Tried: {'; '.join(reasons)}"
    )


def telling_line(message: str) -> str:
    """The line of Playwright's long message that says why a browser did not start."""
    lines = [line.strip() for line in message.splitlines() if "<launching>" not in line]
    # Chromium's own last words; what the loader or the sandbox says; what Playwright says.
    for telling in ("FATAL", "shared librar|sandbox is|Running as root|DISPLAY", "doesn't exist"):
        for line in lines:
            if re.search(telling, line):
                return re.sub(r"^(- )?(\[[^]]*\]\s*)+", "", line)
    return lines[0]


def new_page(context: BrowserContext) -> Page:
    """A page with a video; Playwright's ffmpeg is put in its place if it is missing."""
    try:
        return context.new_page()
    except BrowserError as error:
        if "ffmpeg" not in error.message:
            raise
    link_ffmpeg()
    return context.new_page()


def link_ffmpeg() -> None:
    """Link the system's ffmpeg to the place where Playwright looks for its own.

    Raises:
        NoBrowser: there is none, or the place cannot be written to.
    """
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        raise NoBrowser(
            "There is no ffmpeg for the video. Install the package ffmpeg, or run"
            f" `{sys.executable} -m playwright install ffmpeg`."
        )
    try:
        told = subprocess.run(
            [sys.executable, "-m", "playwright", "install", "--dry-run", "ffmpeg"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DRY_RUN_S,
            check=True,
        ).stdout
        folder = Path(told.partition("Install location:")[2].splitlines()[0].strip())
        folder.mkdir(parents=True, exist_ok=True)
        # Made aside and renamed, because another build may do the same at this moment.
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            link = Path(aside, "ffmpeg")
            link.symlink_to(ffmpeg)
            link.replace(folder / FFMPEG_NAMES[sys.platform])
    except (OSError, subprocess.SubprocessError, IndexError, KeyError) as error:
        raise NoBrowser(f"Playwright cannot be given {ffmpeg} for its videos: {error}") from error
