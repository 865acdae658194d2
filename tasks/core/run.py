"""Brings a plan's goals up to date: runs what is stale, several at a time, keeps what finished."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable
from datetime import UTC, datetime

from tasks.core.capacity import Cost, capacity_of_host, core_count
from tasks.core.crew import Crew, Interrupted, News
from tasks.core.deadline import Deadline
from tasks.core.display import Display, Outcome, Row, describe, in_seconds, shown, table
from tasks.core.errors import SeveralFailed, TimedOut, VmbakeError
from tasks.core.graph import Node
from tasks.core.making import Maker
from tasks.core.plan import Plan
from tasks.core.preflight import require_sound
from tasks.core.schedule import Schedule, Verdict


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, display: Display) -> None:
        self.plan = plan
        self.store = plan.store
        self.site = plan.site
        self.display = display
        self.labels = plan.graph.labels()
        self.rows: list[Row] = []
        self.failures: list[BaseException] = []
        self.since: dict[Node, float] = {}
        started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        goals = plan.graph.goals
        self.deadline = Deadline(min(int(goal.params["timeout"]) for goal in goals))
        # As few cores as any of the goals asks for.
        capacities = [capacity_of_host(int(goal.params["jobs"])) for goal in goals]
        self.capacity = min(capacities, key=lambda capacity: capacity.stages)
        logs = self.store.logs / f"{started}.{os.getpid()}"
        cores = min(self.capacity.stages, core_count())
        self.maker = Maker(plan, self.labels, self.deadline, logs, cores=cores)
        self.crew: Crew[Node] = Crew()

    def perform(self) -> list[str]:
        """Run what is needed; returns what the goals left, for stdout.

        Raises:
            VmbakeError: an option is wrong or stages failed; finished stages are kept.
        """
        needed = self.plan.needed()
        require_sound(self.site, needed)
        self.store.mark_used(status.result for status in self.plan.status.values() if status.result)
        if needed:
            for folder in self.store.sweep():
                self.display.say(f"removed what a killed run left: {folder.name}")
        since = time.monotonic()
        try:
            with self.deadline.enforced():
                self._bring_up(needed)
        finally:
            self._summarize(time.monotonic() - since)
        return [line for goal in self.plan.graph.goals for line in self._left_by(goal)]

    def _bring_up(self, needed: list[Node]) -> None:
        """Work on all of it at once, as far as it stands on nothing else and there is room."""
        schedule = Schedule(
            needed,
            self.plan.graph.goals,
            capacity=self.capacity,
            cost=self._cost,
            look=self._look,
            outcome=self._outcome,
        )
        try:
            self._work_off(schedule)
        except BaseException as error:
            # Ctrl-C, a signal, no more time.
            for news in self.crew.end():
                self._note(news)
            if not isinstance(error, TimedOut):
                raise
            self.failures.append(error)
        self._raise_failures()

    def _work_off(self, schedule: Schedule[Node]) -> None:
        while True:
            orders = schedule.step()
            for verb, node in orders:
                if verb == "close":
                    self.crew.close(node)
                else:
                    self._start(node)
            if not orders and not schedule.busy:
                return
            news = self.crew.next()
            self._note(news)
            if news.opened:
                schedule.opened(news.work)
            else:
                schedule.over(news.work, failed=news.error is not None)

    def _cost(self, node: Node) -> Cost:
        return node.stage.cost(self.site, **node.arguments) if node.stage.cost else Cost()

    def _look(self, node: Node) -> Verdict:
        """Whether a stage must be made, now that all it stands on is there."""
        try:
            status = self.plan.look(node)
        except VmbakeError as error:
            self.failures.append(error)
            return "failed"
        if status.state != "fresh":
            return "stale"
        self.rows.append(Row(name=self.labels[node], outcome="fresh", seconds=0))
        return "fresh"

    def _outcome(self, node: Node) -> Hashable:
        """What a stage will be kept under; an action is like no other."""
        return (node.name, self.plan.status[node].key) if node.stage.kind == "stored" else node

    def _start(self, node: Node) -> None:
        label = self.labels[node]
        reporter = self.display.start(label)
        self.since[node] = time.monotonic()
        if node.is_live:
            self.crew.open(node, self.maker.opened(node, reporter), label)
        else:
            self.crew.start(node, lambda: self.maker.make(node, reporter), label)

    def _note(self, news: News[Node]) -> None:
        """Show what a stage has to tell, and keep it for the end."""
        node, error = news.work, news.error
        outcome: Outcome = "done"
        if isinstance(error, Interrupted | KeyboardInterrupt):
            outcome = "interrupted"
        elif error is not None:
            outcome = "failed"
            self.failures.append(error)
        since = self.since.pop(node, None)
        # A live stage has had its row when it was opened.
        if since is not None:
            seconds = time.monotonic() - since
            row = Row(name=self.labels[node], outcome=outcome, seconds=seconds)
            self.rows.append(row)
            self.display.end(row)

    def _raise_failures(self) -> None:
        """Raise what went wrong, all of it together; a bug goes first, with its traceback."""
        errors = [error for error in self.failures if isinstance(error, VmbakeError)]
        for error in self.failures:
            if not isinstance(error, VmbakeError):
                for other in errors:
                    self.display.say(describe(other))
                raise error
        if len(errors) > 1:
            raise SeveralFailed(errors)
        if errors:
            raise errors[0]

    def _left_by(self, goal: Node) -> list[str]:
        result = self.plan.status[goal].result
        if result is None:
            return self.maker.shown.get(goal, [])
        published = [publication.path for publication in result.published]
        paths = published or [result.directory / name for name in result.outputs]
        return [*result.record.get("shown", ()), *map(shown, paths)]

    def _summarize(self, seconds: float) -> None:
        if self.rows:
            fresh = [
                Row(name=self.labels[node], outcome="fresh", seconds=0)
                for node, status in self.plan.status.items()
                if status.state == "fresh"
                and self.labels[node] not in {row.name for row in self.rows}
            ]
            self.display.say(f"{table([*fresh, *self.rows])}\n  total {in_seconds(seconds)}")
        else:
            self.display.say("up to date")
