"""The store: whole results or none, verified when read; work folders of the dead go."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.core.digest import sha256_of
from tasks.core.errors import Busy
from tasks.core.store import KEPT_LOGS, Result, Store

ROOT = Path(__file__).parents[2]
KEY = "f" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def never() -> None:
    raise AssertionError("nobody holds the lock")


def record(published: tuple[dict[str, str], ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "stage": "toy.bread",
        "key": KEY,
        "inputs": {},
        "facts": {"grams": 500},
        "published": list(published),
        "finished": "2026-01-01T00:00:00+00:00",
        **more,
    }


def commit(store: Store, files: dict[str, str], **more: Any) -> Result:
    with store.workspace("toy.bread", keep=False) as folder:
        out = folder / "out"
        out.mkdir()
        for name, text in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return store.commit(out, record(**more), {})


def test_what_is_committed_is_found(store: Store) -> None:
    assert store.find("toy.bread", KEY).result is None
    result = commit(store, {"bread": "crust", "sub/folder/crumb": "c"})
    found = store.find("toy.bread", KEY).result
    assert found == result
    assert found is not None
    assert found.path("sub/folder/crumb").read_text() == "c"
    assert found.outputs["bread"] == {
        "sha256": sha256_of(found.path("bread")),
        "size_bytes": 5,
    }
    assert found.facts == {"grams": 500}
    with pytest.raises(KeyError):
        found.path("butter")


def test_results_are_read_only_and_stay_executable(store: Store) -> None:
    with store.workspace("toy.bread", keep=False) as folder:
        (folder / "out").mkdir()
        for name, mode in (("plain", 0o644), ("secret", 0o600), ("program", 0o755)):
            (folder / "out" / name).touch()
            (folder / "out" / name).chmod(mode)
        result = store.commit(folder / "out", record(), {})
    modes = {name: result.path(name).stat().st_mode & 0o777 for name in result.outputs}
    assert modes == {"plain": 0o444, "secret": 0o400, "program": 0o555}


def test_a_link_is_kept_as_it_is(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    outside.chmod(0o644)
    (tmp_path / "folder").mkdir()
    with store.workspace("toy.bread", keep=False) as folder:
        (folder / "out").mkdir()
        (folder / "out" / "link").symlink_to(outside)
        (folder / "out" / "dangling").symlink_to("nowhere")
        (folder / "out" / "to-folder").symlink_to(tmp_path / "folder")
        store.commit(folder / "out", record(), {})
    found = store.find("toy.bread", KEY)
    assert found.damage == ""
    assert found.result is not None
    assert set(found.result.outputs) == {"link", "dangling", "to-folder"}
    assert outside.stat().st_mode & 0o777 == 0o644


def test_the_digest_is_of_content_and_not_of_history(store: Store) -> None:
    first = commit(store, {"bread": "crust"}, seconds=1)
    other = commit(store, {"bread": "crust"}, key="e" * 64, seconds=99, finished="later")
    changed = commit(store, {"bread": "CRUST"}, key="d" * 64)
    facts = commit(store, {"bread": "crust"}, key="c" * 64, facts={"grams": 501})
    assert first.digest == other.digest
    assert len({first.digest, changed.digest, facts.digest}) == 3


def test_the_first_of_two_results_wins(store: Store) -> None:
    commit(store, {"bread": "first"}, seconds=1)
    second = commit(store, {"bread": "second"}, seconds=2)
    assert second.path("bread").read_text() == "first"
    assert second.record["seconds"] == 1
    assert not list(store.work.iterdir())


def test_damage_is_found(store: Store) -> None:
    result = commit(store, {"bread": "crust", "sub/crumb": "c"})
    (result.directory / "bread").chmod(0o644)
    (result.directory / "bread").write_text("mould")
    assert store.find("toy.bread", KEY).damage == "bread was changed"
    (result.directory / "bread").write_text("crust")
    assert store.find("toy.bread", KEY).damage == ""
    (result.directory / "sub" / "crumb").unlink()
    assert store.find("toy.bread", KEY).damage == "crumb is missing"
    (result.directory / "record.json").write_text('{"stage": "toy.br')
    lookup = store.find("toy.bread", KEY)
    assert lookup.result is None
    assert lookup.damage.startswith("its record can't be read")
    assert store.records("toy.bread") == []


def test_what_was_published_counts_too(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "output" / "bread"
    target.parent.mkdir()
    target.write_text("crust")
    commit(store, {"bread": "x"}, published=({"path": str(target), "sha256": sha256_of(target)},))
    assert store.find("toy.bread", KEY).damage == ""
    target.write_text("eaten")
    assert store.find("toy.bread", KEY).damage == "bread was changed"
    target.unlink()
    assert store.find("toy.bread", KEY).damage == "bread is missing"


def test_a_discarded_result_can_be_made_again(store: Store) -> None:
    commit(store, {"bread": "first"})
    store.discard("toy.bread", KEY)
    assert store.find("toy.bread", KEY).result is None
    assert commit(store, {"bread": "second"}).path("bread").read_text() == "second"


def test_known_digests_are_taken_and_the_file_is_not_read(store: Store) -> None:
    with store.workspace("toy.bread", keep=False) as folder:
        (folder / "out").mkdir()
        (folder / "out" / "bread").write_text("crust")
        result = store.commit(folder / "out", record(), {"bread": "0" * 64})
    assert result.outputs["bread"]["sha256"] == "0" * 64


def test_records_come_newest_first(store: Store) -> None:
    for day, letter in enumerate("abc", start=1):
        commit(store, {"bread": letter}, key=letter * 64, finished=f"2026-01-0{day}")
    assert [found["key"][0] for found in store.records("toy.bread")] == ["c", "b", "a"]


def test_a_full_disk_leaves_nothing_under_the_final_name(store: Store) -> None:
    """A file size limit stops the record's write in the middle, as a full disk does."""
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from tasks.core.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with store.workspace('toy.bread', keep=False) as folder:\n"
        "    (folder / 'out').mkdir()\n"
        "    (folder / 'out' / 'bread').write_text('crust')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "    store.commit(folder / 'out', {'stage': 'toy.bread', 'key': 'f' * 64, 'facts': {},\n"
        "        'published': [], 'inputs': {'long': 'x' * 8192}}, {})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, store.state],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert store.find("toy.bread", KEY).damage == ""
    assert not list(store.results.glob("*/*"))
    assert not list(store.work.iterdir())


def test_one_at_a_time_may_make_a_result(store: Store) -> None:
    waited: list[bool] = []
    with store.lock("toy.bread", KEY, 10, never):
        with store.lock("toy.bread", "e" * 64, 0, never):
            pass
        with (
            pytest.raises(Busy, match=r"Another run has been making toy\.bread for 0 s\."),
            store.lock("toy.bread", KEY, 0.1, lambda: waited.append(True)),
        ):
            pass
    assert waited == [True]
    with store.lock("toy.bread", KEY, 0, never):
        pass


def start_owner(store: Store) -> tuple[subprocess.Popen[str], Path]:
    """Another process with a workspace; both are there until it is killed."""
    script = (
        "import sys; from pathlib import Path; from tasks.core.store import Store\n"
        "with Store(Path(sys.argv[1])).workspace('toy.bread', keep=False) as folder:\n"
        "    (folder / 'half').write_text('half'); print(folder, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, store.state],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    return owner, Path(owner.stdout.readline().strip())


def test_only_the_work_folders_of_the_dead_are_swept(store: Store) -> None:
    owner, folder = start_owner(store)
    try:
        assert store.sweep() == []
        assert (folder / "half").exists()
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    assert store.sweep() == [folder]
    assert not list(store.work.iterdir())


def test_a_lock_without_a_folder_goes_too(store: Store) -> None:
    """Left by a run that was killed between making or removing the one and the other."""
    with store.workspace("toy.bread", keep=False) as folder:
        folder.rmdir()
        orphan = folder.with_name("toy.wood.99.lock")
        orphan.touch()
        assert store.sweep() == []
        assert [path.name for path in store.work.iterdir()] == [f"{folder.name}.lock"]


def test_a_work_folder_is_locked_before_it_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may sweep at any moment, this one included."""
    swept: list[Path] = []
    mkdir = Path.mkdir

    def watched(path: Path, *args: Any, **words: Any) -> None:
        mkdir(path, *args, **words)
        if path.parent == store.work:
            swept.extend(Store(store.state).sweep())

    monkeypatch.setattr(Path, "mkdir", watched)
    with store.workspace("toy.bread", keep=False) as folder:
        assert folder.is_dir()
    assert swept == []


def test_a_kept_folder_goes_with_the_next_run(store: Store) -> None:
    with store.workspace("toy.bread", keep=True) as folder:
        (folder / "half").touch()
    assert (folder / "half").exists()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert store.sweep() == [folder]
    assert not folder.exists()


def test_old_logs_are_swept(store: Store) -> None:
    for number in range(KEPT_LOGS + 3):
        (store.logs / f"2026-{number:03}").mkdir(parents=True)
    store.sweep()
    names = sorted(path.name for path in store.logs.iterdir())
    assert names == [f"2026-{number:03}" for number in range(3, KEPT_LOGS + 3)]


def test_waiting_ends_when_the_other_run_is_killed(store: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from tasks.core.store import Store\n"
        "with Store(Path(sys.argv[1])).lock('toy.bread', 'f' * 64, 0, exit):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, store.state],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    since = time.monotonic()
    with store.lock("toy.bread", KEY, 30, owner.kill):
        assert time.monotonic() - since < 30
    owner.communicate()
