"""The cache tasks, on the small checkout and its real `inv`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tasks.cache.amounts import seconds, size_bytes
from tasks.cache.collecting import Limit, choose
from tasks.cache.contents import Contents, Item
from tasks.cache.telling import in_age
from tasks.cache.verifying import Report, set_aside, verify
from tasks.core.digest import WORTH_REMEMBERING_BYTES, sha256_of
from tasks.core.errors import BadInput
from tasks.core.stage import Site
from tasks.core.store import Store, new_record
from tests.unit.toyhouse import ToyHouse

DAY_S = 86_400


@pytest.fixture
def toy(tmp_path: Path) -> ToyHouse:
    return ToyHouse(tmp_path)


def show(toy: ToyHouse) -> dict[str, Any]:
    out, _ = toy.inv("cache.show", "--json")
    data: dict[str, Any] = json.loads(out)
    return data


def stages(toy: ToyHouse) -> set[str]:
    return {entry["stage"] for entry in show(toy)["results"]}


def age(toy: ToyHouse, days: float, *names: str) -> None:
    """Make it so many days since results were of use."""
    then = time.time() - days * DAY_S
    for name in names:
        for record in toy.root.glob(f".vmbake/results/toy.{name}/*/record.json"):
            os.utime(record, (then, then))


def file_of(toy: ToyHouse, name: str) -> Path:
    (path,) = toy.root.glob(f".vmbake/results/toy.{name}/*/{name}")
    path.chmod(0o644)
    return path


def verified(store: Store) -> Report:
    return verify(store, Site(root=store.state, state=store.state, output=store.state / "output"))


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_is_kept_is_shown_with_what_needs_it(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    (toy.root / ".vmbake/cache/downloads").mkdir()
    (toy.root / ".vmbake/cache/downloads/disk.img").write_bytes(b"x" * 100_000)
    found = {entry["stage"]: entry for entry in show(toy)["results"]}
    assert set(found) == {"toy.bread", "toy.dough", "toy.flour", "toy.wood"}
    assert [user["stage"] for user in found["toy.dough"]["used_by"]] == ["toy.bread"]
    # The oven keeps nothing, and burns wood.
    assert {one["stage"] for one in found["toy.bread"]["stands_on"]} == {"toy.dough", "toy.wood"}
    assert [one["name"] for one in show(toy)["others"]] == ["cache/downloads/disk.img"]
    text, _ = toy.inv("cache.show")
    assert "toy.dough  1 result, " in text
    assert "  for toy.bread" in text
    assert "cache/downloads/disk.img" in text
    assert text.splitlines()[-1].startswith("total  ")


def test_an_empty_store_is_shown(toy: ToyHouse) -> None:
    assert show(toy)["results"] == []
    assert toy.inv("cache.show")[0] == "total  0 B on the disk\n"


def test_a_run_that_finds_a_result_fresh_has_used_it(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    age(toy, 9, "bread", "dough", "flour", "wood")
    toy.inv("toy.dough")
    unused = {entry["stage"]: entry["unused_s"] for entry in show(toy)["results"]}
    assert unused["toy.dough"] < DAY_S > unused["toy.flour"]
    assert unused["toy.bread"] > 8 * DAY_S < unused["toy.wood"]


def test_what_was_of_no_use_for_long_goes(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    toy.inv("toy.jam")
    age(toy, 9, "bread", "dough", "wood", "jam")
    out, _ = toy.inv("cache.gc", "--days", "5", "--dry-run")
    assert "would be freed" in out
    assert "toy.jam" in stages(toy)
    out, _ = toy.inv("cache.gc", "--days", "5")
    assert out.index("toy.bread") < out.index("toy.dough")
    assert stages(toy) == {"toy.flour"}
    assert not list(toy.root.glob(".vmbake/locks/toy.bread.*"))
    assert not list((toy.root / ".vmbake" / "work").iterdir())
    toy.diary  # noqa: B018
    toy.inv("toy.dough")
    assert toy.diary == ["dough 5"]


def test_what_a_result_stands_on_stays_with_it(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    age(toy, 9, "dough", "flour", "wood")
    toy.inv("cache.gc", "--days", "5")
    assert stages(toy) == {"toy.bread", "toy.dough", "toy.flour", "toy.wood"}


def test_a_limit_of_nothing_takes_everything(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    (toy.root / ".vmbake/cache/downloads/part").mkdir(parents=True)
    (toy.root / ".vmbake/cache/downloads/part/disk.img").write_bytes(b"x" * 100_000)
    toy.inv("cache.gc", "--size", "0")
    assert show(toy)["results"] == show(toy)["others"] == []


def test_nothing_is_taken_from_under_a_run(toy: ToyHouse) -> None:
    run = toy.start("toy.dancer", "--meet", "singer")
    deadline = time.monotonic() + 30
    while not (toy.root / "dancer.here").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _, err = toy.inv("cache.gc", "--size", "0", status=10)
    assert "A run uses the store" in err
    (toy.root / "singer.here").touch()
    _, err = run.communicate(timeout=30)
    assert run.returncode == 0, err
    toy.inv("cache.gc", "--size", "0")
    assert stages(toy) == set()


def test_what_a_killed_bench_left_is_shown_and_goes(toy: ToyHouse) -> None:
    state = toy.root / ".vmbake"
    big = bytes(range(256)) * 4000
    write(state / "work/bench.99/disk", big)
    write(state / "bench/20261125.json", b"{}")
    write(state / "results/toy.wood/half/log", big)
    data = show(toy)
    assert {one["name"] for one in data["others"]} == {"results/toy.wood/half"}
    assert data["rest"]["work"] >= len(big) > data["rest"]["bench"]
    assert data["total_bytes"] >= 2 * len(big)
    out, _ = toy.inv("cache.gc", "--size", "20G")
    assert "bench.99  left by a killed run" in out
    assert not (state / "work/bench.99").exists()
    toy.inv("cache.gc", "--size", "100K")
    assert (state / "bench/20261125.json").exists()
    assert "total" in toy.inv("cache.show")[0]


def test_a_living_bench_keeps_its_folder(toy: ToyHouse) -> None:
    store = Store(toy.root / ".vmbake")
    with store.workspace("bench", keep=False) as folder:
        write(folder / "disk", b"x" * 100_000)
        out, _ = toy.inv("cache.gc", "--size", "0")
        assert "left by a killed run" not in out
        assert (folder / "disk").exists()


def test_a_limit_must_be_given_and_be_one(toy: ToyHouse) -> None:
    assert "inv cache.gc --size 20G" in toy.inv("cache.gc", status=2)[1]
    assert "--size is 'much'" in toy.inv("cache.gc", "--size", "much", status=2)[1]
    assert "--days is '-1'" in toy.inv("cache.gc", "--days=-1", status=2)[1]


def test_silent_damage_is_found_moved_away_and_made_again(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    dough = file_of(toy, "dough")
    times, text = dough.stat(), dough.read_text()
    dough.write_text(text.upper())
    os.utime(dough, ns=(times.st_atime_ns, times.st_mtime_ns))
    _, err = toy.inv("cache.verify", status=6)
    assert "toy.dough" in err
    assert "dough was changed; moved to .vmbake/damaged/toy.dough." in err
    assert stages(toy) == {"toy.bread", "toy.flour", "toy.wood"}
    toy.diary  # noqa: B018
    toy.inv("toy.bread")
    assert toy.diary == ["dough 5"]
    assert file_of(toy, "dough").read_text() == text
    out, _ = toy.inv("cache.verify")
    assert out.startswith("4 results and 0 other files are sound, ")
    assert out.endswith(" with the holes in them\n")
    (left,) = show(toy)["others"]
    assert left["name"].startswith("damaged/toy.dough.")
    toy.inv("cache.gc", "--size", "0")
    assert not list((toy.root / ".vmbake" / "damaged").iterdir())


def test_what_is_remembered_of_a_file_does_not_hide_a_failing_disk(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.workspace("toy.bread", keep=False) as folder:
        (folder / "out").mkdir()
        (folder / "out" / "bread").write_bytes(bytes(WORTH_REMEMBERING_BYTES))
        result = store.commit(folder / "out", new_record("toy.bread", "f" * 64, {}, {}), {})
    assert verified(store).damages == ()
    path = result.path("bread")
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.write(b"x")
    # A disk that fails changes no times: for the memory it is the file that was committed.
    store.digests.remember(path, result.outputs["bread"]["sha256"])
    assert store.find("toy.bread", "f" * 64).damage == ""
    assert [damage.what for damage in verified(store).damages] == ["bread was changed"]


def test_what_was_published_may_be_taken_but_not_changed(tmp_path: Path) -> None:
    store, target = Store(tmp_path / "store"), tmp_path / "bread"
    target.write_text("crust")
    record = new_record("toy.bread", "f" * 64, {}, {})
    record["published"] = [{"path": str(target), "sha256": sha256_of(target)}]
    with store.workspace("toy.bread", keep=False) as folder:
        (folder / "out").mkdir()
        store.commit(folder / "out", record, {})
    assert verified(store).damages == ()
    target.write_text("eaten")
    assert [damage.what for damage in verified(store).damages] == ["bread was changed"]
    target.unlink()
    assert verified(store).damages == ()


def test_what_was_published_may_be_replaced_by_another_result(tmp_path: Path) -> None:
    store, target = Store(tmp_path / "store"), tmp_path / "bread"
    for key, text in (("e" * 64, "rye"), ("f" * 64, "wheat")):
        target.write_text(text)
        record = new_record("toy.bread", key, {}, {})
        record["published"] = [{"path": str(target), "sha256": sha256_of(target)}]
        with store.workspace("toy.bread", keep=False) as folder:
            (folder / "out").mkdir()
            store.commit(folder / "out", record, {})
    assert verified(store).damages == ()
    target.write_text("rye")
    assert [damage.key for damage in verified(store).damages] == ["f" * 64]


def test_a_file_that_nobody_made_is_damage(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    write(file_of(toy, "dough").parent / "more/raisins", b"x")
    _, err = toy.inv("cache.verify", status=6)
    assert "more/raisins was added; moved to .vmbake/damaged/toy.dough." in err


def test_downloads_are_told_by_their_pins_and_by_what_was_read_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cache = tmp_path / "cache"
    image = write(cache / "downloads/noble/20260926/noble.img", b"image")
    pat = write(cache / "downloads/dsm/7.2-1/DSM.pat", b"pat")
    part = write(cache / "downloads/dsm/7.2-1/DSM.pat.part", b"pa")
    seen = write(cache / "images/seen.qcow2", bytes(WORTH_REMEMBERING_BYTES))
    new = write(cache / "images/new.qcow2", b"new")
    write(cache / "pins.sha256", f"{sha256_of(image)}  noble/20260926/noble.img\n".encode())
    write(tmp_path / "pins.sha256", f"{sha256_of(pat)}  dsm/7.2-1\n".encode())
    digest = store.digests.of(seen)
    report = verified(store)
    assert report.damages == ()
    assert report.sound_files == 3
    assert report.untold == tuple(str(path.relative_to(tmp_path)) for path in (part, new))
    for path in (image, pat):
        path.write_bytes(b"other")
    with seen.open("r+b") as stream:
        stream.write(b"x")
    store.digests.remember(seen, digest)  # a disk that fails changes no times
    damages = verified(store).damages
    assert {one.stage for one in damages} == {
        str(path.relative_to(tmp_path)) for path in (image, pat, seen)
    }
    moved = set_aside(store, damages)
    assert not any(path.exists() for path in (image, pat, seen))
    assert all(place.is_relative_to(store.damaged) for place in moved.values())
    assert verified(store).damages == ()


def test_archives_of_the_compile_cache_are_told_by_their_checksums(tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(range(256)) * 99)
    folder = tmp_path / "cache" / "compile"
    write(folder / "objects-1.tar.zst", packed)
    write(folder / "objects-2.tar.zst", packed[:-1])
    write(folder / "objects-3.tar.zst", packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:])
    write(folder / "objects-4.tar.zst", packed[:-1] + bytes([packed[-1] ^ 1]))
    write(folder / "objects-5.tar.zst", b"")
    report = verified(Store(tmp_path))
    assert (report.sound_files, report.untold) == (1, ())
    assert [one.stage for one in report.damages] == [
        f"cache/compile/objects-{number}.tar.zst" for number in (2, 3, 4, 5)
    ]


def test_a_record_that_is_gone_or_torn_is_damage(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    for name, text in (("flour", '{"stage"'), ("wood", "")):
        (record,) = toy.root.glob(f".vmbake/results/toy.{name}/*/record.json")
        record.unlink()
        if text:
            record.write_text(text)
    out, err = toy.inv("cache.verify", "--json", status=6)
    data = json.loads(out)
    assert {one["stage"] for one in data["damaged"]} == {"toy.flour", "toy.wood"}
    assert data["sound"] == 2
    assert "its record can't be read" in err
    assert "it has no record" in err
    toy.inv("toy.bread")
    assert stages(toy) == {"toy.bread", "toy.dough", "toy.flour", "toy.wood"}


def test_damage_that_a_run_meets_is_said_and_mended(toy: ToyHouse) -> None:
    toy.inv("toy.bread")
    file_of(toy, "dough").write_text("mould")
    toy.diary  # noqa: B018
    _, err = toy.inv("toy.bread")
    assert "toy.dough: dough was changed" in err
    assert toy.diary == ["dough 5"]


def item(name: str, used: float, *stands_on: Item, size: int = 10) -> Item:
    return Item(
        name=name,
        path=Path(name),
        made=0,
        used=used,
        size_bytes=size,
        stands_on=list(stands_on),
    )


def chosen(items: list[Item], *, size: int | None = None, unused_s: float | None = None) -> str:
    contents = Contents(results=items, others=[], rest={"logs": 5})
    limit = Limit(size_bytes=size, unused_s=unused_s)
    return "".join(one.name for one in choose(contents, limit, now=100))


def test_the_least_recently_used_goes_first_after_what_stands_on_it() -> None:
    base = item("b", 1)
    disk = item("d", 2, base)
    other = item("o", 3)
    new = item("n", 90, base)
    items = [base, disk, other, new]
    assert chosen(items, size=45) == ""
    assert chosen(items, size=44) == "d"
    assert chosen(items, size=34) == "do"
    assert chosen(items, size=0) == "donb"
    assert chosen(items, unused_s=50) == "do"
    assert chosen(items, unused_s=200) == ""
    assert chosen(items, unused_s=98, size=34) == "do"


def test_amounts_are_as_people_type_them() -> None:
    assert size_bytes("20G") == size_bytes("20 GB") == size_bytes("20g") == 20 * 10**9
    assert size_bytes("1.5M") == 1_500_000
    assert size_bytes("7") == 7
    assert seconds("0.5") == 43_200
    for text in ("", "G", "-1", "1X", "1 G B"):
        with pytest.raises(BadInput):
            size_bytes(text)
    for text in ("", "nan", "-1", "soon"):
        with pytest.raises(BadInput):
            seconds(text)


@pytest.mark.parametrize(
    ("age_s", "text"), [(0, "0 s"), (59, "59 s"), (3599, "59 min"), (86_399, "23 h"), (9e5, "10 d")]
)
def test_ages_have_one_unit(age_s: float, text: str) -> None:
    assert in_age(age_s) == text
