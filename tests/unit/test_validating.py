"""Having images validated: which of the records that lie there are of this very run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from tasks.artifacts.checks import read, write
from tasks.artifacts.publish import being_published
from tasks.ci import validating
from tasks.ci.building import Image
from tasks.ci.rooms import Ended, Rooms
from tests.standins.validations import check, validation

SHA256 = "ab" * 32


@dataclass(kw_only=True)
class Validator:
    """Rooms with a validator that leaves the same record each time, or none."""

    image: Image
    output: Path
    writes: bool = True
    limit_s: int = 60

    def run(self, name: str, words: Sequence[str], on_line: object = None) -> Ended:
        if self.writes:
            record = validation(check(outcome="passed"), image=self.image.disk.name)
            # As tasks/validate publishes it.
            with being_published(self.output / validating.FOLDER / "a.json") as aside:
                write(replace(record, sha256=SHA256), aside)
        return Ended(status=0, lines=(), log=self.output / f"{name}.log")

    def record(self) -> validating.Record:
        """The only record after a validation."""
        done = validating.validate(
            cast("Rooms", self), [self.image], self.output, (), lambda _: None
        )
        (record,) = done.records
        return record


@pytest.fixture
def validator(tmp_path: Path) -> Validator:
    (tmp_path / "a.qcow2").write_bytes(b"image")
    image = Image(
        manifest=tmp_path / "a.manifest.json",
        document={"artifacts": {"a.qcow2": {"sha256": SHA256, "size_bytes": 5}}},
    )
    return Validator(image=image, output=tmp_path)


def test_a_record_that_the_validator_left_counts(validator: Validator) -> None:
    # The second is to the last byte what the first was: they may begin in the same second.
    for _ in range(2):
        record = validator.record()
        assert record.path is not None
        assert record.validation == read(record.path)
        assert record.validation.passed


def test_a_record_that_lay_there_before_does_not(validator: Validator) -> None:
    assert validator.record().path is not None
    validator.writes = False
    record = validator.record()
    assert record.path is None
    assert not record.validation.passed
    assert "left no record" in record.validation.error


def test_a_record_of_another_image_does_not(validator: Validator) -> None:
    validator.image.document["artifacts"]["a.qcow2"]["sha256"] = "cd" * 32
    assert validator.record().path is None
