"""The command `agent`: a gateway with another default configuration, for hosts with GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from otel_pipeline.command_options import configured, data_dir_option, default_data_dir, read_config, run_gateway
from otel_pipeline.config.loader import default_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONFIGURATION: Final = "agent.yaml"
DATA_DIRECTORY: Final = "otel-pipeline-agent"
"""Beside that of a gateway: both may run on one machine."""


@click.command()
@configured
@data_dir_option
@click.pass_context
def agent(ctx: click.Context, sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None) -> None:
    """Run the agent of a GPU host until SIGTERM or Ctrl-C.

    It is a gateway that by default takes OTLP on this machine, samples the GPUs, joins both and passes all on to
    $OTEL_PIPELINE_GATEWAY. Its data is in otel-pipeline-agent beside the gateway's.
    """
    config = read_config(sources or [default_source(CONFIGURATION)], overrides)
    ctx.exit(run_gateway(config, data_dir or default_data_dir(DATA_DIRECTORY)))
