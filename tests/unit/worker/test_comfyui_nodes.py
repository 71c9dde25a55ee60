"""Which nodes ran, and for how long."""

from __future__ import annotations

from typing import Any

from otel_pipeline.worker.comfyui import nodes
from otel_pipeline.worker.comfyui.nodes import NodeRun, NodeTracker


def _state(**states: Any) -> dict[str, Any]:
    return {"nodes": {key[1:]: {"state": state, "max": 1.0} for key, state in states.items()}}


def _spans(runs: list[NodeRun]) -> list[tuple[str, int, int]]:
    return [(run.node, run.start_ns, run.end_ns) for run in runs]


def test_a_node_of_an_old_server_lasts_until_the_next() -> None:
    tracker = NodeTracker()
    assert tracker.message("executing", {"node": "1"}, 10) == []
    assert tracker.message("executing", {"node": "1"}, 12) == []
    assert _spans(tracker.message("executing", {"node": "2"}, 20)) == [("1", 10, 20)]
    assert _spans(tracker.finish(30)) == [("2", 20, 30)]


def test_nodes_that_run_at_the_same_time_end_by_their_states() -> None:
    tracker = NodeTracker()
    tracker.message("progress_state", _state(n1="running", n2="running"), 10)
    assert tracker.message("executing", {"node": "1"}, 11) == []
    assert tracker.message("executing", {"node": "2"}, 12) == []
    assert _spans(tracker.message("progress_state", _state(n1="running", n2="finished"), 20)) == [("2", 10, 20)]
    (failed,) = tracker.message("progress_state", _state(n1="error", n2="finished"), 30)
    assert (failed.node, failed.failed) == ("1", True)
    assert tracker.finish(40) == []


def test_a_node_that_was_missed_has_no_times() -> None:
    tracker = NodeTracker()
    assert tracker.message("progress_state", _state(n1="finished", n2="pending"), 10) == []
    assert tracker.finish(20) == []


def test_the_node_that_failed_the_prompt_is_marked() -> None:
    tracker = NodeTracker()
    tracker.message("executing", {"node": "1"}, 1)
    assert [run.failed for run in tracker.finish(2, "1")] == [True]


def test_expanded_nodes_know_their_parent_and_samplers_their_steps() -> None:
    tracker = NodeTracker()
    told = {"3.0.0.1": {"state": "running", "max": 1, "parent_node_id": "3"}}
    tracker.message("progress_state", {"nodes": told}, 1)
    tracker.message("executing", {"node": "4.0.0.7"}, 2)
    tracker.message("progress", {"node": "4.0.0.7", "value": 1, "max": 20}, 3)
    runs = {run.node: run for run in tracker.finish(9)}
    assert (runs["3.0.0.1"].parent, runs["4.0.0.7"].parent) == ("3", "4")
    assert (runs["3.0.0.1"].steps, runs["4.0.0.7"].steps) == (1, 20)


def test_the_nodes_of_one_prompt_are_bounded() -> None:
    tracker = NodeTracker()
    for number in range(nodes.NODES_MAX + 5):
        tracker.message("executing", {"node": str(number)}, number)
    assert len(tracker.seen) == nodes.NODES_MAX


def test_odd_messages_are_ignored() -> None:
    tracker = NodeTracker()
    for data in (
        {},
        {"nodes": None},
        {"nodes": {"1": None}},
        {"nodes": [1]},
        {"node": None},
        {"node": "1", "max": "x"},
    ):
        for kind in ("progress_state", "execution_cached", "executing", "progress", "status"):
            tracker.message(kind, data, 1)
    assert list(tracker.running) == ["1"]
