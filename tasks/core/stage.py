"""A stage: an Invoke task whose result is stored under the fingerprint of its inputs.

    @task(klass=Stage, options=OPTIONS, pre=[build_cloudimg], reads=seed_files)
    def seed_iso(step: Step, variant: str) -> Facts:
        ...

The body gets a Step first, then the parameters that it names. It writes files into `step.out`
and returns facts; both together are its result. Two kinds keep nothing:
- a live stage is a generator; what it yields lasts until the last stage that stands on it is done;
- an action only does something, each time it is asked for by name.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from invoke.parser.argument import Argument
from invoke.tasks import Call, Task

from tasks.core.flags import flags
from tasks.core.options import Option, Options, Value

if TYPE_CHECKING:
    from tasks.core.capacity import Cost
    from tasks.core.deadline import Deadline
    from tasks.core.digest import Digests
    from tasks.core.errors import VmbakeError
    from tasks.core.events import StageReporter
    from tasks.core.process import Runner
    from tasks.core.store import Publication, Result

Facts = Mapping[str, Any]
Params = Mapping[str, Value]
Kind = Literal["stored", "live", "action"]


class Keeper(Protocol):
    """Whoever has what a stage made, if that is no files: the Docker engine, say."""

    def find(self, stage: str, fingerprint: str) -> Facts | None:
        """The facts of a result that is there although its record is not; None: it isn't."""

    def damage(self, result: Result) -> str:
        """Why a recorded result can't be used any more; "" if it can."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where things are in this checkout."""

    root: Path
    state: Path
    output: Path

    @property
    def cache(self) -> Path:
        """What may be lost at any time."""
        return self.state / "cache"


@dataclass(kw_only=True)
class Step:
    """What the body of a stage works with.

    Args:
        out: the folder whose files become the result; empty at the start.
        work: a folder for scratch files; gone afterwards.
        runner: starts programs and logs into this stage's log.
        is_goal: it was asked for by name, and not only because others stand on it.
        cores: so many threads at most keep them busy; what --jobs says, if there are so many.
        fingerprint: of all that goes into the result.
        inputs: all that goes into it, by name; what `depends=` returned is among it.
    """

    name: str
    site: Site
    out: Path
    work: Path
    runner: Runner
    reporter: StageReporter
    deadline: Deadline
    digests: Digests
    params: Params
    stands_on: Mapping[str, Any]
    is_goal: bool
    fingerprint: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    cores: int = 1
    published: list[Publication] = field(default_factory=list)
    known_digests: dict[str, str] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)

    def result(self, stage: Task[Any]) -> Result:
        """The result of a stage named in `pre=`."""
        return cast("Result", self.stands_on[qualified_name(stage)])

    def live(self, stage: Task[Any]) -> Any:
        """What a live stage named in `pre=` yielded."""
        return self.stands_on[qualified_name(stage)]

    def say(self, text: str) -> None:
        """Tell what is done or waited for now."""
        self.reporter.say(text)

    def tell(self, text: str) -> None:
        """Tell something that is to be read later, too."""
        self.reporter.tell(text)

    def progress(self, done: int, total: int | None) -> None:
        """Tell how many bytes are done."""
        self.reporter.progress(done, total)

    def show(self, line: str) -> None:
        """Have a line of what was asked for on stdout, if this is what was asked for."""
        self.shown.append(line)

    def knows_digest(self, name: str, sha256: str) -> None:
        """The SHA256 of `out/name`, when it was computed while writing: it isn't read again."""
        self.known_digests[name] = sha256


# What every stage has without naming it: it is about the run, not about the result.
RUN_OPTIONS = {
    "timeout": Option(
        name="timeout",
        help="Seconds that the whole run may take",
        key="vmbake.timeout",
        env="VMBAKE_TIMEOUT",
        kind=int,
        check=lambda value: "" if value > 0 else "it must be at least 1.",
        matters=False,
    ),
    "jobs": Option(
        name="jobs",
        help="Cores for stages at the same time, 0: all there are",
        key="vmbake.jobs",
        env="VMBAKE_JOBS",
        kind=int,
        check=lambda value: "" if value >= 0 else "it must be at least 0.",
        matters=False,
    ),
    "no_cleanup": Option(
        name="no_cleanup",
        help="Leave the work files",
        key="vmbake.no_cleanup",
        env="VMBAKE_NO_CLEANUP",
        kind=bool,
        matters=False,
    ),
    "no_cache": Option(
        name="no_cache",
        help="Make everything anew",
        key="vmbake.no_cache",
        env="VMBAKE_NO_CACHE",
        kind=bool,
        matters=False,
    ),
}

# Of these, what no stage by itself is about.
OF_THE_WHOLE_RUN = ("timeout", "jobs")


class Stage(Task[Any]):
    """A task with a stored (or live) result, or an action.

    Args:
        options: the room's options; the body's parameters are looked up there.
        kind: what becomes of the result; see above.
        room: the first word of its name; by default the package that it is in.
        reads: the files and folders that the stage reads, from its parameters.
        depends: more inputs (name to text), from the site and the parameters.
        indirect: parameters that count only through what `reads` and `depends` make of them.
        also: further options: its hooks are given them, the body finds them in `step.params`.
        tools: programs whose version is an input, because the result keeps their output.
        requires: further programs that must be there.
        check: what is wrong with the parameters taken together, in paragraphs.
        room_bytes: free space that the stage needs in the store.
        cost: what it takes of the machine, from its parameters; by default one core.
        instead: which calls take the stage's place, from site and parameters; None: it stays.
        given: a result that the user named, which is taken as it is; None: there is none.
        keeper: who has the result, if it is no files.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        *,
        options: Options,
        kind: Kind = "stored",
        room: str = "",
        reads: Callable[..., Iterable[Path]] | None = None,
        depends: Callable[..., Mapping[str, str]] | None = None,
        indirect: tuple[str, ...] = (),
        also: tuple[str, ...] = (),
        tools: tuple[str, ...] = (),
        requires: tuple[str, ...] = (),
        check: Callable[..., Iterable[str | VmbakeError]] | None = None,
        room_bytes: int = 0,
        cost: Callable[..., Cost] | None = None,
        instead: Callable[..., Iterable[Task[Any] | Call] | None] | None = None,
        given: Callable[..., Result | None] | None = None,
        keeper: Keeper | None = None,
        **words: Any,
    ) -> None:
        super().__init__(body, **{"positional": [], **words})
        self.options = options
        self.kind = kind
        self.room = room or room_of(body)
        self.reads = reads
        self.depends = depends
        self.indirect = indirect
        self.also = also
        self.tools = tools
        self.requires = requires
        self.check = check
        self.room_bytes = room_bytes
        self.cost = cost
        self.instead = instead
        self.given = given
        self.keeper = keeper

    @property
    def is_live(self) -> bool:
        return self.kind == "live"

    @functools.cached_property
    def own_options(self) -> Mapping[str, Option]:
        """The options that the body and `also` name, and those of the run."""
        names = (*self.argspec(self.body).parameters, *self.also)
        named = {name: self.options[name] for name in names}
        return {**named, **RUN_OPTIONS}

    @functools.cached_property
    def all_options(self) -> Mapping[str, Option]:
        """Its own options and those of all it stands on: a flag for each, here too."""
        found = self.own_options
        for needed in stages_before(self):
            found = {**needed.all_options, **found}
        return found

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The flags of the command line, own ones first, none with a value by itself."""
        return flags({**self.own_options, **self.all_options}, self._fixed())

    def _fixed(self) -> dict[str, Value]:
        """The values that its `pre=` gives to all stages that have a parameter of the name."""
        given: defaultdict[str, set[Value | None]] = defaultdict(set)
        if any(call.kwargs for call in calls_before(self)):
            for call in calls_before(self):
                for name in call.task.all_options if isinstance(call.task, Stage) else ():
                    given[name].add(call.kwargs.get(name))
        mine = self.own_options
        only = {name: next(iter(values)) for name, values in given.items() if len(values) == 1}
        return {name: one for name, one in only.items() if one is not None and name not in mine}


def as_call(task: Task[Any] | Call) -> Call:
    """Invoke allows bare tasks where it wants calls."""
    return task if isinstance(task, Call) else Call(task)


def calls_before(task: Task[Any]) -> list[Call]:
    """The `pre=` of a task."""
    return [as_call(cast("Task[Any]", pre)) for pre in task.pre]


def stages_before(task: Task[Any]) -> list[Stage]:
    """The stages among a task's `pre=`."""
    return [call.task for call in calls_before(task) if isinstance(call.task, Stage)]


def room_of(body: Callable[..., Any]) -> str:
    """The package under tasks/ that a function is in."""
    return body.__module__.split(".")[1] if body.__module__.startswith("tasks.") else "tasks"


def qualified_name(task: Task[Any]) -> str:
    """`room.task-name`, as on the command line."""
    room = task.room if isinstance(task, Stage) else room_of(task.body)
    return f"{room}.{task.name.replace('_', '-')}"
