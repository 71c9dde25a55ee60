"""The body of POST /prompt, and what is added to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_pipeline.worker.comfyui import bodies

NODES = {"1": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20}}}
HEADERS = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "tracestate": 'a="b"'}


def _sent(body: Any) -> Any:
    document = bodies.document_of(body)
    assert document is not None
    return bodies.text_with_context(body, document, HEADERS)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"prompt": NODES, "client_id": "c"}),
        json.dumps({"prompt": NODES}, separators=(",", ":")),
        json.dumps({"prompt": NODES, "extra_data": {}}),
        json.dumps({"prompt": NODES, "extra_data": {"mine": {"deep": [1, None]}}}, indent=1),
        '  {"prompt": ' + json.dumps(NODES) + ', "extra_data" :  { "a" : 1.50 } }\n',
        json.dumps({"prompt": NODES, "text": 'ümläut \u2028 {"extra_data": {'}, ensure_ascii=False),
        json.dumps({"prompt": NODES, "nested": {"extra_data": {"x": 1}}, "extra_data": {"y": 2}}),
    ],
)
def test_the_context_is_all_that_a_body_gains(text: str) -> None:
    given = json.loads(text)
    for body in (text, text.encode(), bytearray(text.encode())):
        sent = _sent(body)
        assert type(sent) is (str if isinstance(body, str) else bytes)
        found = json.loads(sent)
        for name, value in HEADERS.items():
            assert found["extra_data"].pop(name) == value
        if "extra_data" not in given:
            assert found.pop("extra_data") == {}
        assert found == given


def test_the_text_around_it_stays_as_it_is() -> None:
    text = '{"prompt":{"1":{"class_type":"A","inputs":{"x":1.0e-7,"y":"\\u00fc"}}}}'
    sent = _sent(text)
    assert sent.startswith('{"extra_data": {"traceparent": ')
    assert sent.endswith(text[1:])


@pytest.mark.parametrize(
    "document",
    [
        {"prompt": NODES, "extra_data": {"traceparent": "of the host"}},
        {"prompt": NODES, "extra_data": None},
        {"prompt": NODES, "extra_data": "text"},
    ],
)
def test_a_context_of_the_hosts_own_or_no_place_for_ours_leaves_the_body_alone(document: dict[str, Any]) -> None:
    assert _sent(json.dumps(document)) is None
    assert bodies.with_context(document, HEADERS) is None


def test_objects_of_the_host_are_never_changed() -> None:
    document = {"prompt": NODES, "extra_data": {"mine": 1}}
    kept = json.dumps(document)
    sent = bodies.with_context(document, HEADERS)
    assert sent is not None
    assert sent["extra_data"] == {**HEADERS, "mine": 1}
    assert sent["prompt"] is NODES
    assert json.dumps(document) == kept


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{not json", b"[1]", b'"text"', "null", 5, None, {"prompt": NODES}, b"\xff\xfe{}", "[" * 100_000],
)
def test_what_is_no_json_object_is_no_document(body: object) -> None:
    assert bodies.document_of(body) is None


def test_a_body_of_more_than_8_mib_is_not_parsed() -> None:
    big = json.dumps({"prompt": NODES, "image": "x" * bodies.BODY_BYTES_MAX})
    assert bodies.document_of(big) is None
    assert bodies.document_of(big.encode()) is None


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"prompt": "a text for a language model"},
        {"prompt": {}},
        {"prompt": []},
        {"prompt": {"1": {"inputs": {}}}},
        {"prompt": {"role": "user"}},
        {"prompt": {"1": {"class_type": 5}}},
    ],
)
def test_other_bodies_are_no_graphs(document: object) -> None:
    assert bodies.graph_of(document) is None


def test_a_graph_names_its_classes_and_the_id_that_the_client_chose() -> None:
    graph = bodies.graph_of({"prompt": NODES, "prompt_id": "mine"})
    assert graph is not None
    assert dict(graph.classes) == {"1": "KSampler"}
    assert graph.prompt_id == "mine"


def _graph(text: str = "a cat", **inputs: Any) -> bodies.Graph:
    nodes = {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": text}},
        "2": {"class_type": "KSampler", "inputs": inputs},
    }
    graph = bodies.graph_of({"prompt": nodes})
    assert graph is not None
    return graph


def test_a_retry_with_other_numbers_or_a_smaller_model_is_the_same_wish() -> None:
    first = _graph(seed=1, width=1024, ckpt_name="big.safetensors")
    assert _graph(seed=2, width=512, ckpt_name="small.safetensors").wish == first.wish
    assert _graph("a dog", seed=1, width=1024).wish != first.wish
    assert _graph("a dog", seed=1, width=1024).kind == first.kind
