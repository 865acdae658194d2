"""Fills the folder that a build hands over: images, records, logs, reports, and their seals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts import checks
from tasks.artifacts.checks import Check
from tasks.ci import attesting, reporting
from tasks.ci.building import Attempt, Image
from tasks.ci.data import Link, ReportData
from tasks.ci.folder import put
from tasks.ci.gather import links
from tasks.ci.origin import Origin
from tasks.ci.timelines import LOGS, copied, timeline
from tasks.ci.validating import FOLDER, Record
from tasks.core.events import Reporter
from tasks.core.stage import Site
from tasks.core.store import Store

if TYPE_CHECKING:
    from tasks.attest.signing import PrivateKey


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done.

    Args:
        accel: auto, kvm or tcg: for the builds and for the validation.
        into: the folder that gets a folder for this build.
        keep: so many builds stay there; 0: all.
        webhooks: URLs, separated by white space; "": nobody is told.
        passed_on: flags of every run, such as --no-cache, for the builds and for the validation.
        sign_key: path of the key that signs; "": nothing is signed.
    """

    variants: Sequence[str]
    accel: str
    origin: Origin
    into: Path
    keep: int
    webhooks: str = field(default="", repr=False)
    webhook_form: str = "json"
    sign_key: str = ""
    passed_on: tuple[str, ...] = ()

    @property
    def target(self) -> Path:
        """The folder of the artifacts."""
        return self.into / self.origin.folder

    @property
    def common_flags(self) -> tuple[str, ...]:
        """No accelerator for auto: then the rooms' own settings hold."""
        accel = () if self.accel == "auto" else ("--accel", self.accel)
        return (*accel, *self.passed_on)

    @property
    def build_flags(self) -> tuple[str, ...]:
        version = ("--version", self.origin.version) if self.origin.version else ()
        return (*self.common_flags, *version)


@dataclass(frozen=True, kw_only=True)
class Handover:
    """Fills the folder of the artifacts.

    Args:
        started: when the run began.
        logs: the folder with the logs of the run itself.
        folder: what is filled.
        key: what is handed over is signed with it; None: it isn't signed.
    """

    order: Order
    site: Site
    store: Store
    logs: Path
    started: datetime
    folder: Path
    key: PrivateKey | None
    watcher: Reporter

    def fill(
        self, attempts: Sequence[Attempt], records: Sequence[Record], around: tuple[Check, ...]
    ) -> ReportData:
        """Put everything in, what vouches for the rest last; returns what the report says."""
        images = [attempt.image for attempt in attempts if attempt.image]
        sizes = reporting.compare_sizes(images, self.order.into)
        self._put_images(images)
        self._put_records(records)
        self._put_logs()
        made = attesting.build_of(self.order.origin, attempts, records, self.started)
        around += tuple(
            attesting.vouch(self.folder, made, images, self.store, self.key, self.watcher.say)
        )
        page = self.folder / reporting.PAGE
        lines = [
            timeline(attempt, self.store, self.started, page, copy_logs=True)
            for attempt in attempts
        ]
        data = reporting.assemble(
            origin=self.order.origin,
            started=self.started,
            around=around,
            validations=[record.validation for record in records],
            timelines=lines,
            sizes=sizes,
            files=self._links(page),
            recordings=self._put_videos(),
            target=page,
        )
        reporting.write(data, self.folder)
        self.watcher.say("sealing the artifacts")
        finished = datetime.now(UTC).isoformat()
        attesting.seal(self.folder, replace(made, finished=finished), self.key)
        return data

    def _put_images(self, images: Sequence[Image]) -> None:
        for image in images:
            self.watcher.say(f"collecting {image.name}")
            for path in image.files:
                put(path, self.folder / path.name, self.store.digests)

    def _put_records(self, records: Sequence[Record]) -> None:
        """The records with what lies beside them, such as the console."""
        target = self.folder / FOLDER
        target.mkdir()
        for record in records:
            if record.path is None:
                checks.write(record.validation, target / f"{record.validation.image}.none.json")
                continue
            for path in sorted(record.path.parent.glob(f"{escape(record.path.stem)}.*")):
                copied(path, target / path.name)

    def _put_logs(self) -> None:
        """The logs of what the pipeline itself ran; those of the stages come with the report."""
        for path in sorted(self.logs.glob("*.log")):
            copied(path, self.folder / LOGS / path.name)

    def _put_videos(self) -> list[Path]:
        return [
            copied(path, self.folder / reporting.VIDEOS / path.name)
            for path in reporting.recordings_of(self.site.root)
        ]

    def _links(self, page: Path) -> tuple[Link, ...]:
        """What is in the folder, and what will be when it is sealed."""
        there = links(sorted(path for path in self.folder.iterdir() if path.is_file()), page)
        to_come = (reporting.JUNIT, reporting.SUMMARY, *attesting.links_to_seals())
        return (*there, *(Link(title=name, href=f"./{name}") for name in to_come))
