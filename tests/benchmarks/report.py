"""From single runs to the table of medians, in Markdown and JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

import grpc

_REFERENCES = ("passthrough", "rotel")


@dataclass(frozen=True, slots=True)
class Run:
    """One peer under one load."""

    peer: str
    spans_per_request: int
    rate_spans_s: float
    cpu_s: float
    acked_spans: int
    delivered_spans: int
    spans_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    ack_max_ms: float
    behind_ms_max: float
    retries: int
    errors: dict[str, int]
    is_drained: bool
    drain_s: float
    rss_mb_before: float
    rss_mb: float
    peak_mb: float

    @property
    def cpu_us_per_span(self) -> float:
        return self.cpu_s * 1e6 / max(1, self.delivered_spans)


@dataclass(frozen=True, slots=True)
class Session:
    """What a figure must name to be believed: command, machine, commit, variant."""

    date: str
    command: str
    options: dict[str, Any]
    commit: str
    variant: str
    notes: dict[str, str]
    cpu: str
    cores: int
    load_average: float
    python: str
    grpcio: str

    @classmethod
    def now(cls, *, command: str, options: dict[str, Any], variant: str, notes: dict[str, str]) -> Self:
        return cls(
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            command=command,
            options=options,
            commit=_commit(),
            variant=variant,
            notes=notes,
            cpu=_cpu_model(),
            cores=os.cpu_count() or 0,
            load_average=round(os.getloadavg()[0], 2),
            python=platform.python_version(),
            grpcio=grpc.__version__,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of one peer under one load; ratios are None where the reference did not run."""

    peer: str
    spans_per_request: int
    rate_spans_s: float
    runs: int
    cpu_us_per_span: float
    cpu_us_per_span_min: float
    cpu_us_per_span_max: float
    cpu_us_per_request: float
    ratios: dict[str, float | None]
    spans_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    behind_ms_max: float
    rss_mb_before: float
    rss_mb: float
    peak_mb: float
    retries: int
    missing_spans: int


def rows(runs: Iterable[Run]) -> list[Row]:
    """One row for each load and peer, in the order in which they first ran."""
    groups: dict[tuple[float, int, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.rate_spans_s, run.spans_per_request, run.peer), []).append(run)
    costs = {key: median(run.cpu_us_per_span for run in group) for key, group in groups.items()}
    peers = list(dict.fromkeys(peer for _, _, peer in groups))
    loads = dict.fromkeys((rate, size) for rate, size, _ in groups)
    return [
        _row(groups[rate, size, peer], {name: costs.get((rate, size, name)) for name in _REFERENCES})
        for rate, size in loads
        for peer in peers
        if (rate, size, peer) in groups
    ]


def write(directory: Path, session: Session, runs: list[Run]) -> tuple[Path, Path]:
    """The two files of a session; returns their paths, Markdown first."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = "gateways-" + session.date[:16].replace(" ", "-").replace(":", "") + "-" + session.commit
    table = rows(runs)
    markdown, data = directory / f"{stem}.md", directory / f"{stem}.json"
    markdown.write_text(render(session, table))
    content = {
        "session": asdict(session),
        "rows": [asdict(row) for row in table],
        "runs": [asdict(run) for run in runs],
    }
    data.write_text(json.dumps(content, indent=1) + "\n")
    return markdown, data


def line(run: Run) -> str:
    """One run in one line, for whoever watches."""
    notes = "" if run.is_drained else f", {run.acked_spans - run.delivered_spans} spans never arrived"
    return (
        f"{run.peer:20} {run.spans_per_request:4} spans/request: {run.cpu_us_per_span:7.2f} us/span"
        f" {run.spans_s:9.0f} spans/s, ack p50 {run.ack_p50_ms:.1f} p99 {run.ack_p99_ms:.1f} ms,"
        f" {run.rss_mb:.0f} MB, {run.retries} retries{notes}"
    )


def render(session: Session, table: list[Row]) -> str:
    lines = [
        "# Gateways side by side",
        "",
        f"- command: `{session.command}`",
        f"- date: {session.date}, commit {session.commit}, otel_pipeline {session.variant}",
        f"- machine: {session.cpu}, {session.cores} cores, load average before the start {session.load_average}",
        f"- Python {session.python}, grpcio {session.grpcio}",
        "",
        "CPU is user + system time of the gateway process, until the sink held every acknowledged span.",
        "Load generator and sink share the machine, so throughput is no property of the gateway alone: compare CPU.",
        "",
        *(f"- {name}: {note}" for name, note in session.notes.items()),
    ]
    for rate in dict.fromkeys(row.rate_spans_s for row in table):
        lines += ["", f"## {rate:,.0f} spans/s" if rate else "## As fast as it goes", "", *_HEAD]
        lines += [_markdown(row) for row in table if row.rate_spans_s == rate]
    return "\n".join(lines) + "\n"


_COLUMNS = (
    "spans/request",
    "gateway",
    "us CPU/span (min-max)",
    "us CPU/request",
    *(f"x {name}" for name in _REFERENCES),
    "spans/s",
    "ack p50 ms",
    "ack p99 ms",
    "late ms",
    "RSS MB before -> after (peak)",
    "retries",
    "lost",
)
_HEAD = ("| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS))


def _markdown(row: Row) -> str:
    cells = (
        str(row.spans_per_request),
        row.peer,
        f"{row.cpu_us_per_span:.2f} ({row.cpu_us_per_span_min:.2f}-{row.cpu_us_per_span_max:.2f})",
        f"{row.cpu_us_per_request:.0f}",
        *("-" if row.ratios[name] is None else f"{row.ratios[name]:.2f}" for name in _REFERENCES),
        f"{row.spans_s:,.0f}",
        f"{row.ack_p50_ms:.1f}",
        f"{row.ack_p99_ms:.1f}",
        f"{row.behind_ms_max:.0f}",
        f"{row.rss_mb_before:.0f} -> {row.rss_mb:.0f} ({row.peak_mb:.0f})",
        str(row.retries),
        str(row.missing_spans),
    )
    return "| " + " | ".join(cells) + " |"


def _row(group: list[Run], references: dict[str, float | None]) -> Row:
    costs = [run.cpu_us_per_span for run in group]
    cost, size = median(costs), group[0].spans_per_request
    return Row(
        peer=group[0].peer,
        spans_per_request=size,
        rate_spans_s=group[0].rate_spans_s,
        runs=len(group),
        cpu_us_per_span=cost,
        cpu_us_per_span_min=min(costs),
        cpu_us_per_span_max=max(costs),
        cpu_us_per_request=cost * size,
        ratios={name: cost / value if value else None for name, value in references.items()},
        spans_s=median(run.spans_s for run in group),
        ack_p50_ms=median(run.ack_p50_ms for run in group),
        ack_p99_ms=median(run.ack_p99_ms for run in group),
        behind_ms_max=max(run.behind_ms_max for run in group),
        rss_mb_before=median(run.rss_mb_before for run in group),
        rss_mb=median(run.rss_mb for run in group),
        peak_mb=max(run.peak_mb for run in group),
        retries=sum(run.retries for run in group),
        missing_spans=sum(max(0, run.acked_spans - run.delivered_spans) for run in group),
    )


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "uncommitted"


def _cpu_model() -> str:
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return platform.machine()
