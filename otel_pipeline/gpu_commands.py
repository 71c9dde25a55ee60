"""The command `gpu`: what is known of GPUs at the moment, and why spans have no GPU data."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from otel_pipeline.agent_command import DATA_DIRECTORY
from otel_pipeline.command_options import as_json, data_dir_option, default_data_dir, layout_option, print_rows
from otel_pipeline.errors import OtelPipelineError
from otel_pipeline.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline.gpu.overview import State

WINDOW_S: Final = 120.0
"""Samples of so long are looked at: DCGM exporters measure every 30 s."""
WATCH_S: Final = 1.0
WATCH_S_MAX: Final = 3_600.0
TRACE_ID_DIGITS: Final = 32
GIB: Final = 2**30
LOCAL_S: Final = 0.25
"""Between the two looks of --local: drivers that keep samples by themselves have new ones by then."""

WHY: Final = {
    "ambiguous": (
        "its host has several GPUs, and neither the span nor its process tells which it used",
        "give each worker its own CUDA_VISIBLE_DEVICES, or set hw.id on spans or otel_pipeline.gpu.ids on the resource",
    ),
    "none": (
        "its process may use no GPU: CUDA_VISIBLE_DEVICES or NVIDIA_VISIBLE_DEVICES says so",
        "nothing, if that is meant",
    ),
    "gap": (
        "samples are too far apart within the span",
        "look whether the agent was away meanwhile, or lower the interval of its samples",
    ),
    "reset": ("the energy counter began anew: the driver was loaded again meanwhile", "nothing"),
    "before": (
        "it begins before the first sample that is kept of the GPU",
        "start the agent with the host; samples are kept for a day, and 15 minutes over a restart of the gateway",
    ),
    "late": (
        "it ends after the last sample that had come when it went on",
        "see whether samples still come (otel-pipeline gpu), and raise max_wait of gpu_stats above their interval",
    ),
    "no_samples": (
        "the GPU is known, but there are not two samples of it",
        "see whether samples come: otel-pipeline gpu",
    ),
    "unknown_gpu": (
        "nobody sends samples of the GPU that it names",
        "compare the ids with those of otel-pipeline gpu; instances of a split GPU have their own",
    ),
    "no_gpu": ("it has no GPU", "nothing, if that is meant"),
    "interval": ("it ends before it begins", "look at the clock of its host, and at what made the span"),
}
"""Reason -> what it means, and what to do about it."""
NOTHING_KNOWN: Final = """\
nothing is known of the trace {trace_id}. One of these holds:
- its spans have all GPU data, or carried it when they came from an agent
- they still wait for samples (max_wait of gpu_stats)
- they are not among those that gpu_stats looks at (its setting `spans`)
- their host.id and host.name are not those of the samples. Samples come from: {hosts}
- they came before the last 100,000 spans without all GPU data"""


def _trace_id(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        if len(value) == TRACE_ID_DIGITS and bytes.fromhex(value):
            return value.lower()
    except ValueError:
        pass
    raise click.BadParameter(f"{value} is no trace id: {TRACE_ID_DIGITS} hexadecimal digits")


def _watch_s(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float:
    try:
        watch_s = float(str(parse_duration(value))) if value is not None else 0.0
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if not 0 <= watch_s <= WATCH_S_MAX:
        raise click.BadParameter("allowed: up to 1h")
    return watch_s


@click.command()
@data_dir_option
@click.option("--explain", "trace_id", callback=_trace_id, metavar="TRACE_ID", help="Why spans lack GPU data.")
@click.option("--local", is_flag=True, help="Ask the driver of this machine, not the gateway.")
@click.option("--watch", "watch_s", callback=_watch_s, metavar="DURATION", help="Show it each second for so long.")
@layout_option("table", "json")
@click.pass_context
def gpu(  # noqa: PLR0917  click passes by name
    ctx: click.Context,
    data_dir: Path | None,
    trace_id: str | None,
    local: bool,  # noqa: FBT001
    watch_s: float,
    layout: str,
) -> None:
    """Show the latest samples of all GPUs, beside a running gateway or agent."""
    directories = [data_dir] if data_dir else [default_data_dir(), default_data_dir(DATA_DIRECTORY)]
    if trace_id is not None:
        ctx.exit(_explain(directories, trace_id, layout))
    until_s = time.monotonic() + watch_s
    while True:
        found = _local() if local else _kept(directories)
        if watch_s and layout == "table":
            click.clear()
        print_rows([asdict(one) if layout == "json" else _line(one) for one in found], layout)
        if time.monotonic() >= until_s:
            return
        time.sleep(WATCH_S)


def _kept(directories: Sequence[Path]) -> list[State]:
    """From the journals of gateway and agent."""
    import lmdb  # noqa: PLC0415  the other commands start faster without

    from otel_pipeline.gpu import journal  # noqa: PLC0415  as above
    from otel_pipeline.gpu.overview import states  # noqa: PLC0415  as above

    records = []
    for directory in _journals(directories):
        try:
            records += journal.latest(directory, WINDOW_S)
        except lmdb.Error as error:
            raise OtelPipelineError(f"{directory}: cannot be read: {error}") from error
    return states(sorted(records, key=lambda one: one[0]), time.time_ns())


def _journals(directories: Sequence[Path]) -> list[Path]:
    from otel_pipeline.gpu import journal  # noqa: PLC0415  as above

    found = [file for directory in dict.fromkeys(directories) for file in journal.files(directory)]
    if not found:
        places = " and ".join(str(directory) for directory in dict.fromkeys(directories))
        raise OtelPipelineError(
            f"no GPU samples below {places}: no gateway or agent with gpu_stats keeps its data there (--data-dir)"
        )
    return found


def _local() -> list[State]:
    """One reading of this machine's driver."""
    from otel_pipeline.gpu.hardware import host_attributes, to_request  # noqa: PLC0415  as above
    from otel_pipeline.gpu.ingest import read  # noqa: PLC0415  as above
    from otel_pipeline.gpu.overview import states  # noqa: PLC0415  as above
    from otel_pipeline.nvml.sampler import Sampler  # noqa: PLC0415  as above
    from otel_pipeline.wire.scan import BatchReader  # noqa: PLC0415  as above
    from otel_pipeline.wire.signal import Signal  # noqa: PLC0415  as above

    sampler = Sampler()
    sampler.poll()
    time.sleep(LOCAL_S)
    reading = sampler.finish()
    for failure in reading.failures:
        what = f"GPU {failure.device}" if failure.device else "the GPUs of this machine"
        message = f"{what} cannot be read: {failure.code}: {failure.reason}"
        if not failure.device:
            raise OtelPipelineError(message)
        click.echo(message, err=True)
    batch, _ = BatchReader(Signal.METRICS).read([to_request(reading, host_attributes())])
    return states([(reading.taken_unix_nano, read(batch))], reading.taken_unix_nano)


def _line(state: State) -> dict[str, Any]:
    """As a row of the table."""
    used, limit = (
        None if size is None else f"{size / GIB:.1f}" for size in (state.memory_used_bytes, state.memory_limit_bytes)
    )
    return {
        "host": state.host,
        "index": "" if state.index is None else state.index,
        "gpu": state.gpu,
        "name": state.name,
        "utilization": _shown(state.utilization, "{:.0%}"),
        "memory": "" if used is None else f"{used} GiB" if limit is None else f"{used} of {limit} GiB",
        "power": _shown(state.power_w, "{:.0f} W"),
        "energy": _shown(None if state.energy_j is None else state.energy_j / 1000, "{:,.1f} kJ"),
        "age": f"{state.age_s:.1f} s",
    }


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


# -- why ---------------------------------------------------------------------------------------------------------------


def _explain(directories: Sequence[Path], trace_id: str, layout: str) -> int:
    """Prints it; the exit code: 1 if nothing is known."""
    import lmdb  # noqa: PLC0415  the other commands start faster without

    from otel_pipeline.gpu import journal  # noqa: PLC0415  as above

    told = []
    for directory in _journals(directories):
        try:
            told += journal.explained(directory, bytes.fromhex(trace_id))
        except lmdb.Error as error:
            raise OtelPipelineError(f"{directory}: cannot be read: {error}") from error
    rows = [_told(one) for one in sorted(told, key=lambda one: int(one["at_ms"]))]
    if layout == "json":
        click.echo(as_json(rows))
    elif rows:
        click.echo("\n".join(map(_text, rows)))
    else:
        hosts = dict.fromkeys(state.host for state in _kept(directories))
        click.echo(NOTHING_KNOWN.format(trace_id=trace_id, hosts=", ".join(hosts) or "nobody"), err=True)
    return 0 if rows else 1


def _told(told: dict[str, Any]) -> dict[str, Any]:
    why, remedy = WHY.get(told["reason"], (told["reason"], "nothing"))
    return {**told, "why": why, "what_to_do": remedy}


def _text(row: dict[str, Any]) -> str:
    gpus = ", ".join(row["gpus"]) or "none known"
    return (
        f"span {row['span_id']} {row['name']}: {row['status']}\n"
        f"  why: {row['why']}\n"
        f"  what to do: {row['what_to_do']}\n"
        f"  host: {', '.join(row['hosts'])}; GPUs: {gpus}"
    )
