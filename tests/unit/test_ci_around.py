"""What was checked around the images has its place in every report, and fails a run."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from tasks.ci.annotations import workflow_commands
from tasks.ci.data import ReportData
from tasks.ci.figures import verdict
from tasks.ci.junit import junit_xml
from tasks.ci.markdown import summary
from tasks.ci.report.page import render
from tests.standins.validations import AROUND, HOSTILE, check, run, validation


def around() -> ReportData:
    """A good image, and something beside it that isn't."""
    data = replace(run(1), around=AROUND, timelines=())
    return replace(data, validations=(validation(check()),))


def test_the_run_fails_with_it() -> None:
    data = around()
    assert all(item.passed for item in data.judged)
    assert not data.passed
    assert verdict(data) == "The images passed, but not all around them"
    assert replace(data, around=AROUND[:1]).passed


def test_no_check_of_an_image_is_needed_for_it_to_pass() -> None:
    assert not replace(around(), validations=(), around=AROUND[:1]).passed


def test_the_page_leads_to_what_failed() -> None:
    html = render(around())
    assert 'id="c0-2"' in html
    assert 'href="#c0-2"' in html
    assert html.count("Double quote.") >= 2
    assert 'id="c1-1"' in html


def test_a_page_without_it_has_no_place_for_it() -> None:
    assert 'id="around"' not in render(replace(around(), around=()))


def test_whatever_they_say_stays_text() -> None:
    hostile = replace(AROUND[1], name=HOSTILE, reason=HOSTILE, output=HOSTILE * 9000)
    html = render(replace(run(12), around=(hostile,) * 30))
    assert "<img src=x" not in html
    assert len(html.encode()) < 1_000_000


def test_the_summary_has_a_table_and_the_story() -> None:
    text = summary(around())
    assert "### Around the images" in text
    assert "| ❌ | scripts | shellcheck |" in text
    assert "<b>scripts&#58; shellcheck</b>: pipeline" in text
    assert "| ✅ | environment | accelerator | tcg, which is slower |" in text


def test_junit_has_a_suite_for_it() -> None:
    document = ET.fromstring(junit_xml(around().everything, ""))
    suite = document.findall("testsuite")[0]
    assert (suite.get("name"), suite.get("failures"), suite.get("skipped")) == (
        "pipeline",
        "1",
        "1",
    )
    assert suite.findall("testcase")[1].get("classname") == "image.pipeline.scripts"


def test_the_annotations_name_it() -> None:
    (line,) = workflow_commands(around().everything)
    assert line.startswith("::error title=pipeline%3A scripts%3A shellcheck failed::The first of 1")
