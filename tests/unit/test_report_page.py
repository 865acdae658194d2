"""The HTML report as text: complete, small, closed to whatever a guest prints."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tasks.ci.data import Link, ReportData, Size, Stage, Timeline, Video
from tasks.ci.problems import labels
from tasks.ci.report.charts import Bar, Lane, clock, lanes
from tasks.ci.report.images import safe
from tasks.ci.report.page import assets, digest, render, write
from tasks.ci.report.pictures import colours, stages_of_all, stages_of_one
from tasks.ci.report.texts import OUTPUT_BYTES, words_of
from tests.standins.validations import HOSTILE, check, dead_image, image, run, validation

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a page consists of, and whether all its elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name == "href" and (value or "").startswith("#"):
                self.targets.append((value or "")[1:])
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def full(output: str | None = None) -> ReportData:
    """Twelve images with sixty checks each, and a dead one."""
    return run(13, output=output)


def test_all_elements_are_closed_and_all_links_lead_somewhere() -> None:
    page = Page(render(full()))
    assert max(Counter(page.ids).values()) == 1
    assert set(page.targets) <= set(page.ids)
    assert len([target for target in page.targets if target.startswith("c")]) > 720


def test_every_check_is_there() -> None:
    page = Page(render(full()))
    assert len([name for name in page.ids if re.fullmatch(r"c\d+-\d+", name)]) == 720


@pytest.mark.parametrize(
    "output", [None, HOSTILE * 30, "<&\"'" * 3_000], ids=["plain", "hostile", "markup"]
)
def test_twelve_images_with_sixty_checks_stay_below_a_megabyte(output: str | None) -> None:
    assert len(render(full(output)).encode()) < 1_000_000


def test_even_if_every_text_is_long() -> None:
    long = "<long & hostile> " * 200
    checks = tuple(
        replace(item, name=f"{long}{n}", command=long, expected=long, reason=long, output=long,
                outcome="failed")
        for n, item in enumerate(image(0).checks)
    )  # fmt: skip
    items = tuple(
        replace(image(n), checks=checks, console=(long,) * 100, error=long) for n in range(12)
    )
    assert len(render(replace(run(), validations=items)).encode()) < 1_000_000


def test_nothing_of_a_guest_becomes_markup() -> None:
    before = Page(render(run(1))).tags
    hostile = [
        replace(item, group=HOSTILE, name=HOSTILE, command=HOSTILE, expected=HOSTILE,
                reason=HOSTILE, output=HOSTILE)
        for item in image(0).checks
    ]  # fmt: skip
    data = replace(
        run(1),
        title=HOSTILE,
        commit=HOSTILE,
        host=((HOSTILE, HOSTILE),),
        validations=(
            replace(image(0), checks=tuple(hostile), image=HOSTILE, variant=HOSTILE,
                    error=HOSTILE, console=(HOSTILE,), sha256=HOSTILE, started=HOSTILE),
        ),
        timelines=(
            Timeline(image=HOSTILE, stages=(
                Stage(name=HOSTILE, state="failed", start_s=0, seconds=1, reason=HOSTILE),
            )),
        ),
        sizes=(Size(name=HOSTILE, now_bytes=1, last_bytes=2),),
        videos=(Video(title=HOSTILE, href="./a.webm"),),
        links=(Link(title=HOSTILE, href="./a"),),
    )  # fmt: skip
    html = render(data)
    page = Page(html)
    assert page.tags["script"] == before["script"] == 1
    assert page.tags["img"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "{{ 7 * 7 }}" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html)


def test_only_our_style_and_our_script_may_run() -> None:
    style, script = assets()
    html = render(run())
    policy = next(value for _, name, value in Page(html).attributes if "default-src" in value)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert digest(style) in policy
    assert digest(script) in policy
    assert f"<style>{style}</style>" in html
    assert f"<script>{script}</script>" in html
    assert "</script" not in script


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = Page(render(full()))
    loaded = [
        value
        for tag, name, value in page.attributes
        if (name == "src" or (tag == "link" and name == "href")) and not value.startswith("data:")
    ]
    assert loaded == []


@pytest.mark.parametrize(
    ("href", "kept"),
    [
        ("./a b.txt", True),
        ("https://example.org/build/1", True),
        ("javascript:alert(1)", False),
        ("JavaScript:alert(1)", False),
        ("data:text/html,x", False),
        ("http://[", False),
    ],
)
def test_a_link_that_could_run_is_none(href: str, kept: bool) -> None:
    assert bool(safe(href)) is kept


def test_a_video_is_inside_or_beside() -> None:
    data = run(
        1, videos=(Video(title="in", href="./in.webm", content=b"abc"),
                   Video(title="beside", href="./beside.webm"),
                   Video(title="evil", href="javascript:1")),
    )  # fmt: skip
    sources = [
        v for tag, name, v in Page(render(data)).attributes if (tag, name) == ("video", "src")
    ]
    assert sources == ["data:video/webm;base64,YWJj", "./beside.webm"]


def test_each_failure_leads_to_the_next() -> None:
    html = render(full())
    ways = re.findall(r'<a href="#(c[\d-]+)">Link</a> <a href="#(c[\d-]+)">Next failure', html)
    assert [here for here, _ in ways] == ["c2-9", "c2-10", "c2-21", "c6-9", "c6-10"]
    assert [there for _, there in ways] == ["c2-10", "c2-21", "c6-9", "c6-10", "c6-21"]


def test_an_empty_run_has_a_page_and_is_no_success() -> None:
    html = render(ReportData(title="t", started="2026-11-22T11:00:00", seconds=1.0))
    assert "No image was validated" in html
    assert '<header class="bad">' in html


def test_a_good_run_says_so() -> None:
    data = replace(run(1), validations=(image(0),))
    html = render(data)
    assert "<title>The image passed" in html
    assert '<header class="good">' in html
    assert 'id="failures"' not in html


def test_more_problems_than_fit_are_folded() -> None:
    bad = [check(name=f"check {n}", outcome="failed") for n in range(15)]
    assert "<summary>3 more</summary>" in render(replace(run(1), validations=(validation(*bad),)))


def test_the_same_check_twice_in_an_image_has_two_rows() -> None:
    data = replace(run(1), validations=(validation(check(), check(outcome="failed")),))
    assert render(data).count('<th scope="row">SSH answers</th>') == 2


def test_the_output_of_a_failure_stays_when_those_of_others_are_cut() -> None:
    bad = check(outcome="failed", output="the reason")
    noise = [check(name=f"{n}", output="noise " * 10_000) for n in range(600)]
    words = words_of([validation(*noise, bad)])[0]
    assert words[-1].output == "the reason"
    assert sum(len(word.output) for word in words) <= OUTPUT_BYTES


def test_the_file_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write(run(1), target)
    assert target.read_text() == render(run(1))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_picture_is_sound_and_stays_within_itself() -> None:
    svg = lanes(
        [
            Lane(name="<b> & \" '", bars=()),
            Lane(
                name="b",
                note="n",
                bars=(
                    Bar(name="x", start_s=0, seconds=90, kind="k0"),
                    Bar(name="y", start_s=90, seconds=0.001, kind="k1"),
                ),
            ),
        ],
        "About",
    )
    root = ET.fromstring(svg)
    for bar in root.iter("rect"):
        left, width = (float(bar.attrib[name].rstrip("%")) for name in ("x", "width"))
        assert left >= 0
        assert width >= 0.6
        assert left + width <= 100.001
    assert [text.text for text in root.iter("text") if text.get("class") == "time"] == [
        "0", "30 s", "1 min",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0"), (0.5, "0.5 s"), (30, "30 s"), (90, "1:30 min"), (600, "10 min"), (5400, "1:30 h")],
)
def test_times_on_the_axis(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_what_takes_longest_has_a_colour_of_its_own() -> None:
    spent = [(f"s{n}", float(n)) for n in range(1, 10)] + [("tiny", 0.001)]
    kinds = colours(spent)
    assert kinds["s1"] == kinds["s2"] == kinds["tiny"] == "kx"
    assert [kinds[f"s{n}"] for n in range(3, 10)] == [f"k{n}" for n in range(7)]


def test_a_failed_stage_is_seen_although_there_is_no_image() -> None:
    failed = Stage(name="vexfs.seal", state="failed", start_s=5, seconds=2, reason="no room")
    data = replace(
        run(1), validations=(), timelines=(Timeline(image="lost.qcow2", stages=(failed,)),)
    )
    picture = stages_of_all(data, labels(data.judged))
    assert picture
    assert ("bad", "failed") in picture.legend
    assert "lost" in picture.svg
    html = render(data)
    assert "The image failed" in html
    assert "It was not built: vexfs.seal failed. no room" in html
    assert not data.passed


def test_reused_stages_are_drawn_as_what_they_cost() -> None:
    reused = Stage(name="vexfs.toolchain", state="reused", start_s=0, seconds=40)
    made = Stage(name="vexfs.seal", state="made", start_s=5, seconds=20)
    picture = stages_of_one(Timeline(image="i", stages=(reused, made)))
    assert picture.legend == (("k0", "made in this run"), ("reused", "reused"))
    assert "toolchain 40.0 s · reused" in picture.svg


def test_a_dead_image_shows_why_and_its_console() -> None:
    html = render(replace(run(1), validations=(dead_image(),)))
    assert html.count("The kernel panicked 4.1 s after the start") >= 3
    assert "Kernel panic - not syncing" in html
