"""The HTML report in a real browser: what a reader does with it, and what it looks like to one."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tasks.ci.data import ReportData, Video
from tasks.ci.report.page import render
from tests.standins.validations import AROUND, HOSTILE, image, run, validation

pytestmark = pytest.mark.integration

DESK = (1280, 900)
PHONE = (360, 780)
# All text that can be seen, with less contrast than WCAG 2.2 AA asks for (1.4.3).
FAINT = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const back = channels(getComputedStyle(at).backgroundColor);
      if (back.length === 3 || back[3] === 1) return back;
    }
    return [255, 255, 255];
  };
  const faint = new Set();
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || ["SCRIPT", "title"].includes(node.tagName) || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const ink = channels(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) {
      faint.add(`${ratio.toFixed(2)} ${node.tagName}.${node.className} ${node.textContent.trim()}`);
    }
  }
  return [...faint];
}"""
RECORD = """async () => {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d");
  const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: "video/webm" });
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const stopped = new Promise((done) => { recorder.onstop = done; });
  recorder.start();
  for (let n = 0; n < 10; n += 1) {
    await new Promise(requestAnimationFrame);
    pen.fillRect(n * 10, 0, 10, 100);
  }
  recorder.stop();
  await stopped;
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  return btoa(String.fromCharCode(...bytes));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Playwright's own Chromium if it is installed, else the system's."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = own if Path(own).exists() else shutil.which("chromium")
        # Chromium's sandbox can't be had by root.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=path, args=flags) as started:
            yield started


@dataclass
class Reader:
    """Opens reports and notes what a browser complains about and what it asks for."""

    browser: Browser
    folder: Path
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(
        self,
        data: ReportData,
        size: tuple[int, int] = DESK,
        *,
        dark: bool = False,
        scripts: bool = True,
        place: str = "",
    ) -> Page:
        """The page of a report, loaded from disk."""
        file = self.folder / "report.html"
        file.write_text(render(data))
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(f"{file.as_uri()}{place}")
        return page


@pytest.fixture
def reader(browser: Browser, tmp_path: Path) -> Iterator[Reader]:
    """A reader; the test fails if the browser complained or asked for anything from afar."""
    made = Reader(browser=browser, folder=tmp_path)
    yield made
    for context in browser.contexts:
        context.close()
    assert made.complaints == []
    assert [url for url in made.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def twelve() -> ReportData:
    """Twelve images with sixty checks, and a dead one."""
    return run(13)


def rows(page: Page) -> Locator:
    """The rows of the grid that can be seen, without those of whole groups."""
    return page.locator("#grid tbody tr:not(.whole):visible")


def toggle(page: Page, outcome: str) -> Locator:
    """The button that shows one outcome only."""
    return page.get_by_role("group", name="Outcome").get_by_role("button", name=outcome)


def test_it_is_small_and_opens_fast(
    reader: Reader, record_property: Callable[[str, object], None]
) -> None:
    size = len(render(twelve()).encode())
    page = reader.open(twelve())
    times = page.evaluate(
        """async () => {
          await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          const paint = performance.getEntriesByName("first-contentful-paint")[0];
          const [load] = performance.getEntriesByType("navigation");
          return { paint: paint.startTime, load: load.loadEventEnd };
        }"""
    )
    for name, value in {"bytes": size, **times}.items():
        record_property(name, value)
        print(f"report, 12 images x 60 checks: {name} {value:.0f}")
    assert size < 1_000_000


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_failing_check_is_one_click_away(reader: Reader, size: tuple[int, int]) -> None:
    page = reader.open(twelve(), size)
    page.locator("#failures").get_by_role("link", name="development debian-12").first.click()
    expect(page.get_by_text("could not insert 'vexfs'").first).to_be_in_viewport()
    expect(page.locator("details.check[open]")).to_have_count(1)
    # Its name is not below the heading that stays in view.
    assert page.locator("details.check[open] .name").evaluate(
        """name => {
          const box = name.getBoundingClientRect();
          return document.elementFromPoint(box.left + 5, box.top + 2) === name;
        }"""
    )


def test_so_it_is_from_the_grid(reader: Reader) -> None:
    page = reader.open(twelve())
    page.get_by_role("row", name="vermagic equals").get_by_role("link", name="failed").first.click()
    expect(page.get_by_text("vermagic is 6.12.101").last).to_be_attached()
    expect(page.locator("details.check[open] dd").first).to_be_in_viewport()


def test_a_link_that_is_clicked_twice_leads_there_twice(reader: Reader) -> None:
    page = reader.open(twelve())
    link = page.locator("#failures .where a").last
    for _ in range(2):
        link.click()
        opened = page.locator("details.check[open] > summary")
        expect(opened).to_be_in_viewport()
        opened.click()
        expect(page.locator("details.check[open]")).to_have_count(0)


def test_a_deep_link_opens_what_it_names(reader: Reader) -> None:
    page = reader.open(twelve(), place="#c6-9")
    expect(page.locator("#c6-9")).to_be_in_viewport()
    page.get_by_role("link", name="Next failure").click()
    expect(page.locator("#c6-10")).to_be_in_viewport()


def test_what_is_opened_by_hand_has_an_address(reader: Reader) -> None:
    page = reader.open(twelve(), place="#c1-1")
    page.locator("details:has(> #c1-3) > summary").click()
    assert page.url.endswith("#c1-3")


def test_without_scripts_all_is_there_and_links_work(reader: Reader) -> None:
    page = reader.open(twelve(), scripts=False)
    assert rows(page).count() == 60
    expect(page.get_by_role("searchbox")).to_have_count(0)
    page.locator("#failures .where a").nth(1).click()
    expect(page.locator("#c2-9")).to_be_in_viewport()


def test_calm_groups_are_folded_until_they_are_wanted(reader: Reader) -> None:
    page = reader.open(twelve())
    assert rows(page).count() == 15  # module and filesystem have failures
    page.get_by_role("button", name="boot").click()
    assert rows(page).count() == 22
    page.get_by_role("button", name="Open all groups").click()
    assert rows(page).count() == 60
    page.get_by_role("button", name="Close all groups").click()
    assert rows(page).count() == 0


def test_filters_by_outcome_group_and_text(reader: Reader) -> None:
    page = reader.open(twelve())
    count = page.get_by_role("status")
    toggle(page, "failed").click()
    expect(count).to_have_text("4 of 720")
    assert rows(page).count() == 2
    toggle(page, "could not be done").click()
    expect(count).to_have_text("6 of 720")
    page.get_by_role("combobox").select_option("filesystem")
    expect(count).to_have_text("2 of 720")
    page.get_by_role("button", name="Clear").click()
    expect(count).to_have_text("")
    search = page.get_by_role("searchbox")
    search.fill("exec FORMAT")  # is in the output of a folded check only
    expect(count).to_have_text("2 of 720")
    assert page.locator("details.image:visible").count() == 2
    search.fill("development ubuntu vermagic")
    expect(count).to_have_text("1 of 720")
    search.fill("no such thing")
    expect(count).to_have_text("0 of 720")
    assert rows(page).count() == 0
    search.press("Escape")
    assert page.locator("details.check:not([hidden])").count() == 720


def test_an_image_that_did_not_boot_is_found_by_its_reason(reader: Reader) -> None:
    page = reader.open(twelve())
    page.get_by_role("searchbox").fill("panicked")
    assert page.locator("details.image:visible").count() == 1
    page.get_by_role("searchbox").fill("")
    toggle(page, "could not be done").click()
    assert page.locator("details.image:visible").count() == 3


def test_a_filter_gives_way_to_a_link(reader: Reader) -> None:
    page = reader.open(twelve())
    toggle(page, "skipped").click()
    page.locator("#failures .where a").nth(1).click()
    expect(page.locator("#c2-9")).to_be_in_viewport()


def test_by_keyboard_alone(reader: Reader) -> None:
    page = reader.open(twelve())
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the results")).to_be_in_viewport()
    page.keyboard.press("Enter")
    for _ in range(2):  # the first is the image that did not boot
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#c2-9")).to_be_in_viewport()
    expect(page.locator("details:has(> #c2-9) > summary")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#c2-9")).not_to_be_visible()


def test_the_grid_is_one_stop_and_has_arrow_keys(reader: Reader) -> None:
    page = reader.open(twelve())
    page.get_by_role("button", name="module").focus()
    page.keyboard.press("Tab")
    first = page.locator("#grid td a:focus")
    assert first.get_attribute("aria-label") == "2 failed"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator("#grid td a:focus").get_attribute("href") == "#c2-9"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # over the image that has no checks
    assert page.locator("#grid td a:focus").get_attribute("href") == "#c5-9"
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="filesystem")).to_be_focused()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_all_text_can_be_read_at_every_size(
    reader: Reader, size: tuple[int, int], dark: bool
) -> None:
    data = twelve()
    # One image with all checks and one that is dead: contrast is the same for their likes.
    page = reader.open(
        replace(data, validations=data.validations[1:4], timelines=data.timelines[1:4]),
        size,
        dark=dark,
    )
    page.get_by_role("button", name="Open all groups").click()
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate(FAINT) == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(back.split("(")[1].split(",")[0]) < 100) is dark
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size[0]


@pytest.mark.parametrize("images", [1, 13, 30])
def test_a_phone_never_scrolls_sideways(reader: Reader, images: int) -> None:
    data = run(images)
    endless = validation(
        *image(0).checks[:3], image=f"{'x' * 300}.qcow2", variant="y" * 200, error="z" * 500
    )
    page = reader.open(replace(data, validations=(*data.validations, endless)), PHONE)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_hostile_output_is_shown_and_not_obeyed(reader: Reader) -> None:
    bad = replace(image(0).checks[0], outcome="failed", reason=HOSTILE, output=HOSTILE)
    page = reader.open(replace(run(1), validations=(validation(bad, console=(HOSTILE,)),)))
    page.locator("#failures .where a").click()
    expect(page.locator("details.check pre")).to_contain_text("<script>document.title='owned'")
    assert page.title().startswith("The image failed")
    assert page.locator("main img").count() == 0


def test_videos_play_from_inside_and_from_beside(reader: Reader) -> None:
    blank = reader.browser.new_page()
    film = base64.b64decode(blank.evaluate(RECORD))
    (reader.folder / "videos").mkdir()
    (reader.folder / "videos" / "post wizard.webm").write_bytes(film)
    inside = Video(title="configure admin", href="./videos/gone.webm", content=film)
    beside = Video(title="post wizard", href="./videos/post%20wizard.webm")
    page = reader.open(run(1, videos=(inside, beside)))
    for title in ("configure admin", "post wizard"):
        page.wait_for_function(
            "title => document.querySelector(`video[aria-label='${title}']`).readyState >= 1",
            arg=title,
        )


def test_paper_shows_the_failures_and_no_buttons(reader: Reader) -> None:
    page = reader.open(twelve(), dark=True)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#c2-9")).to_be_visible()
    expect(page.locator("#c1-1")).not_to_be_visible()
    expect(page.get_by_role("searchbox")).to_have_count(0)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(page.locator("#c2-9")).not_to_be_visible()


def test_what_failed_around_the_images_is_one_click_away(reader: Reader) -> None:
    page = reader.open(replace(twelve(), around=AROUND))
    page.locator("#failures a[href='#c0-2']").click()
    expect(page.locator("#c0-2 pre")).to_be_visible()
    expect(page.locator("#c0-2")).to_contain_text("shellcheck scripts/guest/seal.sh")


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_and_does_not_disturb_the_filters(reader: Reader, dark: bool) -> None:
    page = reader.open(replace(twelve(), around=AROUND), PHONE, dark=dark, place="#c0-2")
    assert page.evaluate(FAINT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    toggle(page, "failed").click()
    expect(page.locator("#around details").first).to_be_visible()
