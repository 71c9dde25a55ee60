"""Fuzz target for atheris: scan, edit, splice, and let protobuf read the result.

    python tests/wire/fuzz_scan.py -runs=20000
    python tests/wire/fuzz_scan.py -max_total_time=20

The interpreted variant guides the fuzzer, the compiled one runs on the same input and must say the same. The first byte
of an input chooses the signal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Final

import atheris  # type: ignore[import-untyped]  # it has no types

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, not as a module

with atheris.instrument_imports(include=["otel_pipeline.wire"]):
    from otel_pipeline.wire.kernel import Kernel, variants
    from otel_pipeline.wire.scan import BatchReader, Part
    from otel_pipeline.wire.signal import Signal

    VARIANTS: Final = variants()  # the kernel's modules are imported here, to be instrumented too

from tests.wire.messages import KEYS, Writer, parsed
from tests.wire.oracle import accepts, check_columns, expected, numbered, rows_of
from tests.wire.test_wire_acceptance import DELIBERATE

KEY: Final = "gpu.name"
SIGNALS: Final = tuple(Signal)
SEEDS: Final = 60


def main() -> None:
    """Run atheris with the arguments of libFuzzer."""
    if len(VARIANTS) < 2:
        sys.exit("the compiled variant is absent: run setup.py build_ext --inplace")
    atheris.Setup(sys.argv, fuzz, custom_mutator=_mutate)
    atheris.Fuzz()


def fuzz(data: bytes) -> None:
    """One input: any exception is a finding."""
    if data:
        signal = SIGNALS[data[0] % len(SIGNALS)]
        interpreted, compiled = (_run(variant, signal, data[1:]) for variant in VARIANTS)
        assert interpreted == compiled


def _run(variant: Kernel, signal: Signal, request: bytes) -> tuple[str, bytes]:
    batch, (part,) = BatchReader(signal, KEYS, variant).read([request])
    if part.error is not None:
        _check_refusal(signal, request, part)
        return str(part.error), b""
    assert accepts(signal, request)
    check_columns(batch, expected(signal, parsed(signal, request)), KEYS)
    batch.set(KEY, "H100")
    batch.set_resource(KEY, 1)
    encoded = bytes(batch.encode())
    for group, _, row in rows_of(parsed(signal, encoded)):
        values = [pair.value.string_value for pair in numbered(row, signal.value.attributes_field) if pair.key == KEY]
        assert values == ["H100"]
        assert [pair.value.int_value for pair in group.resource.attributes if pair.key == KEY] == [1]
    return "", encoded


def _check_refusal(signal: Signal, request: bytes, part: Part) -> None:
    assert part.error is not None
    assert 0 <= part.error.offset <= len(request)
    assert part.error.reason in DELIBERATE or not accepts(signal, request), part.error


def _mutate(data: bytes, size_max: int, seed: int) -> bytes:
    """Now and then start from a real request, else let libFuzzer change bytes."""
    random = Random(seed)
    if random.randrange(SEEDS) == 0 or not data:
        place = random.randrange(len(SIGNALS))
        return (bytes([place]) + Writer(random, odd=True).request(SIGNALS[place]))[:size_max]
    mutated: bytes = atheris.Mutate(data, size_max)
    return mutated


if __name__ == "__main__":
    main()
