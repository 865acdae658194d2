"""Makes the result of one stage: its working place, its body, what becomes of it, its log."""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.core.deadline import Deadline
from tasks.core.display import in_bytes
from tasks.core.errors import CommandFailed, NoRoom, VmbakeError
from tasks.core.events import StageReporter
from tasks.core.graph import Node
from tasks.core.plan import Plan
from tasks.core.process import Runner, tail_of
from tasks.core.stage import Site, Step
from tasks.core.store import Store, new_record

LONGEST_NAME = 100
FULL_DISK = "No space left on device"


class Maker:
    """Makes stages of one plan, each in a thread of its own.

    Args:
        labels: what the stages are called in this run.
        cores: how many each may use at most.
    """

    def __init__(
        self,
        plan: Plan,
        labels: dict[Node, str],
        deadline: Deadline,
        log_folder: Path,
        *,
        cores: int,
    ) -> None:
        self.plan = plan
        self.store: Store = plan.store
        self.site: Site = plan.site
        self.labels = labels
        self.deadline = deadline
        self.logs = log_folder
        self.cores = cores
        self.live: dict[Node, Any] = {}
        self.shown: dict[Node, list[str]] = {}

    def make(self, node: Node, reporter: StageReporter) -> None:
        """Run a stored stage and commit what it left, or do what an action does."""
        if node.stage.kind == "action":
            with self._step(node, reporter) as step:
                node.stage.body(step, **node.body_arguments)
                self.shown[node] = step.shown
            return
        key = self.plan.status[node].key
        waiting = functools.partial(reporter.say, "waiting for another run, which is making this")
        with self.store.lock(node.name, key, self.deadline.left_s, waiting):
            if self.plan.look(node).state == "fresh":
                return  # another run made it while this one waited
            self._make_stored(node, reporter)
        self.plan.made.add((node.name, key))
        self.plan.look(node)

    def _make_stored(self, node: Node, reporter: StageReporter) -> None:
        status = self.plan.status[node]
        if status.reason:
            reporter.say(status.reason)
        self.store.discard(node.name, status.key)
        with self._step(node, reporter) as step:
            since = time.monotonic()
            facts = node.stage.body(step, **node.body_arguments) or {}
            record = {
                **new_record(node.name, status.key, status.inputs, facts),
                "stands_on": self.plan.ground_of(node),
                "published": [{"path": str(p.path), "sha256": p.sha256} for p in step.published],
                "shown": step.shown,
                "seconds": round(time.monotonic() - since, 3),
                "log": str(step.runner.log.relative_to(self.site.state)),
            }
            self.store.commit(step.out, record, step.known_digests)

    @contextlib.contextmanager
    def opened(self, node: Node, reporter: StageReporter) -> Iterator[None]:
        """While the block lasts, a live stage is there for those that stand on it."""
        with (
            self._step(node, reporter) as step,
            contextlib.contextmanager(node.stage.body)(step, **node.body_arguments) as value,
        ):
            self.live[node] = value
            yield

    @contextlib.contextmanager
    def _step(self, node: Node, reporter: StageReporter) -> Iterator[Step]:
        """The working place of one stage; translates a full disk into its own error."""
        # A machine that was left running has its files here.
        keep = bool(node.params["no_cleanup"] or node.params.get("keep_vm"))
        log = self.logs / f"{file_name(self.labels[node])}.log"
        with self.store.workspace(node.name, keep=keep) as folder:
            (folder / "out").mkdir()
            (folder / "scratch").mkdir()
            step = Step(
                name=node.name,
                site=self.site,
                out=folder / "out",
                work=folder / "scratch",
                runner=Runner(log, timeout_s=self.deadline.left_s),
                reporter=reporter,
                deadline=self.deadline,
                digests=self.store.digests,
                params=node.params,
                stands_on={parent.name: self._value(parent) for parent in node.parents},
                is_goal=node in self.plan.graph.goals,
                fingerprint=self.plan.status[node].key,
                inputs=self.plan.status[node].inputs,
                cores=self.cores,
            )
            try:
                step.runner.note(f"{node.name} {self.plan.graph.told(node)}")
                yield step
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise full_disk(node.name, self.site, log) from error
                raise
            except VmbakeError as error:
                if isinstance(error, CommandFailed) and FULL_DISK in "\n".join(error.tail):
                    raise full_disk(node.name, self.site, log) from error
                error.log = self._rescued(error.log or log, folder, log.stem)
                raise

    def _rescued(self, log: Path, folder: Path, name: str) -> Path:
        """Where a log can be read later, which may lie in the work folder that goes now."""
        if not log.is_relative_to(folder) or not log.is_file():
            return log
        kept = self.logs / f"{name}.{log.name}"
        shutil.copyfile(log, kept)
        return kept

    def _value(self, parent: Node) -> Any:
        return self.live[parent] if parent.is_live else self.plan.status[parent].result


def full_disk(name: str, site: Site, log: Path | None = None) -> NoRoom:
    """The error for a disk that filled up while a stage ran, or before any could."""
    # The store and the finished images may be on different ones; neither says which it was.
    places = [path for path in (site.state, site.output, site.root) if path.exists()]
    free = {path: shutil.disk_usage(path).free for path in places}
    folder = min(free, key=free.__getitem__)
    return NoRoom(
        f"The disk filled up during {name}; {folder} has {in_bytes(free[folder])} free now.",
        hint="Free some space and run the same command again: finished stages are kept.",
        log=log,
        tail=tail_of(log, 3) if log else (),
    )


def file_name(label: str) -> str:
    """A label as it can be part of a path, which may be 255 bytes long."""
    return re.sub(r"[^\w.-]+", "-", label).strip("-")[:LONGEST_NAME]
