"""Having images validated: which of the records that lie there are of this very run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.artifacts.checks import read, write
from tasks.ci import validating
from tasks.ci.building import Image
from tasks.ci.rooms import Ended, Rooms
from tests.standins.validations import check, validation

NOW = datetime(2026, 1, 1, 0, 5, 7, 654_321, tzinfo=UTC)
SHA256 = "ab" * 32


class Stopped(datetime):
    """A clock that stands still within a second."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return NOW.astimezone(tz)


@dataclass(kw_only=True)
class Validator:
    """Rooms with a validator whose record tells, in whole seconds, when it began."""

    image: Image
    output: Path
    began: datetime
    limit_s: int = 60
    calls: list[Sequence[str]] = field(default_factory=list)

    def run(self, name: str, words: Sequence[str], on_line: object = None) -> Ended:
        self.calls.append(words)
        record = validation(check(outcome="passed"), image=self.image.disk.name)
        # As tasks/validate writes it.
        started = self.began.isoformat(timespec="seconds")
        path = self.output / validating.FOLDER / "a.json"
        path.parent.mkdir(parents=True)
        write(replace(record, sha256=SHA256, started=started), path)
        return Ended(status=0, lines=(), log=self.output / f"{name}.log")


@pytest.fixture
def image(tmp_path: Path) -> Image:
    (tmp_path / "a.qcow2").write_bytes(b"image")
    return Image(
        manifest=tmp_path / "a.manifest.json",
        document={"artifacts": {"a.qcow2": {"sha256": SHA256, "size_bytes": 5}}},
    )


def validated(
    image: Image, tmp_path: Path, began: datetime, monkeypatch: pytest.MonkeyPatch
) -> validating.Record:
    """The only record of an image whose validation began then."""
    monkeypatch.setattr(validating, "datetime", Stopped)
    rooms = Validator(image=image, output=tmp_path, began=began)
    done = validating.validate(cast("Rooms", rooms), [image], tmp_path, (), lambda _: None)
    assert len(rooms.calls) == 1
    (record,) = done.records
    return record


def test_a_record_of_the_very_second_in_which_the_step_began_counts(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = validated(image, tmp_path, NOW, monkeypatch)
    assert record.path is not None
    assert record.validation == read(record.path)
    assert record.validation.passed


def test_a_record_from_a_second_earlier_does_not(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = validated(image, tmp_path, NOW - timedelta(seconds=1), monkeypatch)
    assert record.path is None
    assert not record.validation.passed
    assert "left no record" in record.validation.error
