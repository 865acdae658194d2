"""Downloads against a server that breaks them in every way."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
import requests

from tasks.artifacts.download import Download, Fetched, Patience, fetch
from tasks.artifacts.partial import locked_partial, require_room
from tasks.artifacts.pins import Pins
from tasks.artifacts.transfer import Limits, Refused, refuse_downgrade, shown
from tasks.core.errors import BadInput, DownloadFailed, NoRoom, VerificationFailed, VmbakeError
from tests.standins.release_server import (
    Behaviour,
    ReleaseServer,
    claiming,
    dripping,
    held,
    redirect,
    reset,
    serving,
    status,
    truncated,
    truncated_without_range,
    well,
    without_length,
    without_range,
)

PATH = "/release/image.img"
SIZE_BYTES = 3_000_001
CONTENT = random.Random(7).randbytes(SIZE_BYTES)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Notes:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[tuple[int, int | None]] = []

    def tell(self, text: str) -> None:
        self.said.append(text)

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, done: int, total: int | None) -> None:
        self.steps.append((done, total))


class Bench:
    """A server with one file, a folder to fetch it into, and a clock that doesn't wait."""

    def __init__(self, server: ReleaseServer, into: Path) -> None:
        self.server = server
        self.into = into
        self.notes = Notes()
        self.waits_s: list[float] = []
        self.source = Download(
            name="image.img", urls=(server.url + PATH,), sha256=SHA256, absent_hint="Look around."
        )
        self.patience = Patience(
            sleep=self.waits_s.append, jitter=lambda: 0.0, limits=Limits(silence_s=5.0)
        )

    @property
    def target(self) -> Path:
        return self.into / "image.img"

    @property
    def part(self) -> Path:
        return self.into / "image.img.part"

    @property
    def ranges(self) -> list[str]:
        return [seen.range for seen in self.server.requests_for(PATH)]

    def misbehave(self, *behaviours: Behaviour, forever: bool = False) -> None:
        self.server.misbehave(PATH, *behaviours, forever=forever)

    def change(self, content: bytes) -> None:
        (self.server.root / PATH.lstrip("/")).write_bytes(content)

    def fetch(self, *, offline: bool = False, pins: Pins | None = None) -> Fetched:
        return fetch(
            self.source,
            self.into,
            reporter=self.notes,
            offline=offline,
            pins=pins,
            patience=self.patience,
        )

    def leave_part(self, size_bytes: int) -> None:
        """Let a try end after `size_bytes`, as an earlier run would."""
        self.misbehave(truncated(size_bytes), status(404))
        with pytest.raises(DownloadFailed):
            self.fetch()
        assert self.part.stat().st_size == size_bytes
        self.server.seen.clear()
        self.waits_s.clear()

    def fails(self, kind: type[VmbakeError], *words: str) -> VmbakeError:
        with pytest.raises(kind) as caught:
            self.fetch()
        for word in words:
            assert word in str(caught.value)
        assert not self.target.exists()
        return caught.value

    def arrived(self, fetched: Fetched) -> None:
        assert fetched == Fetched(path=self.target, size_bytes=SIZE_BYTES, sha256=SHA256)
        assert self.target.read_bytes() == CONTENT
        assert [path.name for path in self.into.iterdir()] == ["image.img"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    file = tmp_path / "served" / PATH.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    with serving(tmp_path / "served") as server:
        yield Bench(server, tmp_path / "into")


def test_downloads_and_reports_progress(bench: Bench) -> None:
    bench.arrived(bench.fetch())
    assert bench.notes.steps[0] == (0, SIZE_BYTES)
    assert bench.notes.steps[-1] == (SIZE_BYTES, SIZE_BYTES)
    assert bench.notes.steps == sorted(bench.notes.steps)


def test_takes_a_verified_file_without_the_network(bench: Bench) -> None:
    bench.fetch()
    bench.arrived(bench.fetch())
    bench.arrived(bench.fetch(offline=True))
    assert len(bench.ranges) == 1


def test_replaces_a_damaged_file(bench: Bench) -> None:
    bench.fetch()
    bench.target.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(DownloadFailed, match="not as it should be"):
        bench.fetch(offline=True)
    bench.arrived(bench.fetch())


def test_offline_uses_no_network(bench: Bench) -> None:
    with pytest.raises(DownloadFailed, match="is not in"):
        bench.fetch(offline=True)
    assert bench.ranges == []


def test_without_a_digest_the_file_is_got_anew(bench: Bench) -> None:
    bench.source = replace(bench.source, sha256=None)
    bench.fetch()
    bench.change(b"newer")
    assert bench.fetch().size_bytes == 5
    assert bench.fetch(offline=True).size_bytes == 5
    assert len(bench.ranges) == 2


def test_404_is_not_tried_again(bench: Bench) -> None:
    bench.misbehave(status(404), forever=True)
    error = bench.fails(DownloadFailed, "404", bench.server.url + PATH)
    assert error.hint == "Look around."
    assert bench.waits_s == []
    assert list(bench.into.iterdir()) == []


def test_403_is_not_tried_again(bench: Bench) -> None:
    bench.misbehave(status(403), forever=True)
    bench.fails(DownloadFailed, "403", "credentials")
    assert bench.waits_s == []


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_again(bench: Bench, code: int) -> None:
    bench.misbehave(status(code), status(code))
    bench.arrived(bench.fetch())
    assert bench.waits_s == [1.0, 2.0]


def test_503_forever_ends(bench: Bench) -> None:
    bench.misbehave(status(503), forever=True)
    bench.fails(DownloadFailed, "503", "5 times in a row")
    assert bench.waits_s == [1.0, 2.0, 4.0, 8.0]


def test_waits_are_shortened_at_random_and_bounded(bench: Bench) -> None:
    bench.patience = replace(bench.patience, jitter=lambda: 1.0, tries=9)
    bench.misbehave(status(503), forever=True)
    bench.fails(DownloadFailed)
    assert bench.waits_s == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_retry_after_in_seconds(bench: Bench) -> None:
    bench.misbehave(status(429, Retry_After=17))
    bench.arrived(bench.fetch())
    assert bench.waits_s == [17.0]


def test_retry_after_as_a_date(bench: Bench) -> None:
    now_s = 1_800_000_000.0
    limits = replace(bench.patience.limits, wall_clock=lambda: now_s)
    bench.patience = replace(bench.patience, limits=limits)
    bench.misbehave(status(503, Retry_After=formatdate(now_s + 40, usegmt=True)))
    bench.arrived(bench.fetch())
    assert bench.waits_s == [40.0]


def test_a_longer_retry_after_than_patience_ends(bench: Bench) -> None:
    bench.misbehave(status(503, Retry_After=7200))
    bench.fails(DownloadFailed, "asks to wait 7200 s")
    assert bench.waits_s == []


def test_truncated_once_is_resumed(bench: Bench) -> None:
    bench.misbehave(truncated(1_000_000))
    bench.arrived(bench.fetch())
    assert bench.ranges == ["", "bytes=1000000-"]
    assert bench.server.seen[1].if_range.startswith('"')
    assert "ended after 1000000 of 3000001 bytes" in " ".join(bench.notes.said)


def test_truncated_always_ends_and_keeps_what_came(bench: Bench) -> None:
    bench.misbehave(truncated(1000), forever=True)
    bench.fails(DownloadFailed, "ended after 5000 of 3000001", "5000 bytes are kept")
    assert bench.part.read_bytes() == CONTENT[:5000]
    bench.misbehave(well, forever=True)
    bench.arrived(bench.fetch())
    assert bench.ranges[-1] == "bytes=5000-"


def test_truncated_always_from_the_beginning_ends(bench: Bench) -> None:
    bench.misbehave(truncated_without_range(2_000_000), forever=True)
    bench.fails(DownloadFailed, "ended after 2000000 of 3000001")
    # The first try brought something new, so five more were allowed.
    assert len(bench.ranges) <= 6


def test_many_breaks_with_progress_between_do_not_end_it(bench: Bench) -> None:
    bench.patience = replace(bench.patience, tries=2)
    bench.misbehave(truncated(1_100_000), truncated(1_100_000))
    bench.arrived(bench.fetch())


def test_reset_in_the_middle_is_resumed(bench: Bench) -> None:
    bench.misbehave(reset(1_000_000))
    bench.arrived(bench.fetch())
    assert len(bench.ranges) == 2


def test_silence_is_resumed(bench: Bench) -> None:
    limits = replace(bench.patience.limits, silence_s=0.2)
    bench.patience = replace(bench.patience, limits=limits)
    bench.misbehave(held(1_000_000))
    bench.arrived(bench.fetch())
    assert bench.ranges[1] == "bytes=1000000-"
    assert "silent" in " ".join(bench.notes.said)


def test_silence_forever_ends(bench: Bench) -> None:
    limits = replace(bench.patience.limits, silence_s=0.05)
    bench.patience = replace(bench.patience, limits=limits, tries=2)
    bench.misbehave(held(0), forever=True)
    bench.fails(DownloadFailed, "silent")


def test_dripping_is_given_up(bench: Bench) -> None:
    limits = replace(bench.patience.limits, pace_s=0.1, pace_bytes=1000)
    bench.patience = replace(bench.patience, limits=limits, tries=2)
    bench.misbehave(Behaviour(dripping), forever=True)
    began_s = time.monotonic()
    bench.fails(DownloadFailed, "bytes came in")
    assert time.monotonic() - began_s < 5


def test_nobody_listens(bench: Bench, tmp_path: Path) -> None:
    with serving(tmp_path) as gone:
        url = gone.url
    bench.source = replace(bench.source, urls=(url + PATH,))
    bench.fails(DownloadFailed, "Connection refused")
    assert len(bench.waits_s) == 4


def test_range_ignored_starts_over(bench: Bench) -> None:
    bench.misbehave(truncated(1_000_000), without_range)
    bench.arrived(bench.fetch())
    assert bench.ranges == ["", "bytes=1000000-"]


def test_without_a_length_the_digest_decides(bench: Bench) -> None:
    bench.misbehave(without_length)
    bench.arrived(bench.fetch())


def test_file_changed_between_tries_starts_over(bench: Bench) -> None:
    bench.leave_part(1_000_000)
    newer = CONTENT[::-1]
    bench.change(newer)
    bench.source = replace(bench.source, sha256=None)
    assert bench.fetch().sha256 == hashlib.sha256(newer).hexdigest()
    assert bench.ranges == ["bytes=1000000-"]


def test_joined_pieces_of_two_files_are_noticed(bench: Bench) -> None:
    """A server without validators: only the digest tells, and one fresh try is made."""
    file = bench.part
    bench.leave_part(1_000_000)
    file.write_bytes(b"\0" * 1_000_000)
    bench.arrived(bench.fetch())
    assert bench.ranges == ["bytes=1000000-", ""]


def test_416_for_a_complete_part(bench: Bench) -> None:
    bench.leave_part(SIZE_BYTES - 1)
    with bench.part.open("ab") as part:
        part.write(CONTENT[-1:])
    bench.arrived(bench.fetch())
    assert bench.ranges == [f"bytes={SIZE_BYTES}-"]


def test_416_for_a_part_longer_than_the_file(bench: Bench) -> None:
    bench.leave_part(SIZE_BYTES - 1)
    with bench.part.open("ab") as part:
        part.write(b"too much")
    bench.arrived(bench.fetch())
    assert bench.ranges == [f"bytes={SIZE_BYTES + 7}-", ""]


def test_a_complete_part_of_known_size_needs_no_request(bench: Bench) -> None:
    bench.into.mkdir()
    bench.part.write_bytes(CONTENT)
    bench.source = replace(bench.source, size_bytes=SIZE_BYTES)
    bench.arrived(bench.fetch())
    assert bench.ranges == []


def test_a_part_of_unknown_origin_without_a_digest_is_dropped(bench: Bench) -> None:
    bench.into.mkdir()
    bench.part.write_bytes(b"whatever")
    bench.source = replace(bench.source, sha256=None)
    bench.arrived(bench.fetch())
    assert bench.ranges == [""]


def test_wrong_digest_names_both_and_leaves_nothing(bench: Bench) -> None:
    bench.source = replace(bench.source, sha256="0" * 64)
    bench.fails(VerificationFailed, SHA256, "0" * 64)
    assert list(bench.into.iterdir()) == []
    assert len(bench.ranges) == 1


def test_wrong_size_is_noticed_before_the_download(bench: Bench) -> None:
    bench.source = replace(bench.source, size_bytes=SIZE_BYTES + 1)
    bench.fails(VerificationFailed, str(SIZE_BYTES), str(SIZE_BYTES + 1))
    assert bench.part.stat().st_size == 0


@pytest.mark.parametrize("behaviour", [well, without_length])
def test_bigger_than_it_can_be(bench: Bench, behaviour: Behaviour) -> None:
    bench.source = replace(bench.source, most_bytes=10_000)
    bench.misbehave(behaviour)
    bench.fails(VerificationFailed, "10000")


@pytest.mark.parametrize("behaviour", [well, without_length])
def test_smaller_than_it_can_be(bench: Bench, behaviour: Behaviour) -> None:
    bench.source = replace(bench.source, sha256=None, least_bytes=SIZE_BYTES + 1)
    bench.misbehave(behaviour)
    bench.fails(VerificationFailed, str(SIZE_BYTES), str(SIZE_BYTES + 1))
    assert bench.part.stat().st_size == 0


def test_without_a_length_the_known_size_decides(bench: Bench) -> None:
    bench.source = replace(bench.source, sha256=None, size_bytes=SIZE_BYTES)
    (whole := bench.server.root / PATH.lstrip("/")).write_bytes(CONTENT[:1000])
    bench.misbehave(without_length, forever=True)
    bench.fails(DownloadFailed, f"1000 of {SIZE_BYTES} bytes")
    whole.write_bytes(CONTENT)
    bench.arrived(bench.fetch())


def test_a_second_url_serves_where_the_first_fails(bench: Bench) -> None:
    bench.source = replace(bench.source, urls=(bench.server.url + "/gone", *bench.source.urls))
    bench.arrived(bench.fetch())


def test_a_second_url_goes_on_where_the_first_broke(bench: Bench) -> None:
    other = bench.server.root / "other.img"
    other.write_bytes(CONTENT)
    bench.source = replace(bench.source, urls=(*bench.source.urls, bench.server.url + "/other.img"))
    bench.misbehave(truncated(1_000_000), status(404))
    bench.arrived(bench.fetch())
    assert [seen.range for seen in bench.server.requests_for("/other.img")] == ["bytes=1000000-"]


def test_redirects_are_followed(bench: Bench) -> None:
    bench.server.misbehave("/latest", redirect(PATH))
    bench.source = replace(bench.source, urls=(bench.server.url + "/latest",))
    bench.arrived(bench.fetch())


def test_redirects_in_circles_end(bench: Bench) -> None:
    bench.misbehave(redirect(PATH), forever=True)
    bench.fails(DownloadFailed, "circles")


@pytest.mark.parametrize(
    ("location", "allowed"),
    [
        ("http://elsewhere.test/a?key=secret", False),
        ("ftp://elsewhere.test/a", False),
        ("https://elsewhere.test/a", True),
        ("//elsewhere.test/a", True),
        ("/a", True),
    ],
)
def test_https_is_never_dropped(location: str, allowed: bool) -> None:
    response = requests.Response()
    response.url, response.status_code = "https://here.test/b", 302
    response.headers["location"] = location
    if allowed:
        refuse_downgrade(response)
        return
    with pytest.raises(Refused) as caught:
        refuse_downgrade(response)
    assert "secret" not in caught.value.reason


@pytest.mark.parametrize("behaviour", [status(404), status(503), truncated(10), reset(10), held(1)])
def test_secrets_are_never_printed(bench: Bench, behaviour: Behaviour) -> None:
    secret_url = bench.server.url.replace("//", "//user:hunter2@") + PATH + "?signature=hunter3"
    bench.source = replace(bench.source, urls=(secret_url,))
    limits = replace(bench.patience.limits, silence_s=0.05)
    bench.patience = replace(bench.patience, limits=limits, tries=2)
    bench.misbehave(behaviour, forever=True)
    error = bench.fails(DownloadFailed)
    kept = [path.read_text(errors="replace") for path in bench.into.iterdir()]
    told = " ".join([str(error), repr(error), repr(bench.source), *bench.notes.said, *kept])
    assert "hunter" not in told
    assert error.__cause__ is None
    assert bench.server.seen[0].authorization.startswith("Basic ")


def test_shown_url() -> None:
    assert shown("https://u:p@host.test:8443/a/b?k=v#f") == "https://host.test:8443/a/b?…"


@pytest.mark.parametrize("url", ["ftp://host.test/a", "/srv/a", "http://[", "s3://bucket/a"])
def test_urls_that_are_none(bench: Bench, url: str) -> None:
    bench.source = replace(bench.source, urls=(url,))
    bench.fails(BadInput, "http, https and file")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_names_that_are_paths(bench: Bench, name: str) -> None:
    bench.source = replace(bench.source, name=name)
    with pytest.raises(BadInput, match="plain file name"):
        bench.fetch()


def test_file_url(bench: Bench) -> None:
    served = bench.server.root / PATH.lstrip("/")
    spaced = served.with_name("with space.img")
    served.rename(spaced)
    bench.source = replace(bench.source, urls=(spaced.as_uri(),))
    bench.arrived(bench.fetch(offline=True))


def test_file_url_without_a_file(bench: Bench, tmp_path: Path) -> None:
    bench.source = replace(bench.source, urls=((tmp_path / "no").as_uri(), tmp_path.as_uri()))
    bench.fails(DownloadFailed, "no such file", "can't be read")


def test_pin_is_recorded_and_enforced(bench: Bench, tmp_path: Path) -> None:
    pins = Pins(path=tmp_path / "pins" / "downloads.txt")
    bench.source = replace(bench.source, sha256=None, pin="images/image.img")
    bench.fetch(pins=pins)
    assert pins.path.read_text() == f"{SHA256}  images/image.img\n"
    bench.fetch(pins=pins)
    assert len(bench.ranges) == 1
    bench.target.unlink()
    bench.change(b"another")
    with pytest.raises(VerificationFailed, match=SHA256):
        bench.fetch(pins=pins)
    assert not bench.target.exists()
    with pytest.raises(VerificationFailed, match=r"pinned.*downloads\.txt"):
        fetch(replace(bench.source, sha256="1" * 64), bench.into, reporter=bench.notes, pins=pins)


def test_pin_file_with_a_bad_line(tmp_path: Path) -> None:
    pins = Pins(path=tmp_path / "pins")
    pins.path.write_text(f"# ours\n\n{SHA256}  a\nnonsense\n")
    with pytest.raises(BadInput, match="Line 4"):
        pins.find("b")
    pins.path.write_text(f"{SHA256}  a")
    pins.record("b", "1" * 64)
    assert pins.find("a") == SHA256
    assert pins.find("b") == "1" * 64


def test_no_room_is_noticed_before_the_download(bench: Bench) -> None:
    bench.misbehave(claiming(1 << 60))
    bench.fails(NoRoom, "are missing")
    assert bench.part.stat().st_size == 0


def test_room_is_what_the_rest_needs(tmp_path: Path) -> None:
    require_room(tmp_path, 1, "a")
    with pytest.raises(NoRoom, match="TB are missing"):
        require_room(tmp_path, 1 << 60, "a")


def test_disk_full_in_the_middle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, [1_000_000]

    def write(fd: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(fd, data[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", write)
    bench.fails(NoRoom, "No space left", "2.0 MB", "goes on")
    room[0] = SIZE_BYTES
    bench.arrived(bench.fetch())
    assert bench.ranges == ["", "bytes=1000000-"]


# A run of its own: prints what it is told, then the digest or the error's exit code.
RUN = """
import resource, sys
from pathlib import Path
from tasks.artifacts.download import Download, fetch
from tasks.core.errors import VmbakeError

class Printing:
    def say(self, text): print(text, flush=True)
    def progress(self, done, total): pass

url, into, sha256, most_bytes = sys.argv[1:]
if int(most_bytes) >= 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes),) * 2)
try:
    source = Download(name="image.img", urls=(url,), sha256=sha256 or None)
    print(fetch(source, Path(into), reporter=Printing()).sha256, flush=True)
except VmbakeError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


def run(bench: Bench, *, sha256: str = SHA256, most_bytes: int = -1) -> subprocess.Popen[str]:
    """Start a download in a process of its own; `most_bytes` limits the size of its files."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, bench.source.urls[0], str(bench.into), sha256, str(most_bytes)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def wait_for_size(path: Path, size_bytes: int) -> None:
    """Poll: a file that another process writes tells nobody when it has grown."""
    until_s = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < size_bytes:
        assert time.monotonic() < until_s, f"{path} did not grow to {size_bytes} bytes"
        time.sleep(0.01)


def test_full_disk_as_the_kernel_says_it(bench: Bench) -> None:
    with run(bench, most_bytes=1_000_000) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == NoRoom.exit_code
    assert "File too large" in output
    assert bench.part.stat().st_size == 1_000_000
    bench.arrived(bench.fetch())
    assert bench.ranges == ["", "bytes=1000000-"]


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_kill_in_the_middle_then_resume(bench: Bench, sha256: str) -> None:
    bench.misbehave(held(1_500_000))
    with run(bench, sha256=sha256) as process:
        wait_for_size(bench.part, 1_500_000)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    assert not bench.target.exists()
    bench.source = replace(bench.source, sha256=sha256 or None)
    bench.arrived(bench.fetch())
    assert bench.ranges == ["", "bytes=1500000-"]


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_two_at_once_download_once(bench: Bench, sha256: str) -> None:
    go_on = threading.Event()
    bench.misbehave(held(1_500_000, go_on))
    with run(bench, sha256=sha256) as first:
        wait_for_size(bench.part, 1_500_000)
        with run(bench, sha256=sha256) as second:
            assert second.stdout is not None
            assert "waiting for another download" in second.stdout.readline()
            go_on.set()
            outputs = [process.communicate(timeout=30)[0] for process in (first, second)]
    assert [output.split()[-1] for output in outputs] == [SHA256, SHA256]
    assert len(bench.ranges) == 1
    assert [path.name for path in bench.into.iterdir()] == ["image.img"]


def test_the_waiting_one_goes_on_when_the_first_is_killed(bench: Bench) -> None:
    bench.misbehave(held(1_500_000))
    with run(bench) as first:
        wait_for_size(bench.part, 1_500_000)
        with run(bench) as second:
            assert second.stdout is not None
            second.stdout.readline()
            first.kill()
            assert second.communicate(timeout=30)[0].split()[-1] == SHA256
    assert bench.ranges == ["", "bytes=1500000-"]


def test_who_waited_owns_the_file_that_has_the_name_now(tmp_path: Path) -> None:
    """Not the one that was deleted, or renamed, while it waited."""
    path, waits, done = tmp_path / "a.part", threading.Event(), threading.Event()

    def second() -> None:
        with locked_partial(path, waits.set) as part:
            part.append(b"good", 4)
            part.commit(tmp_path / "a")
        done.set()

    thread = threading.Thread(target=second)
    with locked_partial(path, lambda: None) as part:
        part.append(b"bad", 4)
        thread.start()
        assert waits.wait(20)
        part.discard()
    thread.join(20)
    assert done.is_set()
    assert (tmp_path / "a").read_bytes() == b"good"
