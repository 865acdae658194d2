"""Publishing: a file is there whole or not at all, and killed runs leave nothing for long."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.artifacts import publish as publishing
from tasks.artifacts.publish import being_published, publish, publish_text, remove_leftovers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3_000_000))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "output" / "image.qcow2"


@contextmanager
def other_run(target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has written half of `target` when it is there; killed at the end."""
    script = (
        "import sys; from pathlib import Path\n"
        "from tasks.artifacts.publish import being_published\n"
        "with being_published(Path(sys.argv[1])) as aside:\n"
        "    aside.write_text('half'); print(flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, target],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_copy_is_whole_and_its_folder_is_made(source: Path, target: Path) -> None:
    publish(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert list(target.parent.iterdir()) == [target]
    publish_text("naïve\n", target.with_name("manifest.json"))
    assert target.with_name("manifest.json").read_bytes() == "naïve\n".encode()


def test_it_is_an_ordinary_file_of_the_user(source: Path, target: Path) -> None:
    source.chmod(0o400)
    publish(source, target)
    other = target.with_name("other")
    other.touch()
    assert target.stat().st_mode == other.stat().st_mode


def test_an_older_file_stays_until_the_new_one_is_whole(target: Path) -> None:
    publish_text("old", target)
    with being_published(target) as aside:
        aside.write_text("new")
        assert target.read_text() == "old"
        assert aside.parent == target.parent
        assert aside.name.startswith(".")
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_and_nothing_else(target: Path, error: BaseException) -> None:
    publish_text("old", target)
    with pytest.raises(type(error)), being_published(target) as aside:  # noqa: PT012
        aside.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_killed_run_publishes_nothing_and_its_rest_goes_with_the_next(target: Path) -> None:
    with other_run(target) as run:
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert not target.exists()
        (rest,) = target.parent.iterdir()
        assert rest.read_text() == "half"
    publish_text("whole", target)
    assert list(target.parent.iterdir()) == [target]


def test_what_a_live_run_writes_is_left_alone(target: Path) -> None:
    with other_run(target):
        publish_text("first", target)
        assert target.read_text() == "first"
        assert len(list(target.parent.iterdir())) == 2


def test_only_leftovers_are_removed(target: Path) -> None:
    target.parent.mkdir(parents=True)
    for name in (".image.qcow2.swp", ".image.qcow2.0123456", ".other.01234567", "image.qcow2.zst"):
        target.with_name(name).touch()
    target.with_name(".image.qcow2.01234567").touch()
    remove_leftovers(target)
    assert len(list(target.parent.iterdir())) == 4
    assert not target.with_name(".image.qcow2.01234567").exists()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_the_kernel_cannot_copy_memory_does(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As between an ext4 and a tmpfs; and a part may have been copied before it says so."""
    kernel_s, calls = os.copy_file_range, []

    def partly(old: int, new: int, count: int) -> int:
        calls.append(count)
        if len(calls) > 1:
            raise OSError(number, os.strerror(number))
        return kernel_s(old, new, 1_000_000)

    monkeypatch.setattr(os, "copy_file_range", partly)
    publish(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert len(calls) == 2


def test_a_full_disk_is_not_taken_for_that(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(old: int, new: int, count: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space left"):
        publish(source, target)
    assert list(target.parent.iterdir()) == []


def test_a_source_that_shrinks_is_noticed(source: Path, tmp_path: Path) -> None:
    with (
        source.open("rb") as old,
        (tmp_path / "copy").open("wb") as new,
        pytest.raises(OSError, match="became shorter by 5 bytes"),
    ):
        publishing.copy(old.fileno(), new.fileno(), 3_000_005)
