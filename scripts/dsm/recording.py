"""What a step leaves: its video, evidence of a failure, the session's cookies. No password."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize
from playwright.sync_api import Error as BrowserError

from scripts.dsm.browser import new_page
from scripts.dsm.failures import Usage
from scripts.dsm.secret import admin_password, hidden, say, spellings

VIEWPORT = ViewportSize(width=1280, height=720)
SCREENSHOT_MS = 20_000


@contextlib.contextmanager
def recorded(
    browser: Browser, scratch: Path, step: str, *, videos: Path, artifacts: Path, state: Path | None
) -> Iterator[Page]:
    """A page whose video is left in `videos`; if the block fails, evidence in `artifacts`.

    Args:
        scratch: a private folder.
        state: a file of cookies to begin with, if it exists.

    Raises:
        NoBrowser: there is no ffmpeg, without which there is no video.
        Usage: the state file is damaged.
    """
    for old in evidence_of(step, artifacts):
        old.unlink(missing_ok=True)
    context = browser.new_context(
        viewport=VIEWPORT,
        record_video_dir=scratch,
        record_video_size=VIEWPORT,
        storage_state=usable_state(state),
    )
    with contextlib.ExitStack() as leaving:
        leaving.callback(close, context)
        page = new_page(context)
        leaving.callback(keep_video, page, videos / f"{step}.webm")
        context.tracing.start(screenshots=True, snapshots=True)
        try:
            yield page
        except Exception:
            keep_evidence(page, step, artifacts, scratch)
            raise


def close(context: BrowserContext) -> None:
    """Close it and its pages; harmless if the browser is gone or it is closed."""
    with contextlib.suppress(BrowserError):
        context.close()


def keep_video(page: Page, target: Path) -> None:
    """Close a page and publish its video, which is complete only then."""
    close(page.context)
    # A browser that was killed leaves none.
    with contextlib.suppress(BrowserError, OSError):
        assert page.video
        publish(Path(page.video.path()).read_bytes(), target)
        say(f"video: {target}")


def publish(content: bytes, target: Path) -> None:
    """Write a file at once or not at all."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(target)


def publish_trace(trace: Path, target: Path) -> None:
    """Publish a trace without the password.

    Playwright records each value that is filled in, and each form that is sent.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    with zipfile.ZipFile(trace) as old, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            for spelling in spellings(admin_password()):
                content = content.replace(spelling.encode(), b"********")
            new.writestr(name, content)
    aside.replace(target)


def evidence_of(step: str, folder: Path) -> tuple[Path, Path, Path]:
    """Where a failed step leaves screenshot, DOM and trace."""
    return folder / f"{step}.png", folder / f"{step}.html", folder / f"{step}.trace.zip"


def keep_evidence(page: Page, step: str, folder: Path, scratch: Path) -> None:
    """Keep what the page shows, and how it came to that."""
    picture, dom, trace = evidence_of(step, folder)
    # A browser that has crashed shows nothing; the trace may still be had.
    with contextlib.suppress(BrowserError):
        publish(page.screenshot(timeout=SCREENSHOT_MS), picture)
    with contextlib.suppress(BrowserError):
        publish(hidden(page.content()).encode(), dom)
    with contextlib.suppress(BrowserError):
        page.context.tracing.stop(path=scratch / "trace.zip")
        publish_trace(scratch / "trace.zip", trace)
    for path in filter(Path.exists, (picture, dom, trace)):
        say(f"see {path}")


def usable_state(path: Path | None) -> Path | None:
    """The file of cookies that an earlier step has left, if there is one.

    Raises:
        Usage: it is no such file.
    """
    if path is None or not path.exists():
        return None
    try:
        if isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
            return path
    except ValueError:
        pass
    raise Usage(f"{path} holds no browser state. Delete it: the steps can log in anew.")


def save_state(context: BrowserContext, path: Path) -> None:
    """Keep the cookies for the next step, readable by nobody else; nothing if there are none."""
    state = context.storage_state()
    if not state.get("cookies"):
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        json.dump(state, stream)
    aside.replace(path)
