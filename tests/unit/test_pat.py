"""PATs of DSM builds: known and unknown ones, from a server that breaks, and the user's own."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.artifacts.download import Patience
from tasks.artifacts.pins import Pins
from tasks.artifacts.transfer import Limits
from tasks.core.digest import Digests, sha256_of
from tasks.core.errors import BadInput, DownloadFailed, VerificationFailed, VmbakeError
from tasks.core.stage import Site, Step
from tasks.core.store import Result
from tasks.vdsm import pat
from tasks.vdsm.pat import FetchedPat, Source, require_source
from tests.standins.release_server import (
    ReleaseServer,
    held,
    reset,
    serving,
    status,
    truncated,
    without_length,
)

NAME = "DSM_VirtualDSM_72806.pat"
PATH = f"/{NAME}"
CONTENT = random.Random(3).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MIRROR = "https://global.synologydownload.com/download/DSM/release"


class Notes:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.said: list[str] = []
        self.last: tuple[int, int | None] = (0, None)

    def say(self, text: str) -> None:
        self.said.append(text)

    def tell(self, text: str) -> None:
        self.told.append(text)

    def progress(self, done: int, total: int | None) -> None:
        self.last = (done, total)


@dataclass
class Bench:
    """A server with one PAT, a cache, a pin file, and waits that take no time."""

    server: ReleaseServer
    cache: Path
    pins: Pins
    notes: Notes
    source: Source

    def fetch(self, **words: Any) -> FetchedPat:
        patience = Patience(sleep=lambda _: None, jitter=lambda: 0.0, limits=Limits(silence_s=5.0))
        return pat.fetch(
            self.source,
            self.cache,
            reporter=self.notes,
            pins=self.pins,
            **{"patience": patience, **words},
        )

    def fails(self, kind: type[VmbakeError], *words: str) -> None:
        with pytest.raises(kind) as caught:
            self.fetch()
        for word in words:
            assert word in str(caught.value)
        assert not list(self.cache.rglob("*.pat"))
        assert self.pins.find(self.source.pin) is None

    @property
    def ranges(self) -> list[str]:
        return [seen.range for seen in self.server.requests_for(PATH)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(pat, "LEAST_BYTES", 1_000_000)
    served = tmp_path / "served"
    served.mkdir()
    (served / NAME).write_bytes(CONTENT)
    with serving(served) as server:
        yield Bench(
            server=server,
            cache=tmp_path / "cache",
            pins=Pins(path=tmp_path / "pins.sha256"),
            notes=Notes(),
            source=Source(version="7.2.2", build="72806", url=server.url + PATH),
        )


def own_file(tmp_path: Path, content: bytes = CONTENT) -> Path:
    path = tmp_path / "mine" / "any name.pat"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


# What is known of a build.


@pytest.mark.parametrize(
    ("version", "build", "place", "size_bytes"),
    [
        ("7.2.2", "", "7.2.2/72806/DSM_VirtualDSM_72806.pat", 361_010_261),
        ("7.2.2", "72806", "7.2.2/72806/DSM_VirtualDSM_72806.pat", 361_010_261),
        ("7.2.1", "69057", "7.2.1/69057-1/DSM_VirtualDSM_69057.pat", 363_837_333),
        ("7.2.1", "69057-1", "7.2.1/69057-1/DSM_VirtualDSM_69057.pat", 363_837_333),
        ("7.0.1", "", "7.0.1/42218/DSM_VirtualDSM_42218.pat", 379_637_760),
        ("7.1.1", "", "7.1.1/42962-1/DSM_VirtualDSM_42962.pat", None),
        # Not listed: by the rule of the others.
        ("7.3", "81180", "7.3/81180/DSM_VirtualDSM_81180.pat", None),
        ("7.2.1", "69057-2", "7.2.1/69057-2/DSM_VirtualDSM_69057.pat", None),
    ],
)
def test_address_and_size_of_a_build(
    version: str, build: str, place: str, size_bytes: int | None
) -> None:
    source = require_source(version, build)
    assert source.url == f"{MIRROR}/{place}"
    assert source.size_bytes == size_bytes
    assert source.name == Path(place).name


def test_a_rebuilt_build_has_one_pin() -> None:
    assert require_source("7.2.1", "69057-1").pin == require_source("7.2.1").pin
    assert require_source("7.2.1", "69057-2").pin != require_source("7.2.1").pin


@pytest.mark.parametrize(
    ("version", "build", "words"),
    [
        ("7.2", "", ("7.2.2", "Did you mean", "--dsm-build")),
        ("7.9.9", "", ("7.2.2, 7.2.1", "--dsm-build")),
        ("7.2.1", "72806", ("build of DSM 7.2.2", "not of 7.2.1")),
        ("seven", "", ("'seven'",)),
        ("7.2.2-72806", "", ("7.2.2-72806", "build")),
        ("../7", "1", ("'../7'",)),
        ("7.2.2", "../../etc", ("'../../etc'",)),
        ("7.2.2", "72806.pat", ("72806.pat",)),
    ],
)
def test_builds_that_are_none(version: str, build: str, words: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as caught:
        require_source(version, build)
    for word in words:
        assert word in str(caught.value)


def test_another_address_keeps_what_is_known() -> None:
    source = require_source("7.2.2", pat_url="http://127.0.0.1/x?token=s3cret")
    assert source.url.endswith("s3cret")
    assert source.size_bytes == 361_010_261
    assert "s3cret" not in repr(source)


def test_own_file_counts_from_the_checkout(tmp_path: Path) -> None:
    assert require_source("7.2.2", pat_file="a.pat", root=tmp_path).file == tmp_path / "a.pat"
    assert require_source("7.2.2", pat_file="/b.pat", root=tmp_path).file == Path("/b.pat")


def test_address_and_file_together_are_one_too_many() -> None:
    with pytest.raises(BadInput, match="DSM_PAT_URL"):
        require_source("7.2.2", pat_url="http://127.0.0.1/", pat_file="a.pat")


def test_digest_in_the_catalog_counts(tmp_path: Path) -> None:
    catalog = tmp_path / "versions.toml"
    catalog.write_text(
        f'url = "http://x/{{version}}"\n[[builds]]\nversion = "1.0"\nbuild = "1000"\n'
        f'sha256 = "{SHA256}"\n'
    )
    assert require_source("1.0", versions=catalog).sha256 == SHA256


# Downloads.


def test_first_download_is_recorded_then_enforced(bench: Bench) -> None:
    found = bench.fetch()
    assert found == FetchedPat(
        path=bench.cache / "7.2.2-72806" / NAME, sha256=SHA256, size_bytes=len(CONTENT)
    )
    assert found.path.read_bytes() == CONTENT
    assert bench.pins.find("dsm/7.2.2-72806") == SHA256
    assert SHA256 in bench.notes.told[0]
    assert bench.notes.last == (len(CONTENT), len(CONTENT))
    bench.fetch()
    assert len(bench.ranges) == 1
    assert len(bench.notes.told) == 1
    found.path.unlink()
    (bench.server.root / NAME).write_bytes(CONTENT[::-1])
    with pytest.raises(VerificationFailed, match=SHA256):
        bench.fetch()
    assert not found.path.exists()


def test_pin_holds_for_another_address_too(bench: Bench) -> None:
    bench.fetch().path.unlink()
    other = bytes(len(CONTENT))
    (bench.server.root / "mirror.pat").write_bytes(other)
    bench.source = replace(bench.source, url=f"{bench.server.url}/mirror.pat")
    with pytest.raises(VerificationFailed):
        bench.fetch()


def test_known_digest_needs_no_recording(bench: Bench) -> None:
    bench.source = replace(bench.source, sha256=SHA256)
    bench.fetch()
    assert bench.notes.told == []


def test_broken_downloads_are_resumed(bench: Bench) -> None:
    bench.server.misbehave(PATH, reset(1_500_000), truncated(500_000), status(503))
    assert bench.fetch().sha256 == SHA256
    assert bench.ranges[0] == ""
    assert all(word.startswith("bytes=") for word in bench.ranges[1:])


def test_cut_short_without_a_length_is_noticed_by_the_pinned_size(bench: Bench) -> None:
    bench.source = replace(bench.source, size_bytes=len(CONTENT) + 1)
    bench.server.misbehave(PATH, without_length, forever=True)
    bench.fails(DownloadFailed, f"{len(CONTENT)} of {len(CONTENT) + 1} bytes")


@pytest.mark.parametrize("with_length", [True, False])
def test_another_size_than_pinned(bench: Bench, with_length: bool) -> None:
    bench.source = replace(bench.source, size_bytes=len(CONTENT) - 1)
    if not with_length:
        bench.server.misbehave(PATH, without_length)
    bench.fails(VerificationFailed, str(len(CONTENT)), str(len(CONTENT) - 1))


@pytest.mark.parametrize("with_length", [True, False])
def test_too_small_for_any_pat(bench: Bench, with_length: bool) -> None:
    (bench.server.root / NAME).write_bytes(b"<html>Sorry</html>")
    if not with_length:
        bench.server.misbehave(PATH, without_length)
    bench.fails(VerificationFailed, "18 bytes", "1000000", "page about an error")


def test_wrong_digest(bench: Bench) -> None:
    bench.source = replace(bench.source, sha256="0" * 64)
    bench.fails(VerificationFailed, SHA256, "0" * 64)


def test_a_build_that_synology_removed(bench: Bench) -> None:
    (bench.server.root / NAME).unlink()
    bench.fails(DownloadFailed, "404", "--pat-url", "DSM_PAT_FILE", "removes builds")


def test_offline(bench: Bench) -> None:
    with pytest.raises(DownloadFailed, match="offline"):
        bench.fetch(offline=True)
    bench.fetch()
    assert bench.fetch(offline=True).sha256 == SHA256
    assert len(bench.ranges) == 1


def test_file_address_works_offline(bench: Bench, tmp_path: Path) -> None:
    bench.source = replace(bench.source, url=own_file(tmp_path).as_uri())
    assert bench.fetch(offline=True).sha256 == SHA256


def test_two_runs_at_once_download_once(bench: Bench) -> None:
    go = threading.Event()
    bench.server.misbehave(PATH, held(1_000_000, until=go))
    found: list[FetchedPat] = []
    runs = [threading.Thread(target=lambda: found.append(bench.fetch())) for _ in range(2)]
    for run in runs:
        run.start()
    while not any("waiting for another" in text for text in bench.notes.said):
        threading.Event().wait(0.01)  # nothing announces that the second one waits
    go.set()
    for run in runs:
        run.join()
    assert len(found) == 2
    assert found[0] == found[1]
    assert len(bench.ranges) == 1


# The user's own file.


def test_own_file_is_used_where_it_lies(bench: Bench, tmp_path: Path) -> None:
    path = own_file(tmp_path)
    before = path.stat()
    bench.source = replace(bench.source, file=path)
    assert bench.fetch() == FetchedPat(path=path, sha256=SHA256, size_bytes=len(CONTENT))
    assert path.stat() == before
    assert not bench.cache.exists()
    assert bench.ranges == []
    assert bench.pins.find(bench.source.pin) is None


def test_own_file_must_have_the_recorded_digest(bench: Bench, tmp_path: Path) -> None:
    bench.fetch()
    bench.source = replace(bench.source, file=own_file(tmp_path, CONTENT[::-1]))
    with pytest.raises(VerificationFailed) as caught:
        bench.fetch()
    assert SHA256 in str(caught.value)
    assert "--dsm-build" in caught.value.hint


@pytest.mark.parametrize(
    ("size_bytes", "kind", "words"),
    [
        (None, BadInput, ("not a file", "DSM_PAT_FILE")),
        (249_999_999, BadInput, ("249999999", "250000000", "update pack")),
        (250_000_000, VerificationFailed, ("250000000", "361010261", "cut short")),
        (361_010_261, None, ()),
    ],
)
def test_what_can_be_seen_of_an_own_file(
    tmp_path: Path, size_bytes: int | None, kind: type[VmbakeError] | None, words: tuple[str, ...]
) -> None:
    path = tmp_path / "a.pat"
    if size_bytes is not None:
        with path.open("wb") as stream:
            stream.truncate(size_bytes)
    found = list(pat.problems(site_at(tmp_path), "7.2.2", "", "", str(path)))
    assert [type(problem) for problem in found] == ([kind] if kind else [])
    for word in words:
        assert word in str(found[0])


# The stage.


def site_at(tmp_path: Path) -> Site:
    return Site(root=tmp_path, state=tmp_path / "state", output=tmp_path / "output")


def step_at(tmp_path: Path, notes: Notes) -> Step:
    step = SimpleNamespace(
        site=site_at(tmp_path),
        digests=Digests(tmp_path / "digests.json"),
        published=[],
        say=notes.say,
        tell=notes.tell,
        progress=notes.progress,
    )
    return cast("Step", step)


def test_stage_publishes_the_file_where_it_lies(bench: Bench, tmp_path: Path) -> None:
    step = step_at(tmp_path, bench.notes)
    facts = pat.make(step, bench.source, offline=False)
    assert facts == {
        "version": "7.2.2",
        "build": "72806",
        "sha256": SHA256,
        "size_bytes": len(CONTENT),
    }
    (publication,) = step.published
    assert publication.sha256 == sha256_of(publication.path) == SHA256
    assert publication.path.is_relative_to(step.site.cache)
    assert SHA256 in (step.site.state / "pins.sha256").read_text()
    record = {"published": [{"path": str(publication.path), "sha256": SHA256}]}
    assert pat.path_of(Result(directory=tmp_path, record=record)) == publication.path


def test_stage_depends_on_what_is_known_and_not_on_the_address(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    assert pat.inputs(site, "7.2.2", "") == pat.inputs(site, "7.2.2", "72806")
    assert pat.inputs(site, "7.2.2", "") != pat.inputs(site, "7.2.1", "")
    assert "361010261" in str(pat.inputs(site, "7.2.2", ""))
    assert pat.inputs(site, "x", "") == {}
    assert pat.files(pat_file="") == []
    assert pat.files(pat_file="/a.pat") == [Path("/a.pat")]


@pytest.mark.parametrize(
    ("version", "url", "word"),
    [("x", "", "'x'"), ("7.2.2", "ftp://127.0.0.1/a.pat", "ftp"), ("7.2.2", "a.pat", "no scheme")],
)
def test_what_is_wrong_before_anything_runs(
    tmp_path: Path, version: str, url: str, word: str
) -> None:
    (found,) = pat.problems(site_at(tmp_path), version, "", url, "")
    assert isinstance(found, BadInput)
    assert word in str(found)
