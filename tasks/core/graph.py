"""From calls on the command line to a graph of stages with their parameters bound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from invoke.tasks import Call

from tasks.core.options import Value, choose, told
from tasks.core.stage import (
    OF_THE_WHOLE_RUN,
    RUN_OPTIONS,
    Site,
    Stage,
    as_call,
    calls_before,
    qualified_name,
)

if TYPE_CHECKING:
    from invoke.config import Config


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One stage with its values. The same stage with the same values is one node."""

    stage: Stage
    name: str
    params: Mapping[str, Value]
    parents: tuple[Node, ...]

    @property
    def is_live(self) -> bool:
        return self.stage.is_live

    @property
    def arguments(self) -> dict[str, Value]:
        """What the stage's hooks are called with."""
        return {n: value for n, value in self.params.items() if n not in RUN_OPTIONS}

    @property
    def body_arguments(self) -> dict[str, Value]:
        """What the body is called with."""
        return {n: value for n, value in self.arguments.items() if n not in self.stage.also}

    @property
    def told(self) -> dict[str, Value]:
        """The parameters as they may be written down."""
        options = self.stage.own_options
        return {
            name: told(options[name], value) if isinstance(value, str) else value
            for name, value in self.params.items()
        }

    @property
    def meaningful(self) -> dict[str, str]:
        """The parameters that a result depends on, as they may be written down."""
        options, indirect = self.stage.own_options, self.stage.indirect
        return {
            name: told(options[name], value)
            for name, value in self.params.items()
            if options[name].matters and name not in indirect
        }

    @property
    def identity(self) -> Hashable:
        """What two nodes have in common that are one if the same goes into them."""
        if self.stage.kind == "action" or self.stage.given:
            return self  # its values alone say what is done, or which result it is
        aside = (*OF_THE_WHOLE_RUN, *self.stage.indirect)
        values = tuple(item for item in sorted(self.params.items()) if item[0] not in aside)
        return (self.name, values, self.parents)


@dataclass(kw_only=True)
class Graph:
    """Nodes in an order in which each comes after all that it stands on.

    Args:
        copies: of a node that stands for several, the others.
    """

    nodes: list[Node] = field(default_factory=list)
    goals: list[Node] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    copies: dict[Node, list[Node]] = field(default_factory=dict)

    def unite(self, content: Callable[[Node], Hashable]) -> None:
        """Make one node of those that differ only in what counts for nothing in them.

        The variants of an image have stages in common that are given the variant, because some
        of it may count (`Stage.indirect`), and does not.

        Args:
            content: all that goes into a node; asked of each after those that it stands on.
        """
        first: dict[Hashable, Node] = {}
        now: dict[Node, Node] = {}
        for node in self.nodes:
            parents = tuple(dict.fromkeys(now[parent] for parent in node.parents))
            mine = node if parents == node.parents else replace(node, parents=parents)
            now[node] = first.setdefault((mine.identity, content(mine)), mine)
            if now[node] is not mine:
                self.copies.setdefault(now[node], []).append(mine)
        self.nodes = list(first.values())
        self.goals = [now[goal] for goal in self.goals]

    def told(self, node: Node) -> dict[str, Value]:
        """The values of a node, as they may be written down, in which its copies are like it."""
        others = [copy.told for copy in self.copies.get(node, ())]
        return {
            name: value
            for name, value in node.told.items()
            if all(other[name] == value for other in others)
        }

    def labels(self) -> dict[Node, str]:
        """What each node is called among the others: by its name, and what tells it from others.

        Two variants of an image in one run have stages of the same names.
        """
        called: defaultdict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            called[node.name].append(node)
        labels = {nodes[0]: name for name, nodes in called.items() if len(nodes) == 1}
        values = self._values() if len(labels) < len(self.nodes) else {}
        for name, nodes in called.items():
            if len(nodes) > 1:
                marks = distinctions([values[node] for node in nodes])
                labels |= {
                    node: f"{name} ({mark})" for node, mark in zip(nodes, marks, strict=True)
                }
        return labels

    def _values(self) -> dict[Node, dict[str, str]]:
        """The values of each node, as they may be told, and of all that it stands on."""
        values: dict[Node, dict[str, str]] = {}
        for node in self.nodes:
            told = self.told(node)
            own = {name: str(told[name]) for name in node.arguments if name in told}
            below = {name: value for one in node.parents for name, value in values[one].items()}
            values[node] = {**below, **own}
        return values


def below(nodes: Iterable[Node]) -> set[Node]:
    """All that nodes stand on."""
    found: set[Node] = set()
    waiting = [parent for node in nodes for parent in node.parents]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.parents
    return found


def distinctions(values: list[dict[str, str]]) -> list[str]:
    """For each of several sets of values, those in which it is not like the others."""
    names = dict.fromkeys(name for each in values for name in each)
    differing = [name for name in names if len({each.get(name) for each in values}) > 1]
    words = [", ".join(each[name] for name in differing if name in each) for each in values]
    return [
        f"{word} {number}".strip() if not word or words.count(word) > 1 else word
        for number, word in enumerate(words, start=1)
    ]


def build(calls: Iterable[Call], config: Config, site: Site) -> Graph:
    """Expand the calls and all that they stand on.

    A value given to a task is given to each of its pre-tasks that has a parameter of that name,
    and so on down the chain; an explicit `call(task, name=value)` wins from there on.
    What is wrong with the values is collected in `problems`.
    """
    graph = Graph()
    known: dict[tuple[Any, ...], Node] = {}
    for call in calls:
        graph.goals += _expand(call, {}, config, site, graph, known)
    return graph


def _expand(
    call: Call,
    inherited: Mapping[str, Value],
    config: Config,
    site: Site,
    graph: Graph,
    known: dict[tuple[Any, ...], Node],
) -> tuple[Node, ...]:
    """The node of a call, after those that it stands on; or the nodes that take its place."""
    stage = call.task
    if not isinstance(stage, Stage) or call.args:
        raise TypeError(f"{call!r}: a stage stands on stages, called with named values only")
    own = {name: value for name, value in call.kwargs.items() if value is not None}
    given = {**inherited, **own}
    chosen = {
        name: choose(option, given.get(name), config) for name, option in stage.own_options.items()
    }
    params = {name: each.value for name, each in chosen.items()}
    problems = [each.problem for each in chosen.values() if each.problem]
    graph.problems += [problem for problem in problems if problem not in graph.problems]
    arguments = {name: value for name, value in params.items() if name not in RUN_OPTIONS}
    # A hook may look at what a value names, which isn't there if the value is wrong.
    hook = None if problems else stage.instead
    others = hook(site, **arguments) if hook else None
    before = calls_before(stage) if others is None else map(as_call, others)
    parents = tuple(
        node for pre in before for node in _expand(pre, given, config, site, graph, known)
    )
    if others is not None:
        return parents
    # Said of one goal, these hold for the run, and make no other stages of those that goals share.
    values = tuple(item for item in sorted(params.items()) if item[0] not in OF_THE_WHOLE_RUN)
    key = (qualified_name(stage), values, tuple(map(id, parents)))
    if key not in known:
        known[key] = Node(stage=stage, name=key[0], params=params, parents=parents)
        graph.nodes.append(known[key])
    return (known[key],)
