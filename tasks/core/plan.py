"""Which stages are fresh and which are stale, and because of which input."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.core.code import CodeMemory
from tasks.core.digest import digest_of, files_under
from tasks.core.errors import MissingTool
from tasks.core.graph import Graph, Node, below
from tasks.core.stage import Site
from tasks.core.store import Lookup, Result, Store, new_record
from tasks.core.versions import version_of

State = Literal["fresh", "stale", "live", "action"]
LATER = "(known when that stage is done)"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One input that differs from the result that is nearest; None: there is none."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """What holds for one node now.

    Args:
        key: the fingerprint; "" while a stage that it stands on is stale.
        result: the stored result, if the node is fresh.
        changes: what differs from the nearest stored result, if there is one.
        reason: why it is stale, in words.
    """

    node: Node
    state: State
    inputs: Mapping[str, str]
    key: str
    result: Result | None = None
    changes: tuple[Change, ...] = ()
    reason: str = ""


@dataclass(kw_only=True)
class Plan:
    """The status of every node of a graph, observed without running anything.

    Args:
        made: stage and fingerprint of what this run has made.
    """

    graph: Graph
    site: Site
    store: Store
    status: dict[Node, Status] = field(default_factory=dict)
    made: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._code = CodeMemory(self.site.cache / "code.json")
        # Stages at work look again, too: what is remembered of files and programs is common to all.
        self._looking = threading.Lock()

    def observe(self) -> Plan:
        """Look at all nodes, from the ground up; those into which the same goes become one."""
        self.graph.unite(lambda node: tuple(self.look(node).inputs.items()))
        self.status = {node: self.status[node] for node in self.graph.nodes}
        return self

    def look(self, node: Node) -> Status:
        """Determine (again) the status of one node; its parents have been looked at."""
        with self._looking:
            inputs = self._inputs(node)
            key = "" if LATER in inputs.values() else digest_of(inputs)
            status = self.status[node] = self._judge(node, inputs, key)
        return status

    def needed(self) -> list[Node]:
        """The nodes that a run has to work on: from the goals down to what is fresh."""
        needed: set[Node] = set()
        waiting = list(self.graph.goals)
        while waiting:
            node = waiting.pop()
            if self.status[node].state != "fresh" and node not in needed:
                needed.add(node)
                waiting += node.parents
        return [node for node in self.graph.nodes if node in needed]

    def ground_of(self, node: Node) -> list[dict[str, str]]:
        """The stored results that a node was made from, also through live stages."""
        found: dict[tuple[str, str], None] = {}
        for parent in node.parents:
            result = self.status[parent].result
            if result:
                found[result.record["stage"], result.record["key"]] = None
            if parent.is_live:
                found |= dict.fromkeys(
                    (entry["stage"], entry["key"]) for entry in self.ground_of(parent)
                )
        return [{"stage": stage, "key": key} for stage, key in found]

    def _judge(self, node: Node, inputs: Mapping[str, str], key: str) -> Status:
        stage = node.stage
        if stage.kind != "stored":
            return Status(node=node, state=stage.kind, inputs=inputs, key=key)
        if given := stage.given(self.site, **node.arguments) if stage.given else None:
            return Status(node=node, state="fresh", inputs=inputs, key=key, result=given)
        if not key:
            reason = f"{awaited(node, inputs)} will be made first"
            changes = self._changes(node, inputs)
            return Status(
                node=node, state="stale", inputs=inputs, key="", reason=reason, changes=changes
            )
        if node.params["no_cache"] and (node.name, key) not in self.made:
            reason = "everything is made anew"
            return Status(node=node, state="stale", inputs=inputs, key=key, reason=reason)
        found = self._find(node, inputs, key)
        if found.result:
            return Status(node=node, state="fresh", inputs=inputs, key=key, result=found.result)
        changes = self._changes(node, inputs)
        reason = found.damage or ("inputs changed" if changes else "never made")
        return Status(
            node=node, state="stale", inputs=inputs, key=key, reason=reason, changes=changes
        )

    def _find(self, node: Node, inputs: Mapping[str, str], key: str) -> Lookup:
        """The result in the store, if whoever keeps what it stands for still has that."""
        found = self.store.find(node.name, key)
        keeper = node.stage.keeper
        if not keeper:
            return found
        if found.result:
            damage = keeper.damage(found.result)
            return Lookup(damage=damage) if damage else found
        facts = keeper.find(node.name, key)
        if facts is None:
            return found
        record = new_record(node.name, key, inputs, facts)
        return Lookup(result=self.store.adopt(record))

    def _inputs(self, node: Node) -> dict[str, str]:
        """Everything that goes into a node, by name, as text."""
        stage, params = node.stage, node.arguments
        inputs = {f"parameter {name}": value for name, value in node.meaningful.items()}
        for path in files_under(stage.reads(**params) if stage.reads else ()):
            # What is missing is for the stage's `check` to report.
            found = self.store.digests.of(path) if path.is_file() or path.is_symlink() else "(none)"
            inputs[f"file {self._name_of(path)}"] = found
        if stage.depends:
            inputs |= stage.depends(self.site, **params)
        for tool in stage.tools:
            inputs[f"tool {tool}"] = self._version(tool)
        for name, digest in self._code.digests(stage.body).items():
            inputs[f"code {name}"] = digest
        for parent in node.parents:
            inputs[f"stage {parent.name}"] = self._digest_of(parent)
        return inputs

    def _digest_of(self, parent: Node) -> str:
        status = self.status[parent]
        if status.state == "live":
            return status.key or LATER
        return status.result.digest if status.result else LATER

    def _version(self, tool: str) -> str:
        try:
            return version_of(tool, self.site.cache / "versions.json")
        except MissingTool:
            return "(not installed)"

    def _name_of(self, path: Any) -> str:
        root = self.site.root
        return str(path.relative_to(root) if path.is_relative_to(root) else path)

    def _changes(self, node: Node, inputs: Mapping[str, str]) -> tuple[Change, ...]:
        """The differences to the stored result that has the fewest of them."""
        candidates = [
            tuple(differences(record["inputs"], inputs)) for record in self.store.records(node.name)
        ]
        return min(candidates, key=len, default=())


def awaited(node: Node, inputs: Mapping[str, str]) -> str:
    """The stages that a node waits for, without those that these wait for themselves."""
    waits = [each for each in node.parents if inputs[f"stage {each.name}"] == LATER]
    implied = below(waits)
    names = [each.name for each in waits if each not in implied]
    return f"stage{'s' if len(names) > 1 else ''} {', '.join(names)}"


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """The inputs whose values differ, parameters first."""
    names = sorted(set(old) | set(new), key=lambda name: (not name.startswith("parameter"), name))
    return [
        Change(name=name, old=old.get(name), new=new.get(name))
        for name in names
        if old.get(name) != new.get(name) and new.get(name) != LATER
    ]
