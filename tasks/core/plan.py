"""Which stages are fresh and which are stale, and because of which input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.core.code import CodeMemory
from tasks.core.digest import digest_of, files_under
from tasks.core.errors import MissingTool
from tasks.core.graph import Graph, Node
from tasks.core.stage import Site
from tasks.core.store import Result, Store
from tasks.core.versions import version_of

State = Literal["fresh", "stale", "live"]
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
    """The status of every node of a graph, observed without running anything."""

    graph: Graph
    site: Site
    store: Store
    status: dict[Node, Status] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._code = CodeMemory(self.site.cache / "code.json")

    def observe(self) -> Plan:
        """Look at all nodes, from the ground up."""
        for node in self.graph.nodes:
            self.look(node)
        return self

    def look(self, node: Node) -> Status:
        """Determine (again) the status of one node; its parents have been looked at."""
        inputs = self._inputs(node)
        key = "" if LATER in inputs.values() else digest_of(inputs)
        self.status[node] = self._judge(node, inputs, key)
        return self.status[node]

    def needed(self) -> list[Node]:
        """The nodes that a run has to work on: stale ones, and live ones that these stand on.

        A live goal is needed, too: it was asked for by name.
        """
        goals = set(self.graph.goals)
        needed: set[Node] = set()
        for node in reversed(self.graph.nodes):
            children = [n for n in needed if node in n.parents]
            match self.status[node].state:
                case "stale":
                    needed.add(node)
                case "live" if children or node in goals:
                    needed.add(node)
        return [node for node in self.graph.nodes if node in needed]

    def _judge(self, node: Node, inputs: Mapping[str, str], key: str) -> Status:
        if node.stage.is_live:
            return Status(node=node, state="live", inputs=inputs, key=key)
        if not key:
            waits = [name for name, value in inputs.items() if value == LATER]
            reason = f"{' and '.join(waits)} will be made first"
            changes = self._changes(node, inputs)
            return Status(
                node=node, state="stale", inputs=inputs, key="", reason=reason, changes=changes
            )
        found = self.store.find(node.name, key)
        if found.result:
            return Status(node=node, state="fresh", inputs=inputs, key=key, result=found.result)
        changes = self._changes(node, inputs)
        reason = found.damage or ("inputs changed" if changes else "never made")
        return Status(
            node=node, state="stale", inputs=inputs, key=key, reason=reason, changes=changes
        )

    def _inputs(self, node: Node) -> dict[str, str]:
        """Everything that goes into a node, by name, as text."""
        stage, params = node.stage, node.arguments
        inputs = {f"parameter {name}": str(value) for name, value in node.meaningful.items()}
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


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """The inputs whose values differ, parameters first."""
    names = sorted(set(old) | set(new), key=lambda name: (not name.startswith("parameter"), name))
    return [
        Change(name=name, old=old.get(name), new=new.get(name))
        for name in names
        if old.get(name) != new.get(name) and new.get(name) != LATER
    ]
