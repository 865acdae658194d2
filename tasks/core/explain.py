"""`inv explain TASK …`: every stage that TASK stands on, fresh or stale, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from invoke.tasks import task

from tasks.core.lens import Lens
from tasks.core.preflight import require_sound

if TYPE_CHECKING:
    from tasks.core.graph import Node
    from tasks.core.plan import Plan

SHORT_DIGEST = 12


@task(klass=Lens, help={"json": "Print JSON"})
def explain(context: Any, plan: Plan, json: bool = False) -> None:
    """Say which stages of the tasks after it are stale, and why."""
    print(as_json(plan) if json else as_text(plan))
    # What a run would refuse is no plan.
    require_sound(plan.site, plan.needed())


def as_text(plan: Plan) -> str:
    """A line a stage, and one for each input that changed."""
    lines, labels = [], plan.graph.labels()
    for node in plan.graph.nodes:
        status = plan.status[node]
        words = " ".join(f"{name}={value}" for name, value in node.meaningful.items())
        reason = f": {status.reason}" if status.reason else ""
        lines.append(f"{status.state:<6} {labels[node]}{reason}{'  ' if words else ''}{words}")
        lines += [
            f"         {change.name}: {brief(change.old)} -> {brief(change.new)}"
            for change in status.changes
        ]
    return "\n".join(lines)


def as_json(plan: Plan) -> str:
    """All that is known of each stage."""
    labels = plan.graph.labels()
    return json.dumps([described(plan, node, labels[node]) for node in plan.graph.nodes], indent=1)


def described(plan: Plan, node: Node, label: str) -> dict[str, Any]:
    """What is known of one stage as JSON-able data."""
    status = plan.status[node]
    return {
        "stage": node.name,
        "label": label,
        "state": status.state,
        "reason": status.reason,
        "fingerprint": status.key,
        "parameters": plan.graph.told(node),
        "inputs": dict(status.inputs),
        "changes": [vars(change) for change in status.changes],
        "result": str(status.result.directory) if status.result else None,
    }


def brief(value: str | None) -> str:
    """A value for people: digests are cut, absence is said."""
    if value is None:
        return "(none)"
    is_digest = len(value) == 64 and all(char in "0123456789abcdef" for char in value)
    return value[:SHORT_DIGEST] if is_digest else value
