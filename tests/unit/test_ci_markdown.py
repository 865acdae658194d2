"""The Markdown summary: short enough, and text stays text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.ci.data import ReportData
from tasks.ci.markdown import CUT_NOTE, MOST_BYTES, append_summary, fenced, plain, summary
from tests.standins.validations import HOSTILE, check, run, validation

MIB = 1024 * 1024


def huge() -> ReportData:
    """Two hundred images in which everything fails with long outputs."""
    bad = [
        check("boot", f"check {n}", outcome="failed", reason="r" * 5000, output=f"`é\n{n}" * 5000)
        for n in range(60)
    ]
    images = [validation(*bad, variant=f"v{n}", image=f"{n}.qcow2") for n in range(3)]
    apart = [
        validation(check(name=f"{n} {HOSTILE}", outcome="failed", output=HOSTILE * 500))
        for n in range(400)
    ]
    return replace(run(), validations=(*images, *apart))


def test_a_run_is_summed_up() -> None:
    text = summary(run())
    assert text.startswith("## vmbake images\n\n❌ **3 of 12 images failed**, checks: 573 passed, ")
    assert "| ✅ | minimal debian-12<br>" in text
    assert "| development debian-12 | ✅ | ❌ | ⚠️ | ✅ | ✅ | ✅ | ✅ | ⚪ |" in text
    assert "<summary>❌ <b>module&#58; modprobe loads it</b>: development debian-12, dev" in text
    assert "Kernel panic - not syncing" in text
    assert "| vexfs-testing-debian-12-1.0.0.qcow2 | 401.3 MB |  | new |" in text
    assert CUT_NOTE not in text


def test_a_good_run_has_nothing_folded() -> None:
    text = summary(replace(run(), validations=(validation(check()),)))
    assert "✅ **The image passed**" in text
    assert "<details>" not in text


def test_no_image_is_no_success() -> None:
    assert "❌ **No image was validated**" in summary(replace(run(), validations=()))


def test_however_much_there_is_it_stays_below_the_limit() -> None:
    text = summary(huge())
    assert MOST_BYTES - 20_000 < len(text.encode()) <= MOST_BYTES < MIB
    assert text.endswith(CUT_NOTE)
    assert text.count("<details>") == text.count("</details>")


@pytest.mark.parametrize("limit", [0, 50, 200, 1000, 5000, 100_000])
def test_any_limit_holds(limit: int) -> None:
    assert len(summary(run(), limit).encode()) <= limit


def test_a_cell_with_hostile_text_stays_one_cell() -> None:
    hostile = validation(check(HOSTILE, HOSTILE), image=HOSTILE, variant=HOSTILE, accel=HOSTILE)
    data = replace(run(), title=HOSTILE, validations=(hostile,), sizes=(), timelines=())
    lines = [line for line in summary(data).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines[:3]} == {10}
    text = summary(data)
    assert not re.search(r"<(script|img)|\{\{|^::", text, flags=re.MULTILINE)


def test_plain_text_has_nothing_to_act_on() -> None:
    assert plain("a_b*c [x](y) `z` <b> & | @me #1 ~~") == (
        "a&#95;b&#42;c &#91;x&#93;&#40;y&#41; &#96;z&#96; &#60;b&#62; &#38; &#124; &#64;me &#35;1"
        " &#126;&#126;"
    )


def test_a_fence_is_longer_than_what_it_holds() -> None:
    block = fenced("```\n</details>\n`````")
    assert block.splitlines()[0] == "``````text"
    assert block.splitlines()[-1] == "``````"


def test_outside_github_nothing_is_written() -> None:
    assert not append_summary(run(), {})


def test_what_is_there_already_counts(tmp_path: Path) -> None:
    target = tmp_path / "summary.md"
    env = {"GITHUB_STEP_SUMMARY": str(target)}
    assert append_summary(run(), env)
    assert target.read_text() == summary(run())
    for _ in range(3):
        append_summary(huge(), env)
    assert target.stat().st_size <= MOST_BYTES
