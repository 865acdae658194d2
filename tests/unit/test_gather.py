"""Records, sizes and recordings become report data."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.ci.data import Size
from tasks.ci.gather import EMBED_ALL_BYTES, EMBED_EACH_BYTES, compare, links, stage_of, videos

STARTED = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)


def record(finished: str, seconds: float = 30.0) -> dict[str, Any]:
    outputs = {"a": {"sha256": "0", "size_bytes": 5}, "b": {"sha256": "1", "size_bytes": 7}}
    return {"stage": "vexfs.seal", "seconds": seconds, "finished": finished, "outputs": outputs}


def test_a_stage_of_this_run_knows_when_it_began() -> None:
    stage = stage_of(record("2026-11-22T11:01:40+00:00"), STARTED, "./logs/seal.log")
    assert (stage.state, stage.start_s, stage.seconds) == ("made", 70.0, 30.0)
    assert (stage.name, stage.size_bytes, stage.log) == ("vexfs.seal", 12, "./logs/seal.log")


def test_a_stage_that_was_there_before_is_reused() -> None:
    assert stage_of(record("2026-11-22T10:59:59"), STARTED).state == "reused"


@pytest.mark.parametrize("damage", [{}, {"stage": "x", "seconds": "x", "finished": "x"}])
def test_what_is_no_record_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        stage_of(damage, STARTED)


def test_sizes_stand_side_by_side() -> None:
    assert compare({"a": 1, "b": 2}, {"b": 3, "c": 4}) == (
        Size(name="a", now_bytes=1, last_bytes=None),
        Size(name="b", now_bytes=2, last_bytes=3),
        Size(name="c", now_bytes=None, last_bytes=4),
    )


def test_small_recordings_become_part_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    (tmp_path / "videos").mkdir()
    files = []
    for name, size in (("configure-admin", 10), ("post wizard#1", EMBED_EACH_BYTES + 1)):
        files.append(tmp_path / "videos" / f"{name}.webm")
        files[-1].write_bytes(b"x" * size)
    small, large = videos(files, page)
    assert (small.title, small.content) == ("configure admin", b"x" * 10)
    assert (large.content, large.href) == (b"", "./videos/post%20wizard%231.webm")


def test_not_even_many_small_ones_make_a_heavy_page(tmp_path: Path) -> None:
    files = []
    for number in range(6):
        files.append(tmp_path / f"{number}.webm")
        files[-1].write_bytes(b"x" * EMBED_EACH_BYTES)
    found = videos(files, tmp_path / "report.html")
    assert sum(len(video.content) for video in found) == EMBED_ALL_BYTES
    assert all(video.content or video.href for video in found)


def test_links_are_relative_to_the_page(tmp_path: Path) -> None:
    (tmp_path / "a:b.txt").write_text("four")
    (link,) = links([tmp_path / "a:b.txt"], tmp_path / "report" / "index.html")
    assert (link.title, link.href, link.size_bytes) == ("a:b.txt", "./../a%3Ab.txt", 4)
