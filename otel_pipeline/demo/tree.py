"""Draws traces as trees of text. Pure: OTLP JSON lines in, text out; the command at the end reads a file.

A parent may never come, and damaged ids may form a circle, so neither is an error: such spans stand at the top of their
trace and are marked. What a bound leaves out is counted in the text.

    python -m otel_pipeline.demo.tree traces.jsonl
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from otel_pipeline.demo.spans import Reading, Span, read

TRACES_SHOWN: Final = 20
LINES_SHOWN: Final = 200
"""Lines of one trace: more than fits a screen; a runaway trace must not fill the terminal."""
DEPTH_SHOWN: Final = 40
ATTRIBUTES_SHOWN: Final = 6
CHARACTERS_SHOWN: Final = 60
"""Of a name, a reason, a value."""
RUN_LENGTH_MIN: Final = 4
"""So many equal neighbours without children (polls, diffusion steps) become one line."""

KEYS: Final = (
    "otel_pipeline.job.outcome",
    "otel_pipeline.job.id",
    "otel_pipeline.stage.name",
    "comfyui.outcome",
    "http.response.status_code",
    "url.full",
    "otel_pipeline.cost.amount",
    "otel_pipeline.gpu.energy",
    "otel_pipeline.gpu.utilization.mean",
    "db.query.text",
)
"""Attributes worth a place on the line, the most telling first; after them those with one of the prefixes."""
BROKEN: Final = re.compile(r"\d{1,5}\.\d{5,20}(e-?\d{1,3})?")
"""A number with more decimals than anybody reads."""
PREFIXES: Final = ("otel_pipeline.", "comfyui.", "gen_ai.", "hw.", "messaging.")


def render(lines: Iterable[str], traces_shown: int = TRACES_SHOWN) -> str:
    """Traces as trees, those with errors first and those of one span only last, and a summary of the others."""
    reading = read(lines)
    traces = _traces(reading.spans)
    parts = ["\n".join(_drawing(trace)) for trace in traces[:traces_shown]]
    if rest := traces[traces_shown:]:
        spans, failed = sum(len(trace.spans) for trace in rest), sum(trace.failed > 0 for trace in rest)
        parts.append(f"... and {_count(len(rest), 'trace')} more: {_count(spans, 'span')}, {failed} with errors")
    parts += _notes(reading)
    return "\n\n".join(parts) if traces else "\n\n".join(["no spans", *parts])


@dataclass(frozen=True, slots=True)
class _Trace:
    spans: Sequence[Span]
    tops: Sequence[tuple[Span, str]]
    """Where the drawing starts, each with a mark (empty for a root)."""
    children: dict[str, list[Span]]

    @property
    def failed(self) -> int:
        return sum(span.failed for span in self.spans)


def _traces(spans: Iterable[Span]) -> list[_Trace]:
    by_id: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_id[span.trace_id].append(span)
    groups = [sorted(group, key=lambda span: (span.start_ns, span.span_id)) for group in by_id.values()]
    groups.sort(key=lambda group: (not any(span.failed for span in group), len(group) == 1, group[0].start_ns))
    return [_trace(group) for group in groups]


def _trace(spans: list[Span]) -> _Trace:
    """Hangs each span under its parent, once: what no top leads to is a circle, cut at its earliest span."""
    ids = {span.span_id for span in spans}
    by_parent: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_parent[span.parent_id].append(span)
    tops = [(span, "") for span in spans if not span.parent_id]
    tops += [
        (span, f"parent {span.parent_id} not seen") for span in spans if span.parent_id and span.parent_id not in ids
    ]
    children: dict[str, list[Span]] = {}
    for top, _ in tops:
        _reach(top, by_parent, children)
    for span in spans:
        if span.span_id not in children:
            tops.append((span, "circle of parents"))
            _reach(span, by_parent, children)
    return _Trace(spans, tops, children)


def _reach(top: Span, by_parent: dict[str, list[Span]], children: dict[str, list[Span]]) -> None:
    children[top.span_id] = []
    open_spans = [top]
    while open_spans:
        span = open_spans.pop()
        # Every span enters `children` once, so a circle ends here.
        below = [each for each in by_parent.get(span.span_id, ()) if each.span_id not in children]
        children[span.span_id] = below
        children |= {each.span_id: [] for each in below}
        open_spans += below


def _drawing(trace: _Trace) -> Iterator[str]:
    start_ns, end_ns = min(span.start_ns for span in trace.spans), max(span.end_ns for span in trace.spans)
    services = sorted({_clean(span.service) for span in trace.spans})
    facts = [_count(len(trace.spans), "span"), _duration(end_ns - start_ns), ", ".join(services[:5])]
    facts += [_count(trace.failed, "error")] if trace.failed else []
    yield f"trace {trace.spans[0].trace_id} · " + " · ".join(facts)
    lines = [line for top, mark in trace.tops for line in _subtree(trace, top, mark)]
    yield from lines[:LINES_SHOWN]
    if len(lines) > LINES_SHOWN:
        yield f"... {_count(len(lines) - LINES_SHOWN, 'line')} more"


def _subtree(trace: _Trace, top: Span, mark: str) -> Iterator[str]:
    yield "● " + _line(top, None, mark)
    yield from _branches(trace, top, "  ", 1)


def _branches(trace: _Trace, parent: Span, indent: str, depth: int) -> Iterator[str]:
    runs = [list(run) for _, run in groupby(trace.children[parent.span_id], lambda span: _run_key(trace, span))]
    branches = [
        branch for run in runs for branch in ([run] if len(run) >= RUN_LENGTH_MIN else [[span] for span in run])
    ]
    if branches and depth > DEPTH_SHOWN:
        yield f"{indent}└─ ... deeper spans are not shown"
        return
    for index, branch in enumerate(branches):
        last = index == len(branches) - 1
        yield (
            indent + ("└─ " if last else "├─ ") + (_line(branch[0], parent) if len(branch) == 1 else _run_line(branch))
        )
        if len(branch) == 1:
            yield from _branches(trace, branch[0], indent + ("   " if last else "│  "), depth + 1)


def _run_key(trace: _Trace, span: Span) -> object:
    """Equal for neighbours that one line can stand for; failures and spans with children stand for themselves."""
    if span.failed or trace.children[span.span_id]:
        return span.span_id
    return span.name, span.service, _place(span)


def _run_line(run: Sequence[Span]) -> str:
    place = f" {_place(run[0])}" if _place(run[0]) else ""
    total = _duration(sum(span.end_ns - span.start_ns for span in run))
    return f"{_clean(run[0].name)}{place} x {len(run)} · {total} in all"


def _line(span: Span, above: Span | None, mark: str = "") -> str:
    """What the span above says too is not said again."""
    facts = [_clean(span.name) or "(no name)", _duration(span.end_ns - span.start_ns)]
    facts += [_clean(span.service)] if above is None or span.service != above.service else []
    if span.failed:
        kind = _clean(span.attributes.get("error.type", ""))
        reason = _clean(span.reason.removeprefix(f"{kind}: "))
        facts.append(" ".join(["ERROR", *filter(None, (kind, reason))]))
    facts += _attributes(span, above.attributes if above is not None else {})
    facts += [_count(span.links, "link")] if span.links else []
    facts += [f"({mark})"] if mark else []
    return " · ".join(facts)


def _attributes(span: Span, above: Mapping[str, str]) -> list[str]:
    news = {key: value for key, value in span.attributes.items() if above.get(key) != value}
    keys: list[str] = [key for key in KEYS if key in news]
    keys += [key for key in sorted(news) if key.startswith(PREFIXES) and key not in keys]
    shown = []
    for key in keys[:ATTRIBUTES_SHOWN]:
        value = _path(span) if key == "url.full" else _number(span.attributes[key])
        shown.append(f"{_clean(key.removeprefix('otel_pipeline.'))}={_clean(value)}")
    return shown


def _number(value: str) -> str:
    """A measured number with as many digits as one reads; anything else as it is."""
    return f"{float(value):.4g}" if BROKEN.fullmatch(value) else value


def _place(span: Span) -> str:
    """The first segment of the URL's path: tells a poll of /history from a download."""
    path = _path(span)
    return "/" + path.split("/")[1] if "/" in path else ""


def _path(span: Span) -> str:
    try:
        return urlsplit(span.attributes.get("url.full", "")).path
    except ValueError:
        return ""


def _clean(text: str) -> str:
    """One short line without control characters: names and messages come from anybody, and go to a terminal."""
    visible = "".join(each if each.isprintable() else " " for each in text[: 4 * CHARACTERS_SHOWN])
    line = " ".join(visible.split())
    return line if len(line) <= CHARACTERS_SHOWN else line[: CHARACTERS_SHOWN - 1] + "…"


def _duration(nanoseconds: int) -> str:
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1000)):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{nanoseconds} ns"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _notes(reading: Reading) -> list[str]:
    notes = [
        (reading.repeated, "came twice and is drawn once", "span"),
        (reading.left_out, "left out: the file holds more than is read", "span"),
        (reading.lines_skipped, "skipped: no OTLP JSON", "line"),
    ]
    return [f"{_count(number, noun)} {text}" for number, text, noun in notes if number]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m otel_pipeline.demo.tree FILE")
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        print(render(file))


if __name__ == "__main__":
    main()
