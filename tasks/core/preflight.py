"""What can be known to go wrong before the first slow step, and `inv check TASK …`, which asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from invoke.tasks import task

from tasks.core.display import in_bytes
from tasks.core.errors import BadInput, CannotRun, NoRoom, VmbakeError
from tasks.core.lens import Lens
from tasks.core.tools import require_tool

if TYPE_CHECKING:
    from tasks.core.graph import Node
    from tasks.core.plan import Plan
    from tasks.core.stage import Site


@task(klass=Lens)
def check(context: Any, plan: Plan) -> None:
    """Say what keeps the tasks after it from running."""
    require_sound(plan.site, plan.graph.nodes)
    print("Nothing is in the way.")


def require_places(site: Site) -> None:
    """The folders that invoke.yaml names for what is made can be written to, or be made.

    Raises:
        CannotRun: one can't.
    """
    for setting, folder in (("vmbake.state", site.state), ("vmbake.output", site.output)):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise CannotRun(
                f"{setting} is {folder}, and {there} can't be written to.",
                hint=f"Have {setting} in invoke.yaml lead to a folder that can.",
            )


def require_sound(site: Site, nodes: Iterable[Node]) -> None:
    """Ask every stage for its problems and report all of them together.

    Raises:
        VmbakeError: of the kind of the first problem.
    """
    nodes = list(nodes)
    problems = [problem for node in nodes for problem in problems_of(site, node)]
    room = max((node.stage.room_bytes for node in nodes), default=0)
    problems += lacking_room(site, room)
    if problems:
        texts = dict.fromkeys(str(problem) for problem in problems)
        raise type(problems[0])("\n".join(texts))


def problems_of(site: Site, node: Node) -> list[VmbakeError]:
    """What is wrong with one stage's parameters, and the programs that it lacks."""
    stage = node.stage
    problems: list[VmbakeError] = []
    if stage.check:
        problems += [
            found if isinstance(found, VmbakeError) else BadInput(found)
            for found in stage.check(site, **node.arguments)
        ]
    for tool in (*stage.tools, *stage.requires):
        try:
            require_tool(tool)
        except VmbakeError as error:
            problems.append(error)
    return problems


def lacking_room(site: Site, needed_bytes: int) -> list[VmbakeError]:
    """An error if the disk that holds the store has less free space than a stage needs."""
    site.state.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(site.state).free
    if free >= needed_bytes:
        return []
    return [
        NoRoom(
            f"This build needs {in_bytes(needed_bytes)} of free disk space; "
            f"{site.state} has {in_bytes(free)}.",
            hint="Free some, or set vmbake.state in invoke.yaml to a bigger disk.",
        )
    ]
