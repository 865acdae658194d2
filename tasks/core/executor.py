"""vmbake's Invoke executor: runs stale stages only, and says what it does.

invoke.yaml names it as `tasks.executor_class`.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from invoke.config import Config
from invoke.exceptions import Exit
from invoke.executor import Executor as InvokeExecutor
from invoke.tasks import Call, Task

from tasks.core import display
from tasks.core.errors import BadInput, VmbakeError
from tasks.core.graph import build
from tasks.core.lens import Lens
from tasks.core.making import full_disk
from tasks.core.options import Option, unknown_keys
from tasks.core.plan import Plan
from tasks.core.preflight import require_places
from tasks.core.run import Run
from tasks.core.stage import Site, Stage, calls_before
from tasks.core.store import Store


class Executor(InvokeExecutor):
    """Invoke's executor with parameters that flow up the chain and stages that are kept."""

    def execute(self, *tasks: Any) -> dict[Task[Any], Any]:
        """Run the tasks of the command line; a VmbakeError becomes a message and a status."""
        shown = display.default()
        try:
            with ending_on_signals():
                return self._execute(self.normalize(tasks), shown)
        except VmbakeError as error:
            raise Exit(display.describe(error), error.exit_code) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # Not in a stage, which tells it by itself: in what is written around them.
            full = full_disk("the run", site_of(self.config))
            raise Exit(display.describe(full), full.exit_code) from None
        except KeyboardInterrupt:
            raise Exit("Interrupted; finished stages are kept.", 128 + signal.SIGINT) from None

    def _execute(self, calls: list[Call], shown: display.Display) -> dict[Task[Any], Any]:
        self._check_settings()
        results: dict[Task[Any], Any] = {}
        while calls:
            first, *calls = calls
            if isinstance(first.task, Lens):
                context, plan = self._context(first), self._plan(calls, self._site())
                results[first.task] = first.task.body(context, plan, **first.kwargs)
                break
            if isinstance(first.task, Stage):
                stages = [first]
                while calls and isinstance(calls[0].task, Stage):
                    stages.append(calls.pop(0))
                self._run(stages, shown)
            else:
                before = [inherit(pre, first) for pre in calls_before(first.task)]
                self._run(before, shown)
                results[first.task] = first.task(self._context(first), **first.kwargs)
        return results

    def _run(self, calls: list[Call], shown: display.Display) -> None:
        """Bring the stages up to date and print what they left."""
        if calls:
            site = self._site()
            with Store(site.state).in_use():
                lines = Run(self._plan(calls, site), shown).perform()
            for line in lines:
                print(line)

    def _plan(self, calls: list[Call], site: Site) -> Plan:
        graph = build(calls, self.config, site)
        if graph.problems:
            raise BadInput("\n".join(graph.problems))
        return Plan(graph=graph, site=site, store=Store(site.state)).observe()

    def _site(self) -> Site:
        site = site_of(self.config)
        require_places(site)
        return site

    def _context(self, call: Call) -> Any:
        return call.make_context(self.config, core_parse_result=self.core)

    def _check_settings(self) -> None:
        options: list[Option] = [place("state"), place("output")]
        for name in self.collection.task_names:
            task = self.collection[name]
            if isinstance(task, Stage):
                options += task.own_options.values()
        if problems := unknown_keys(options, self.config):
            raise BadInput("\n".join(problems))


def site_of(config: Config) -> Site:
    """The places of this checkout, as invoke.yaml says."""
    root = Path(__file__).parents[2]
    return Site(root=root, state=root / config.vmbake.state, output=root / config.vmbake.output)


def place(name: str) -> Option:
    """The settings that say where things are; they have no flag."""
    return Option(name=name, key=f"vmbake.{name}", env="", help="")


def inherit(pre: Call, needer: Call) -> Call:
    """A pre-task of a task that is no stage, with the values it shares by name."""
    return pre.clone(with_={"kwargs": {**needer.kwargs, **pre.kwargs}})


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that every `with` block ends."""

    def unwind(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
