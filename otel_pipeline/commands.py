"""The commands of `otel-pipeline`. Each reads its arguments, calls one function and prints what it says."""

from __future__ import annotations

import copy
import dataclasses
import http.client
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
from rich.console import Console
from rich.table import Table

from otel_pipeline import __version__
from otel_pipeline.components import KINDS, installed
from otel_pipeline.config import yaml_text
from otel_pipeline.config.dump import dumped
from otel_pipeline.config.loader import OutboxConfig, default_source, load
from otel_pipeline.config.sources import as_source
from otel_pipeline.endpoints import split_endpoint
from otel_pipeline.errors import ConfigError, OtelPipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.config.loader import GatewayConfig
    from otel_pipeline.failures.classify import Classifier

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}

PIPED_WIDTH: Final = 200
"""Columns of a table that goes to no terminal: nothing is cut."""
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


def _configured(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --config and --set."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting over the files, such as exporters.debug.verbosity=detailed. Repeatable.",
    )(command)
    return click.option(
        "--config",
        "sources",
        multiple=True,
        metavar="SOURCE",
        help="A path, or file:PATH, env:NAME, yaml:TEXT. Repeatable: later ones go over earlier ones. "
        "Default: a configuration for one machine.",
    )(command)


def _format(*choices: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kinds = click.Choice(choices)
    return click.option("--format", "layout", type=kinds, default=choices[0], show_default=True, help="How to print.")


_data_dir = click.option(
    "--data-dir",
    envvar="OTEL_PIPELINE_DATA_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    show_envvar=True,
    help="Where the outbox is. "
    "Default: $STATE_DIRECTORY, else $XDG_STATE_HOME/otel-pipeline, else ~/.local/state/otel-pipeline.",
)


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
@_configured
@_data_dir
@click.pass_context
def gateway(ctx: click.Context, sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None) -> None:
    """Run the gateway until SIGTERM or Ctrl-C. Also called: run."""
    from otel_pipeline.gateway import run  # noqa: PLC0415  the other commands start faster without

    config = _read(sources, overrides)
    logging.basicConfig(level=LOG_LEVELS[config.telemetry.logs.level], format=LOG_FORMAT, force=True)
    ctx.exit(run(config, data_dir or _default_data_dir()))


_run = copy.copy(gateway)
_run.hidden = True
command_line.add_command(_run, "run")


@command_line.command()
@_configured
def validate(sources: Sequence[str], overrides: Sequence[str]) -> None:
    """Check a configuration; prints every mistake with its path."""
    config = _loaded(sources, overrides)
    click.echo(f"The configuration is valid: {', '.join(config.pipelines)}.")


@command_line.command("print-config")
@_configured
@click.option("--mode", type=click.Choice(["redacted", "unredacted"]), default="redacted", show_default=True)
@_format("yaml", "json")
def print_config(sources: Sequence[str], overrides: Sequence[str], mode: str, layout: str) -> None:
    """Print the configuration as the gateway takes it: merged, expanded, with defaults, by default without secrets."""
    tree = dumped(_loaded(sources, overrides), reveal=mode == "unredacted")
    click.echo(yaml_text.dump(tree).rstrip("\n") if layout == "yaml" else _as_json(tree))


@command_line.command()
@_format("table", "json")
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
    _print_rows(rows, layout)
    _warn(registry.warnings)


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
@_configured
@_data_dir
@_format("table", "json")
def queue(sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None, layout: str) -> None:
    """Show what waits for each exporter, beside a running gateway."""
    outbox = _loaded(sources, overrides).outbox if sources or overrides else OutboxConfig()
    from otel_pipeline.outbox_state import inspect  # noqa: PLC0415  the other commands start faster without

    rows = inspect(outbox.path(data_dir or _default_data_dir()))
    _print_rows([dataclasses.asdict(row) for row in rows], layout)


@command_line.command()
@click.option("--jobs", type=click.IntRange(min=1), default=8, show_default=True, help="How many jobs to send.")
@click.option("--keep", is_flag=True, help="Leave the files of the demo.")
@click.option("--keep-running", is_flag=True, help="Leave everything running until Ctrl-C.")
@click.pass_context
def demo(ctx: click.Context, jobs: int, keep: bool, keep_running: bool) -> None:  # noqa: FBT001  click passes by name
    """Play a video platform on loopback and draw the traces of its jobs."""
    try:
        from otel_pipeline.demo.run import run  # noqa: PLC0415  needs packages that the gateway does not
    except ModuleNotFoundError as error:
        raise OtelPipelineError(f"the demo needs {error.name}, which is not installed") from error
    ctx.exit(run(jobs, Console(), keep_running=keep_running, keep_data=keep))


_rules = click.option(
    "--rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of rules of your own, as `rules_file` of the processor error_class names it.",
)


@command_line.group()
def errors() -> None:
    """Try the rules that name failures."""


@errors.command()
@_rules
@click.pass_context
def classify(ctx: click.Context, rules: Path | None) -> None:
    """Name the failures on stdin, one JSON object a line: exception_type, exception_message, stacktrace, ...

    Lines that cannot be read are told on stderr; then the exit code is 1.
    """
    from otel_pipeline.failures.lines import answers  # noqa: PLC0415  the other commands start faster without

    mistakes = 0
    for number, answer in answers(_classifier(rules), sys.stdin.buffer):
        if isinstance(answer, str):
            mistakes += 1
            click.echo(f"line {number}: {answer}", err=True)
        else:
            click.echo(json.dumps(answer))
    ctx.exit(1 if mistakes else 0)


@errors.command("test")
@_rules
@click.pass_context
def test_rules(ctx: click.Context, rules: Path | None) -> None:
    """Run the examples of all rules; exit code 1 if a rule does not decide its own."""
    classifier = _classifier(rules)
    wrong = classifier.wrong_examples()
    for one in wrong:
        told = one.example.model_dump(exclude_defaults=True)
        click.echo(f"{one.rule}: decided by {one.got_rule} as {one.got_class}: {json.dumps(told)}", err=True)
    examples = sum(len(rule.examples) for rule in classifier.pack.rules)
    click.echo(f"{len(classifier.pack.rules)} rules, {examples} examples, {len(wrong)} wrong")
    ctx.exit(1 if wrong else 0)


def _classifier(rules: Path | None) -> Classifier:
    from otel_pipeline.failures.classify import Classifier  # noqa: PLC0415  compiles the rules
    from otel_pipeline.failures.pack import read_file  # noqa: PLC0415  as above

    return Classifier(read_file(rules) if rules else None)


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


# -- what several commands need ----------------------------------------------------------------------------------------


def _loaded(sources: Sequence[str], overrides: Sequence[str]) -> GatewayConfig:
    config = _read(sources, overrides)
    _warn(config.warnings)
    return config


def _read(sources: Sequence[str], overrides: Sequence[str]) -> GatewayConfig:
    return load([*(sources or [default_source()]), *map(as_source, overrides)])


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _default_data_dir() -> Path:
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # systemd: a list, ours has one
    if state:
        return Path(state)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "otel-pipeline"


def _as_json(tree: object) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False)


def _print_rows(rows: Sequence[dict[str, Any]], layout: str) -> None:
    """A table with a column for each key; keys are the same in all rows."""
    if layout == "json":
        click.echo(_as_json(rows))
        return
    if not rows:
        click.echo("nothing")
        return
    table = Table(box=None, pad_edge=False)
    for key, value in rows[0].items():
        table.add_column(key.replace("_", " "), justify="right" if isinstance(value, int | float) else "left")
    for row in rows:
        table.add_row(*(", ".join(value) if isinstance(value, list) else str(value) for value in row.values()))
    wide = None if Console().is_terminal else PIPED_WIDTH
    Console(width=wide).print(table, markup=False)
