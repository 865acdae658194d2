"""Brings a plan's goals up to date: runs what is stale, keeps every finished stage."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.deadline import Deadline
from tasks.core.display import Display, Outcome, Row, in_bytes, in_seconds, shown, table
from tasks.core.errors import CommandFailed, NoRoom, VmbakeError
from tasks.core.graph import Node
from tasks.core.plan import Plan, Status
from tasks.core.preflight import require_sound
from tasks.core.process import Runner, tail_of
from tasks.core.stage import Site, Step
from tasks.core.store import new_record

FULL_DISK = "No space left on device"


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, display: Display) -> None:
        self.plan = plan
        self.store = plan.store
        self.site = plan.site
        self.display = display
        self.rows: list[Row] = []
        self.live: dict[Node, Any] = {}
        self.shown: dict[Node, list[str]] = {}
        self.closing: dict[Node, contextlib.ExitStack] = {}
        started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.deadline = Deadline(min(int(goal.params["timeout"]) for goal in plan.graph.goals))
        self.logs = self.store.logs / f"{started}.{os.getpid()}"

    def perform(self) -> list[str]:
        """Run what is needed, in order; returns what the goals left, for stdout.

        Raises:
            VmbakeError: an option is wrong or a stage failed; finished stages are kept.
        """
        needed = self.plan.needed()
        require_sound(self.site, needed)
        if needed:
            for folder in self.store.sweep():
                self.display.say(f"removed what a killed run left: {folder.name}")
        since = time.monotonic()
        try:
            with self.deadline.enforced():
                self._bring_up_all(needed)
        finally:
            self._close_live(still_needed=[])
            self._summarize(time.monotonic() - since)
        return [line for goal in self.plan.graph.goals for line in self._left_by(goal)]

    def _bring_up_all(self, needed: list[Node]) -> None:
        for position, node in enumerate(needed):
            self.plan.look(node)
            # A live stage waits for the first that really needs it.
            if not node.stage.is_live or node in self.plan.graph.goals:
                self._bring_up(node)
            self._close_live(still_needed=needed[position + 1 :])

    def _bring_up(self, node: Node) -> None:
        """Make one node's result, unless it turns out that nothing it stands on changed."""
        status = self.plan.status[node]
        if status.state == "fresh":
            self.rows.append(Row(name=node.name, outcome="fresh", seconds=0))
            return
        for parent in node.parents:
            if parent.stage.is_live and parent not in self.live:
                self._bring_up(parent)
        since = time.monotonic()
        reporter = self.display.start(node.name)
        outcome: Outcome = "failed"
        try:
            match node.stage.kind:
                case "stored":
                    self._make(status, reporter)
                case "live":
                    self._open_live(node, reporter)
                case "action":
                    self._act(node, reporter)
            outcome = "done"
        except (KeyboardInterrupt, SystemExit):
            outcome = "interrupted"
            raise
        finally:
            row = Row(name=node.name, outcome=outcome, seconds=time.monotonic() - since)
            self.rows.append(row)
            self.display.end(row)

    def _make(self, status: Status, reporter: Any) -> None:
        """Run the body of a stored stage and commit what it left."""
        node = status.node
        waiting = functools.partial(reporter.say, "waiting for another run, which is making this")
        with self.store.lock(node.name, status.key, self.deadline.left_s, waiting):
            if self.plan.look(node).state == "fresh":
                return  # another run made it while this one waited
            if status.reason:
                reporter.say(status.reason)
            self.store.discard(node.name, status.key)
            with self._step(node, reporter) as step:
                since = time.monotonic()
                facts = node.stage.body(step, **node.body_arguments) or {}
                record = {
                    **new_record(node.name, status.key, status.inputs, facts),
                    "published": [
                        {"path": str(p.path), "sha256": p.sha256} for p in step.published
                    ],
                    "shown": step.shown,
                    "seconds": round(time.monotonic() - since, 3),
                    "log": str(step.runner.log.relative_to(self.site.state)),
                }
                self.store.commit(step.out, record, step.known_digests)
        self.plan.made.add(node)
        self.plan.look(node)

    def _act(self, node: Node, reporter: Any) -> None:
        with self._step(node, reporter) as step:
            node.stage.body(step, **node.body_arguments)
            self.shown[node] = step.shown

    def _open_live(self, node: Node, reporter: Any) -> None:
        """Start a live stage; it ends when nothing needs it any more."""
        stack = contextlib.ExitStack()
        self.closing[node] = stack
        step = stack.enter_context(self._step(node, reporter))
        self.live[node] = stack.enter_context(
            contextlib.contextmanager(node.stage.body)(step, **node.body_arguments)
        )

    def _close_live(self, still_needed: list[Node]) -> None:
        # The newest first: it may stand on an older one.
        for node in reversed(list(self.closing)):
            if not any(node in user.parents for user in [*still_needed, *self.closing]):
                self.live.pop(node, None)
                self.closing.pop(node).close()

    @contextlib.contextmanager
    def _step(self, node: Node, reporter: Any) -> Iterator[Step]:
        """The working place of one stage; translates a full disk into its own error."""
        # A machine that was left running has its files here.
        keep = bool(node.params["no_cleanup"] or node.params.get("keep_vm"))
        log = self.logs / f"{node.name}.log"
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
            )
            step.runner.note(f"{node.name} {node.told}")
            try:
                yield step
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise full_disk(node.name, self.site, log) from error
                raise
            except VmbakeError as error:
                if isinstance(error, CommandFailed) and FULL_DISK in "\n".join(error.tail):
                    raise full_disk(node.name, self.site, log) from error
                error.log = self._rescued(error.log or log, folder, node.name)
                raise

    def _rescued(self, log: Path, folder: Path, name: str) -> Path:
        """Where a log can be read later, which may lie in the work folder that goes now."""
        if not log.is_relative_to(folder) or not log.is_file():
            return log
        kept = self.logs / f"{name}.{log.name}"
        shutil.copyfile(log, kept)
        return kept

    def _value(self, parent: Node) -> Any:
        return self.live.get(parent) or self.plan.status[parent].result

    def _left_by(self, goal: Node) -> list[str]:
        result = self.plan.status[goal].result
        if result is None:
            return self.shown.get(goal, [])
        published = [publication.path for publication in result.published]
        paths = published or [result.directory / name for name in result.outputs]
        return [*result.record.get("shown", ()), *map(shown, paths)]

    def _summarize(self, seconds: float) -> None:
        if self.rows:
            fresh = [
                Row(name=node.name, outcome="fresh", seconds=0)
                for node, status in self.plan.status.items()
                if status.state == "fresh" and node.name not in {row.name for row in self.rows}
            ]
            self.display.say(f"{table([*fresh, *self.rows])}\n  total {in_seconds(seconds)}")
        else:
            self.display.say("up to date")


def full_disk(name: str, site: Site, log: Path) -> NoRoom:
    """The error for a disk that filled up while a stage ran."""
    return NoRoom(
        f"The disk filled up during {name}; {site.state} has "
        f"{in_bytes(shutil.disk_usage(site.state).free)} free now.",
        hint="Free some space and run the same command again: it goes on from this stage.",
        log=log,
        tail=tail_of(log, 3),
    )
