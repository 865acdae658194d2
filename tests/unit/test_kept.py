"""Results that the engine keeps: whether they can still be used."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.core.store import Result, new_record
from tasks.vdsm import kept
from tests.standins.fake_engine import FakeEngine, serving

UPSTREAM = "/images/vdsm/virtual-dsm:7.41/json"
OWN = "/images/sha256:own/json"


def described(image: str) -> dict[str, Any]:
    return {
        "Id": image,
        "Size": 1,
        "RootFS": {},
        "Created": datetime.now(UTC).isoformat(),
        "Architecture": "amd64",
    }


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    answers = {
        "/version": {"ApiVersion": "1.41", "Version": "20.10"},
        UPSTREAM: described("sha256:up"),
        OWN: described("sha256:own"),
    }
    with serving(tmp_path / "docker.sock", answers) as engine:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        yield engine


def test_a_base_image_is_made_anew_when_its_name_is_another_image(
    engine: FakeEngine, tmp_path: Path
) -> None:
    facts = {"image": "sha256:own", "upstream": "sha256:up", "reference": "vdsm/virtual-dsm:7.41"}
    record = new_record("vdsm.base-image", "key", {}, facts)
    result = Result(directory=tmp_path, record={**record, "outputs": {}})
    assert kept.BASES.damage(result) == ""
    engine.answers = {**engine.answers, UPSTREAM: described("sha256:newer")}
    assert "vdsm/virtual-dsm:7.41 is another image now" in kept.BASES.damage(result)
