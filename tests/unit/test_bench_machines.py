"""Boot against restore: what is said where there is nothing to boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import machines
from bench.measure import Omission
from tasks.core.process import Runner


def test_without_an_image_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "ROOT", tmp_path)
    (found,) = machines.measured(tmp_path, Runner(tmp_path / "log"), 3)
    assert isinstance(found, Omission)
    assert found.why == "there is no image in output/"
