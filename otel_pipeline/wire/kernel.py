"""Chooses the variant of the compiled leaf: the extension if it was built, else the same source interpreted."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final

LEAVES: Final = ("scan", "codes", "splice", "sieve", "likeness", "lineage")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One variant of the leaf."""

    name: str
    scanner: Any  # untyped: the class of the extension or of its source
    encode: Any
    splicer: Any
    sieve: Any
    known: Any
    likeness: Any
    wholes: Any
    lineage: Any


def _load(name: str) -> Kernel:
    scan, codes, splice, sieve, likeness, lineage = (
        importlib.import_module(f"otel_pipeline.wire._{leaf}_{name}") for leaf in LEAVES
    )
    return Kernel(
        "compiled" if name == "c" else "interpreted",
        scan.Scanner,
        codes.encode,
        splice.Splicer,
        sieve.Sieve,
        sieve.Known,
        likeness.Likeness,
        likeness.wholes,
        lineage.Lineage,
    )


def variants() -> list[Kernel]:
    """Every variant that is there: the interpreted one, and the compiled one if it was built."""
    return [_load("py"), _COMPILED] if _COMPILED else [_load("py")]


def kernel() -> Kernel:
    """The variant that this process uses."""
    return _COMPILED or _load("py")


def _compiled() -> Kernel | None:
    try:
        return _load("c")
    except ModuleNotFoundError:
        return None


_COMPILED: Final = _compiled()
COMPILED: Final = _COMPILED is not None
"""Whether the extension runs. A gateway says so loudly if not."""
