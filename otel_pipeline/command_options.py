"""What several commands have in common: options, reading the configuration, printing."""

from __future__ import annotations

import json
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table

from otel_pipeline.config.loader import default_source, load
from otel_pipeline.config.sources import as_source
from otel_pipeline.store.config import StoreConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_pipeline.config.loader import GatewayConfig
    from otel_pipeline.store.database import Database

PIPED_WIDTH: Final = 200
"""Columns of a table that goes to no terminal: nothing is cut."""
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def configured(command: Callable[..., None]) -> Callable[..., None]:
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


def layout_option(*choices: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kinds = click.Choice(choices)
    return click.option("--format", "layout", type=kinds, default=choices[0], show_default=True, help="How to print.")


data_dir_option = click.option(
    "--data-dir",
    envvar="OTEL_PIPELINE_DATA_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    show_envvar=True,
    help="Where the outbox and the store are. "
    "Default: $STATE_DIRECTORY, else $XDG_STATE_HOME/otel-pipeline, else ~/.local/state/otel-pipeline.",
)


def loaded_config(sources: Sequence[str], overrides: Sequence[str]) -> GatewayConfig:
    config = read_config(sources, overrides)
    warn(config.warnings)
    return config


def read_config(sources: Sequence[str], overrides: Sequence[str]) -> GatewayConfig:
    return load([*(sources or [default_source()]), *map(as_source, overrides)])


def warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def default_data_dir(name: str = "otel-pipeline") -> Path:
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # systemd: a list, ours has one
    if state:
        return Path(state)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / name


@contextmanager
def store_beside(
    sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None
) -> Iterator[tuple[Database, StoreConfig, GatewayConfig | None]]:
    """The store of the gateway with this configuration, which may be running; None: no configuration is named."""
    from otel_pipeline.store.database import open_database  # noqa: PLC0415  the other commands start faster without

    config = loaded_config(sources, overrides) if sources or overrides else None
    settings = config.store if config else StoreConfig()
    database = open_database(settings.place(data_dir or default_data_dir()), owner=False)
    try:
        yield database, settings, config
    finally:
        database.close()


def run_gateway(config: GatewayConfig, data_dir: Path) -> int:
    """Run until SIGTERM or Ctrl-C; the exit code."""
    from otel_pipeline.gateway import run  # noqa: PLC0415  the other commands start faster without

    logging.basicConfig(level=LOG_LEVELS[config.telemetry.logs.level], format=LOG_FORMAT, force=True)
    return run(config, data_dir)


def as_json(tree: object) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False)


def print_rows(rows: Sequence[dict[str, Any]], layout: str) -> None:
    """A table with a column for each key; keys are the same in all rows."""
    if layout == "json":
        click.echo(as_json(rows))
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
