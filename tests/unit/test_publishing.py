"""The end of a Virtual-DSM build: names, and the images that nobody finds by one any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.errors import ImageNotFound

from tasks.core.store import Result, new_record
from tasks.vdsm import kept, publishing

NAME = "vdsm-ci-tcg"
OWN = {kept.REPOSITORY: NAME}


@dataclass(kw_only=True)
class FakeApi:
    """What the engine's API does with images; by id, their labels and their names."""

    labels: dict[str, dict[str, str]]
    names: dict[str, set[str]] = field(default_factory=dict)

    def images(self, *, filters: dict[str, list[str]], **_: Any) -> list[str]:
        wanted = dict(entry.split("=") for entry in filters["label"])
        return [image for image, own in self.labels.items() if wanted.items() <= own.items()]

    def inspect_image(self, reference: str) -> dict[str, Any]:
        for image, labels in self.labels.items():
            tags = self.names.get(image, set())
            if reference in {image, *tags}:
                return {
                    "Id": image,
                    "Size": 1,
                    "RootFS": {},
                    "RepoTags": sorted(tags),
                    "Created": datetime.now(UTC).isoformat(),
                    "Architecture": "amd64",
                    "Config": {"Labels": labels},
                }
        answer = SimpleNamespace(status_code=404, url="", reason="Not Found")
        raise ImageNotFound("no such image", response=cast("Any", answer))

    def tag(self, image: str, name: str, *, tag: str) -> None:
        for tags in self.names.values():
            tags.discard(f"{name}:{tag}")
        self.names.setdefault(image, set()).add(f"{name}:{tag}")

    def containers(self, **_: Any) -> list[Any]:
        return []

    def remove_image(self, image: str, **_: Any) -> None:
        del self.labels[image]


def result(tmp_path: Path, **facts: str) -> Result:
    record = new_record("vdsm.stage", "key", {}, facts)
    return Result(directory=tmp_path, record={**record, "outputs": {}})


@pytest.mark.parametrize("keep", [False, True])
def test_what_a_build_replaces_goes_unless_it_is_to_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    api = FakeApi(
        labels={
            **dict.fromkeys(("old-final", "old-flat", "final", "flat"), OWN),
            "theirs": {kept.REPOSITORY: "other-tcg"},
        },
        names={"old-final": {f"{NAME}:ckpt-final"}, "old-flat": {f"{NAME}:latest"}},
    )

    @contextmanager
    def connect() -> Iterator[Any]:
        yield SimpleNamespace(api=api)

    monkeypatch.setattr(publishing, "connect", connect)
    shown: list[str] = []
    flat = result(tmp_path, image="flat")
    step = SimpleNamespace(
        params={"image_name": "vdsm-ci", "disable_image_cleanup": keep},
        stands_on={
            "vdsm.provision": result(tmp_path, image="final", checkpoint="final"),
            "vdsm.flatten": flat,
            "vdsm.smoke-test": result(tmp_path),
        },
        show=shown.append,
        tell=lambda text: None,
    )
    publishing.publish(cast("Any", step), flat, "tcg", "latest", "7.2.2")
    assert shown == [f"{NAME}:latest", f"{NAME}:7.2.2"]
    assert api.names["flat"] == set(shown)
    assert api.names["final"] == {f"{NAME}:ckpt-final"}
    stay = {"old-final", "old-flat"} if keep else set()
    assert set(api.labels) == {"final", "flat", "theirs"} | stay
