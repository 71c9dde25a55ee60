"""Which nodes of a prompt ran, and from when to when, as told by WebSocket messages. Pure: the times come in.

`progress_state` tells the state of every node, also of several at once (async nodes) and of those that a node expanded
to. Older servers send `executing` only: there a node lasts until the next one begins. No message carries the server's
time for a node, so the times are those of arrival.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

NODES_MAX: Final = 1000
"""Nodes of one prompt that are followed, expanded ones included."""


@dataclass(slots=True)
class NodeRun:
    node: str
    start_ns: int
    end_ns: int = 0
    parent: str | None = None
    """The node that it is part of, if a node expanded to it."""
    steps: int = 0
    """The greatest `max` of its progress: of a sampler the number of steps."""
    failed: bool = False


@dataclass(slots=True)
class NodeTracker:
    """The nodes of one prompt."""

    running: dict[str, NodeRun] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    cached: dict[str, None] = field(default_factory=dict)
    """In order."""
    knows_states: bool = False
    """The server sends `progress_state`."""

    def message(self, kind: str, data: Mapping[str, Any], now_ns: int) -> list[NodeRun]:
        """Takes one message in; returns the nodes that it shows to be over."""
        if kind == "progress_state":
            self.knows_states = True
            return self._states(data.get("nodes"), now_ns)
        if kind == "execution_cached":
            nodes = data.get("nodes")
            self.cached.update((str(each), None) for each in (nodes if isinstance(nodes, list) else [])[:NODES_MAX])
        elif kind == "executing" and data.get("node") is not None:
            return self._executing(str(data["node"]), now_ns)
        elif kind == "progress" and data.get("node") is not None:
            self._progress(str(data["node"]), data.get("max"))
        return []

    def finish(self, now_ns: int, failed: str | None = None) -> list[NodeRun]:
        """The prompt is over: so is what still ran."""
        ended = [self._end(each, now_ns) for each in list(self.running.values())]
        for each in ended:
            each.failed = each.failed or each.node == failed
        return ended

    def _states(self, nodes: object, now_ns: int) -> list[NodeRun]:
        ended = []
        for key, told in nodes.items() if isinstance(nodes, dict) else ():
            state = told.get("state") if isinstance(told, dict) else None
            if state == "running":
                self._begin(str(key), now_ns, told)
                self._progress(str(key), told.get("max"))
            elif state in {"finished", "error"} and key in self.running:
                self._progress(str(key), told.get("max"))
                self.running[key].failed = state == "error"
                ended.append(self._end(self.running[key], now_ns))
        return ended

    def _executing(self, node: str, now_ns: int) -> list[NodeRun]:
        ended = []
        if not self.knows_states:
            ended = [self._end(each, now_ns) for each in list(self.running.values()) if each.node != node]
        self._begin(node, now_ns, {})
        return ended

    def _begin(self, node: str, now_ns: int, told: Mapping[str, Any]) -> None:
        if node in self.seen or len(self.seen) >= NODES_MAX:
            return
        self.seen.add(node)
        parent = told.get("parent_node_id")
        if parent is None and "." in node:
            parent = node.split(".", 1)[0]
        self.running[node] = NodeRun(node, now_ns, parent=str(parent) if parent is not None else None)

    def _progress(self, node: str, steps: object) -> None:
        run = self.running.get(node)
        if run is not None and isinstance(steps, int | float) and steps > run.steps:
            run.steps = int(steps)

    def _end(self, run: NodeRun, now_ns: int) -> NodeRun:
        del self.running[run.node]
        run.end_ns = max(now_ns, run.start_ns)
        return run
