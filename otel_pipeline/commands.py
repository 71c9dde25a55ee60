"""The commands of `otel-pipeline`. Each reads its arguments, calls one function and prints what it says."""

from __future__ import annotations

import copy
import dataclasses
import http.client
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
from rich.console import Console

from otel_pipeline import __version__
from otel_pipeline.agent_command import agent
from otel_pipeline.command_options import (
    as_json,
    configured,
    data_dir_option,
    default_data_dir,
    layout_option,
    loaded_config,
    print_rows,
    read_config,
    run_gateway,
    warn,
)
from otel_pipeline.components import KINDS, installed
from otel_pipeline.config import yaml_text
from otel_pipeline.config.dump import dumped
from otel_pipeline.config.loader import OutboxConfig
from otel_pipeline.endpoints import split_endpoint
from otel_pipeline.error_commands import errors
from otel_pipeline.errors import ConfigError, OtelPipelineError
from otel_pipeline.gpu_commands import gpu
from otel_pipeline.ledger_commands import ledger, price
from otel_pipeline.ledger_report_commands import export, report
from otel_pipeline.ledger_report_commands import jobs as ledger_jobs
from otel_pipeline.ledger_store_commands import reprice, verify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEALTH_TIMEOUT_S: Final = 5.0
HEALTH_BODY_BYTES_MAX: Final = 64 * 1024
"""A probe's answer is a page at most; what is longer is not ours."""


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Our own errors become lines on stderr and exit code 1; a traceback is for what nobody foresaw."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            for mistake in error.mistakes:
                click.echo(mistake, err=True)
        except OtelPipelineError as error:
            click.echo(f"otel-pipeline: {error}", err=True)
        return ctx.exit(1)


@click.group(cls=_Group, invoke_without_command=True)
@click.version_option(__version__, prog_name="otel-pipeline")
@click.pass_context
def command_line(ctx: click.Context) -> None:
    """OpenTelemetry gateway for platforms that generate images and video on GPUs.

    Without a command it runs the gateway with the default configuration.
    """
    if ctx.invoked_subcommand is None:
        with gateway.make_context("gateway", [], parent=ctx) as inner:
            gateway.invoke(inner)


@command_line.command()
@configured
@data_dir_option
@click.pass_context
def gateway(ctx: click.Context, sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None) -> None:
    """Run the gateway until SIGTERM or Ctrl-C. Also called: run."""
    ctx.exit(run_gateway(read_config(sources, overrides), data_dir or default_data_dir()))


_run = copy.copy(gateway)
_run.hidden = True
command_line.add_command(_run, "run")
command_line.add_command(agent)
command_line.add_command(gpu)


@command_line.command()
@configured
def validate(sources: Sequence[str], overrides: Sequence[str]) -> None:
    """Check a configuration; prints every mistake with its path."""
    config = loaded_config(sources, overrides)
    click.echo(f"The configuration is valid: {', '.join(config.pipelines)}.")


@command_line.command("print-config")
@configured
@click.option("--mode", type=click.Choice(["redacted", "unredacted"]), default="redacted", show_default=True)
@layout_option("yaml", "json")
def print_config(sources: Sequence[str], overrides: Sequence[str], mode: str, layout: str) -> None:
    """Print the configuration as the gateway takes it: merged, expanded, with defaults, by default without secrets."""
    tree = dumped(loaded_config(sources, overrides), reveal=mode == "unredacted")
    click.echo(yaml_text.dump(tree).rstrip("\n") if layout == "yaml" else as_json(tree))


@command_line.command()
@layout_option("table", "json")
def components(layout: str) -> None:
    """List the components that a configuration may name."""
    registry = installed()
    rows = [
        {
            "kind": kind,
            "name": name,
            "aliases": list(row.aliases),
            "signals": list(row.signals),
            "stability": row.stability,
            "description": row.description,
        }
        for kind in KINDS
        for name, row in registry.rows[kind].items()
    ]
    print_rows(rows, layout)
    warn(registry.warnings)


@command_line.command()
@click.option(
    "--endpoint", default="127.0.0.1:13133", show_default=True, help="host:port of the health_check extension."
)
@click.option("--path", default="/", show_default=True, help="Which probe to ask, such as /livez.")
@click.pass_context
def healthcheck(ctx: click.Context, endpoint: str, path: str) -> None:
    """Ask a running gateway whether it is ready; exit code 0 or 1, and the reason."""
    try:
        host, port = split_endpoint(endpoint)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--endpoint") from error
    reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  nothing listens here
    connection = http.client.HTTPConnection(reachable, port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(HEALTH_BODY_BYTES_MAX).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        click.echo(f"{endpoint} does not answer: {error or type(error).__name__}", err=True)
        ctx.exit(1)
    finally:
        connection.close()
    ready = response.status == http.client.OK
    click.echo(f"{response.status} {response.reason}: {body}".removesuffix(": "), err=not ready)
    ctx.exit(0 if ready else 1)


@command_line.command()
@configured
@data_dir_option
@layout_option("table", "json")
def queue(sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None, layout: str) -> None:
    """Show what waits for each exporter, what is parked and what waits for a book, beside a running gateway."""
    outbox = loaded_config(sources, overrides).outbox if sources or overrides else OutboxConfig()
    from otel_pipeline.outbox_state import inspect  # noqa: PLC0415  the other commands start faster without

    rows = inspect(outbox.path(data_dir or default_data_dir()))
    print_rows([dataclasses.asdict(row) for row in rows], layout)


@command_line.command()
@click.option("--jobs", type=click.IntRange(min=1), default=8, show_default=True, help="How many jobs to send.")
@click.option("--keep", is_flag=True, help="Leave the files of the demo.")
@click.option("--keep-running", is_flag=True, help="Leave everything running until Ctrl-C.")
@click.pass_context
def demo(ctx: click.Context, jobs: int, keep: bool, keep_running: bool) -> None:  # noqa: FBT001  click passes by name
    """Play a video platform on loopback, draw the traces of its jobs and tell what they cost."""
    try:
        from otel_pipeline.demo.run import run  # noqa: PLC0415  needs packages that the gateway does not
    except ModuleNotFoundError as error:
        raise OtelPipelineError(f"the demo needs {error.name}, which is not installed") from error
    ctx.exit(run(jobs, Console(), keep_running=keep_running, keep_data=keep))


command_line.add_command(errors)
ledger.add_command(verify)
ledger.add_command(reprice)
ledger.add_command(report)
ledger.add_command(ledger_jobs)
ledger.add_command(export)
command_line.add_command(ledger)
command_line.add_command(price)


@command_line.command()
@click.option("--otlp", is_flag=True, help="The lines are OTLP JSON, as the file exporter writes it.")
@click.argument("source", type=click.File("rb"), default="-")
@click.pass_context
def redact(ctx: click.Context, source: BinaryIO, otlp: bool) -> None:  # noqa: FBT001  click passes by name
    """Remove secrets from JSON lines in SOURCE (default: stdin).

    {id, text} becomes {id, text, removed: [{kind, start, end}]}.

    A line that cannot be read becomes {line, error}; then the exit code is 1.
    """
    from otel_pipeline.secrets.lines import redacted  # noqa: PLC0415  the other commands start faster without

    all_good = True
    for line, good in redacted(source, otlp=otlp):
        click.echo(line)
        all_good &= good
    ctx.exit(0 if all_good else 1)
