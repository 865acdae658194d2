"""A small checkout whose rooms' tasks are a fake `inv`'s, for trying what the pipeline does."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.ci import pipelines
from tasks.ci.data import ReportData
from tasks.ci.handover import Order
from tasks.ci.origin import Origin
from tasks.ci.rooms import Rooms
from tasks.core.events import Silent
from tasks.core.stage import Site
from tasks.core.store import Store

FAKE_INV = Path(__file__).with_name("fake_inv.py")
SECRET = "https://hooks.example/s3cr3t"


class Listener(Silent):
    """Keeps what stays in view."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def tell(self, text: str) -> None:
        self.told.append(text)


@dataclass
class Checkout:
    """A small checkout whose tasks are the fake's."""

    root: Path
    env: dict[str, str]

    @property
    def site(self) -> Site:
        return Site(root=self.root, state=self.root / ".vmbake", output=self.root / "output")

    @property
    def into(self) -> Path:
        return self.root / "output" / "ci"

    def script(self, **script: Any) -> None:
        (self.root / "script.json").write_text(json.dumps(script))

    def calls(self) -> list[dict[str, Any]]:
        lines = (self.root / "calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def order(self, *variants: str, **more: Any) -> Order:
        words: dict[str, Any] = {
            "accel": "auto",
            "origin": Origin(build="7", commit="ab" * 20),
            "into": self.into,
            "keep": 3,
        }
        return Order(variants=variants or ("minimal", "production"), **{**words, **more})

    def run(self, order: Order | None = None, *, left_s: float = 600) -> ReportData:
        self.listener = Listener()
        rooms = Rooms(
            self.root,
            self.root / ".vmbake" / "logs" / "ci",
            lambda: left_s,
            argv=(sys.executable, "-ISB", str(FAKE_INV)),
            env={**os.environ, **self.env},
        )
        return pipelines.run(
            order or self.order(),
            self.site,
            Store(self.site.state),
            rooms,
            self.listener,
            env=self.env,
        )
