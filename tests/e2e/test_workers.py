"""Nine workers as people write them, none of which knows of us, each traced from its request to the last download.

Run under the real `opentelemetry-instrument`, against a real Redis, a real gateway and recordings of a real ComfyUI.
Every check holds for all nine; what a style has of its own stands in tests/support/worker_styles.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from otel_pipeline.demo.redis_server import redis_server
from otel_pipeline.worker import names
from tests.e2e.support import Launcher, Server
from tests.support.worker_platform import OUR_KEYS, PLAIN, Platform
from tests.support.worker_styles import PROMPT_ERRORS, SECRET, STYLES, TEXT, Sample, Style
from tests.support.worker_traces import Record, Span, Trace

ALL = pytest.mark.parametrize("style", list(STYLES))
CHATTER = {"BLPOP", "LPOP", "BRPOP", "BZPOPMIN", "XREADGROUP", "EVALSHA", "WATCH", "ZRANGEBYSCORE", "BLMOVE", "PUBLISH"}
"""Commands by which queues and frameworks work, none of which is a step of a job."""
EXIT_S_MAX = 20.0
ENDS_BY_SIGNAL = {"list_json", "list_id", "streams", "zset", "inline"}
"""They have no handler for SIGTERM: the signal ends them, as without us."""


@dataclass
class Played:
    """What became of everything."""

    platform: Platform
    spans: list[Span] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    payloads: dict[str, tuple[list[Any], list[Any]]] = field(default_factory=dict)
    """What the producers left in Redis: with us, without us."""
    keys: tuple[set[bytes], set[bytes]] = (set(), set())
    exits: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Styles whose worker did not get through its jobs."""

    def style(self, name: str) -> Style:
        if name in self.failures:
            pytest.fail(self.failures[name])
        return STYLES[name]

    def traces(self, name: str) -> list[Trace]:
        style = self.style(name)
        return self.platform.traces_of(style.service, style.api)

    def jobs(self, name: str) -> list[tuple[Sample, Trace, Span]]:
        """Each job with its trace and the span of its last attempt."""
        found: dict[str, tuple[Trace, Span]] = {}
        for trace in self.traces(name):
            for span in job_spans(trace):
                found[span.attributes[names.JOB_ID]] = (trace, span)
        samples = self.style(name).samples
        missing = [sample.id for sample in samples if sample.id not in found]
        assert not missing, f"no span of {missing}; there is {list(found)}"
        return [(sample, *found[sample.id]) for sample in samples]


def job_spans(trace: Trace) -> list[Span]:
    """The spans that stand for attempts at a job."""
    return [span for span in trace.spans if names.JOB_OUTCOME in span.attributes]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, module_launcher: Launcher) -> Iterator[Played]:
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    styles = [STYLES[name] for name in STYLES if any(each.get("style") == name for each in chosen)]
    with redis_server() as redis_url:
        played = Played(Platform(module_launcher, redis_url))
        produce(played, styles)
        work(played, styles)
        played.platform.settle()
        played.spans, played.records = played.platform.spans(), played.platform.records()
        yield played


def produce(played: Played, styles: list[Style]) -> None:
    """Twice: with us, and without."""
    platform = played.platform
    producers = [
        (style, with_us, platform.produce(style, with_us=with_us)) for style in styles for with_us in (True, False)
    ]
    for style, _, producer in producers:
        platform.enqueue(style, producer)
    for style in styles:
        played.payloads[style.name] = (platform.left_in_redis(style, 0), platform.left_in_redis(style, PLAIN))
    played.keys = (platform.keys(0), platform.keys(PLAIN))


def work(played: Played, styles: list[Style]) -> None:
    workers = [(style, played.platform.start_worker(style)) for style in styles]
    for style, worker in workers:
        guarded(played, style, lambda style=style, worker=worker: played.platform.wait_for_jobs(style, worker))
    played.platform.settle()
    for _, worker in workers:
        worker.terminate()
    for style, worker in workers:
        guarded(played, style, lambda style=style, worker=worker: end(played, style, worker))


def end(played: Played, style: Style, worker: Server) -> None:
    played.exits[style.name] = worker.wait(EXIT_S_MAX)


def guarded(played: Played, style: Style, step: Any) -> None:
    """One worker that fails does not hide the others."""
    try:
        step()
    except pytest.fail.Exception as failure:
        played.failures.setdefault(style.name, str(failure))


@ALL
def test_there_is_exactly_one_trace_for_each_job_and_no_other(style: str, played: Played) -> None:
    found = played.traces(style)
    ids = Counter(next((span.get(names.JOB_ID) for span in job_spans(trace)), "no job") for trace in found)
    outlines = "\n\n".join(trace.outline() for trace in found)
    assert ids == {sample.id: 1 for sample in STYLES[style].samples}, outlines
    assert all(len(trace.roots) == 1 for trace in found), outlines


@ALL
def test_each_attempt_is_one_span_and_numbered(style: str, played: Played) -> None:
    for sample, trace, _ in played.jobs(style):
        attempts = [span.get(names.JOB_ATTEMPT) for span in job_spans(trace)]
        assert attempts == list(range(1, sample.attempts + 1)), trace.outline()


@ALL
def test_the_outcome_is_honest_and_says_who_knew(style: str, played: Played) -> None:
    told = {sample.kind: _seen(span) for sample, _, span in played.jobs(style)}
    expected = {
        sample.kind: (sample.seen.outcome, sample.seen.source, sample.seen.error_type, sample.seen.outcome == "failed")
        for sample in STYLES[style].samples
    }
    # Where no type is expected there may be one or not: what a speech API's 429 is called is the client library's.
    told = {kind: (*seen[:2], seen[2] if expected[kind][2] else None, seen[3]) for kind, seen in told.items()}
    assert told == expected


def _seen(span: Span) -> tuple[Any, Any, Any, bool]:
    return span.get(names.JOB_OUTCOME), span.get(names.JOB_OUTCOME_SOURCE), span.get(names.ERROR_TYPE), span.error


@ALL
def test_the_tree_goes_from_the_request_to_the_job(style: str, played: Played) -> None:
    known = played.style(style)
    for _, trace, span in played.jobs(style):
        [root] = trace.roots
        if style == "runpod_handler":
            assert root is span, trace.outline()
            continue
        sent = trace.parent(span)
        assert sent is not None, trace.outline()
        assert (sent.kind, span.kind) == ("producer", "consumer"), trace.outline()
        assert (sent.service, span.service) == (known.api, known.service)
        if known.post:
            assert root.kind == "server", trace.outline()
            assert sent in trace.below(root) or sent in list(trace.below(root))
        else:
            assert root is sent, trace.outline()


@ALL
def test_the_comfyui_prompt_is_below_the_job_with_its_nodes_and_downloads(style: str, played: Played) -> None:
    known = played.style(style)
    for sample, trace, span in played.jobs(style):
        below = list(trace.below(span))
        prompts = [each for each in below if each.name.startswith("comfyui.prompt")]
        if sample.kind in ("no_workflow", "bad_input", "speech_500") or (
            sample.kind == "speech_429" and sample.attempts == 1
        ):
            assert not prompts, trace.outline()
            continue
        [prompt] = prompts
        inside = list(trace.below(prompt))
        posts = [each for each in trace.children(prompt) if each.name == "POST"]
        assert len(posts) == (known.prompts_by == "httpx"), trace.outline()
        assert prompt.error == (sample.kind in PROMPT_ERRORS), trace.outline()
        if sample.kind in PROMPT_ERRORS:
            assert prompt.get(names.ERROR_TYPE) == PROMPT_ERRORS[sample.kind]
        downloads = [each for each in inside if each.name.startswith("comfyui.download")]
        wanted = sample.kind in ("success", "cached", "speech_429")
        assert bool(downloads) == wanted, trace.outline()
        nodes = [each for each in inside if each.name.startswith("comfyui.node")]
        executed = sample.kind in ("success", "execution_error", "out_of_memory")
        assert bool(nodes) == (executed and known.nodes), trace.outline()
        if sample.kind != "validation_error":
            assert prompt.get("comfyui.prompt.id")


@ALL
def test_there_are_no_spans_for_polls_and_framework_chatter(style: str, played: Played) -> None:
    mine = [span for trace in played.traces(style) for span in trace.spans if span.service == STYLES[style].service]
    polls = ("/history/", "/queue", "/job-take/", "/job-stop/", "/ping/")
    noise = [span.name for span in mine if any(part in str(span.get("url.full")) for part in polls)]
    noise += [span.name for span in mine if span.name in CHATTER]
    assert not noise


@ALL
def test_every_span_of_the_worker_tells_whose_job_it_is(style: str, played: Played) -> None:
    for sample, trace, job in played.jobs(style):
        user = job.get(names.USER_ID)
        assert user, f"{sample.id}: {dict(job.attributes)}"
        assert SECRET not in user
        for span in (each for each in trace.spans if each.service == STYLES[style].service):
            told = {key: span.get(key) for key in (names.JOB_ID, names.USER_ID, names.JOB_TIER)}
            if span.name == "HGETALL":  # it is what user and tier are learnt from
                told |= {names.USER_ID: user, names.JOB_TIER: sample.tier}
            assert told == {names.JOB_ID: sample.id, names.USER_ID: user, names.JOB_TIER: sample.tier}, (
                span.name,
                trace.outline(),
            )


@ALL
def test_users_are_told_apart_by_their_pseudonyms(style: str, played: Played) -> None:
    pairs = {(sample.user, job.get(names.USER_ID)) for sample, _, job in played.jobs(style)}
    assert len(pairs) == len({user for user, _ in pairs}) == len({pseudonym for _, pseudonym in pairs}) == 2


@ALL
def test_the_job_knows_its_workflow_and_model(style: str, played: Played) -> None:
    for sample, _, job in played.jobs(style):
        assert job.get(names.WORKFLOW) == (sample.workflow or None), dict(job.attributes)
        model = sample.body.get("model")
        if model:
            assert job.get(names.MODEL) == model


@ALL
def test_the_messaging_attributes_name_the_queue(style: str, played: Played) -> None:
    known = played.style(style)
    for _, _, job in played.jobs(style):
        assert (job.get(names.MESSAGING_SYSTEM), job.get(names.MESSAGING_DESTINATION)) == (known.system, known.queue)


@ALL
def test_the_time_in_the_queue_is_on_the_job(style: str, played: Played) -> None:
    if style == "runpod_handler":
        pytest.skip("nobody of ours enqueued it")
    for sample, trace, job in played.jobs(style):
        sent = next(span for span in trace.spans if span.kind == "producer")
        waited_s = (job.start_ns - sent.start_ns) / 1e9
        assert job.get(names.JOB_QUEUE_WAIT_S) is not None, sample.id
        assert abs(job.get(names.JOB_QUEUE_WAIT_S) - waited_s) < 0.5 + waited_s * (sample.attempts - 1), sample.id


@ALL
def test_the_correlation_id_is_on_all_spans(style: str, played: Played) -> None:
    with_header = played.style(style).post is not None
    for sample, trace, _ in played.jobs(style):
        wanted = sample.correlation_id if with_header else sample.id
        told = {(span.name, span.get(names.CORRELATION_ID)) for span in trace.spans}
        assert {value for _, value in told} == {wanted}, told


@ALL
def test_log_records_carry_the_trace_and_the_correlation_id(style: str, played: Played) -> None:
    with_header = played.style(style).post is not None
    for sample, trace, _ in played.jobs(style):
        mine = [record for record in played.records if record.trace_id == trace.id]
        assert mine, f"no record of {sample.id}"
        wanted = sample.correlation_id if with_header else sample.id
        of_worker = [record for record in mine if record.service == STYLES[style].service]
        assert {record.attributes.get(names.CORRELATION_ID) for record in of_worker} == {wanted}
        ids = {span.span_id for span in trace.spans}
        assert all(record.span_id in ids for record in mine)


@ALL
def test_payloads_are_the_same_with_and_without_us(style: str, played: Played) -> None:
    with_us, without = played.payloads[style]
    assert with_us == without
    assert bool(with_us) == (style != "runpod_handler")


@pytest.mark.parametrize("style", ["list_json"])
def test_only_side_keys_are_added_to_redis(style: str, played: Played) -> None:
    added = {key for key in played.keys[0] if key.startswith(OUR_KEYS)}
    assert added
    with_us = {key for key in played.keys[0] - added if not _random(key)}
    assert with_us == {key for key in played.keys[1] if not _random(key)}, style


def _random(key: bytes) -> bool:
    """Ids that RQ makes up."""
    return key.startswith(b"rq:job:")


@ALL
def test_the_worker_ends_as_it_does_without_us(style: str, played: Played) -> None:
    assert played.style(style)
    assert played.exits[style] == (-15 if style in ENDS_BY_SIGNAL else 0)


@ALL
def test_no_prompt_and_no_raw_user_is_in_the_telemetry(style: str, played: Played) -> None:
    mine = [each for each in played.spans if each.service in (STYLES[style].service, STYLES[style].api)]
    found = [span.name for span in mine if TEXT in str(span) or SECRET in str(span)]
    assert not found, "in spans"
