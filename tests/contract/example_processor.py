"""A processor by somebody else: names the team that owns the model of a span."""

from __future__ import annotations

import numpy as np

from otel_pipeline.contracts import Context, Settings
from otel_pipeline.wire.batch import ABSENT, Batch, Constants
from otel_pipeline.wire.signal import Signal


class TeamProcessor:
    """Sets the attribute `team` of each span whose model is in the table and that has none yet."""

    class Config(Settings):
        """Settings of `team`."""

        teams: dict[str, str]
        """The team by model."""

    def __init__(self, config: Config, context: Context) -> None:  # noqa: ARG002 - every component gets a context
        self._teams = config.teams

    def attributes(self, signal: Signal) -> frozenset[str]:
        """The columns to prepare; none for a signal that it ignores."""
        return frozenset({"gen_ai.request.model", "team"}) if signal is Signal.TRACES else frozenset()

    def process(self, batch: Batch) -> None:
        """Python looks up each distinct model once, numpy does the rows."""
        if batch.signal is not Signal.TRACES:
            return
        models = batch.strings("gen_ai.request.model")
        teams = [self._teams.get(model, "") for model in models.values]
        known = [code if team else ABSENT for code, team in enumerate(teams)]
        codes = np.array([*known, ABSENT], np.int32)[models.codes]  # rows without a model have the code -1
        batch.set("team", Constants(codes, teams), how="insert")
