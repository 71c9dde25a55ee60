"""The worked examples of facts/cost.md as cases of `ledger allocate`: every amount to the last of nine decimals."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest

from otel_pipeline.ledger.allocation import allocate
from otel_pipeline.ledger.case import answer
from otel_pipeline.ledger.claims import Claim, claim_table
from otel_pipeline.ledger.corrections import reallocated
from otel_pipeline.ledger.energy import consumed, energy_cost, power
from otel_pipeline.ledger.money import NANO, formatted
from otel_pipeline.ledger.tape import Billed, Tape
from otel_pipeline.ledger.views import IdlePolicy, StartupPolicy, with_idle, with_startup

MINUTE = [0, 60]


def allocation(*claims: dict[str, Any], gpu: dict[str, Any] | None = None, **case: Any) -> dict[str, Any]:
    one = {"rate": [[0, "0.001"]], "billed": [case.get("period", MINUTE)], "ready": 0, **(gpu or {})}
    gpus = case.pop("gpus", {"g0": one})
    found, warnings = answer(json.dumps({"period": MINUTE, "gpus": gpus, "claims": claims, **case}))
    assert not warnings
    return found


def claim(span: str, start: float, end: float, parent: str | None = None, **rest: Any) -> dict[str, Any]:
    return {"id": span, "gpu": "g0", "start": start, "end": end, "parent": parent, **rest}


A, B = claim("A", 0, 30), claim("B", 20, 50)
V2 = {"A": "0.025000000", "B": "0.025000000"}


def test_v1_alone() -> None:
    found = allocation(claim("A", 10, 40))
    assert found["spans"] == {"A": "0.030000000"}
    assert found["buckets"]["g0"]["idle"] == "0.030000000"
    assert found["total"] == {"g0": "0.060000000"}


def test_v2_overlap() -> None:
    found = allocation(A, B)
    assert (found["spans"], found["buckets"]["g0"]["idle"]) == (V2, "0.010000000")


def test_v3_weighted() -> None:
    found = allocation({**A, "weight": 75}, {**B, "weight": 25}, mode="weighted")
    assert found["spans"] == {"A": "0.027500000", "B": "0.022500000"}
    assert found["buckets"]["g0"]["idle"] == "0.010000000"


@pytest.mark.parametrize(("one", "other"), [(0.75, 0.25), ("3", "1"), (0.0003, 0.0001)])
def test_v3_only_the_ratio_of_weights_counts(one: float | str, other: float | str) -> None:
    found = allocation({**A, "weight": one}, {**B, "weight": other}, mode="weighted")
    assert found["spans"] == {"A": "0.027500000", "B": "0.022500000"}


def test_v4_nested() -> None:
    found = allocation(
        claim("J", 0, 50), claim("load", 5, 15, "J"), claim("sample", 15, 45, "J"), claim("vae", 40, 45, "sample")
    )
    assert found["spans"] == {"J": "0.010000000", "load": "0.010000000", "sample": "0.025000000", "vae": "0.005000000"}
    assert found["inclusive"] == {
        "J": "0.050000000",
        "load": "0.010000000",
        "sample": "0.030000000",
        "vae": "0.005000000",
    }
    assert found["buckets"]["g0"]["idle"] == "0.010000000"


def test_v5_retry() -> None:
    found = allocation(
        claim("att1", 0, 12, attempt=1, outcome="error", job="J"), claim("att2", 20, 50, attempt=2, job="J")
    )
    assert found["spans"] == {"att1": "0.012000000", "att2": "0.030000000"}
    assert found["buckets"]["g0"]["idle"] == "0.018000000"
    assert (found["waste"], found["waste_spans"]) == ("0.012000000", {"att1": "0.012000000"})
    assert found["jobs"] == {"J": {"cost": "0.042000000", "waste": "0.012000000"}}
    assert found["waste_ratio"] == "0.285714286"


def test_v6_serverless() -> None:
    gpu = {"rate": [[0, "0.00031"]], "billed": [[0, 56.5]], "ready": 14.2, "round_up": 1}
    found = allocation(claim("job", 14.2, 51.5), gpu=gpu)
    assert found["spans"] == {"job": "0.011563000"}
    assert found["buckets"]["g0"] == {
        "idle": "0.001550000",
        "startup": "0.004402000",
        "tail": "0.000000000",
        "rounding": "0.000155000",
        "unobserved": "0.000000000",
    }
    assert found["total"] == {"g0": "0.017670000"}


def test_v7_rounding() -> None:
    tape = Tape("g0", [(0, Fraction(1, 3600))], [Billed(0, NANO)])
    table = claim_table(Claim(span, "g0", 0, NANO) for span in "ABC")
    found = allocate(tape, table, [0, NANO])
    assert (found.totals, found.nano.tolist()) == ([277_778], [92_593, 92_593, 92_592])


def test_v8_the_price_changes() -> None:
    found = allocation(claim("A", 0, 60), gpu={"rate": [[0, "0.001"], [30, "0.0005"]]})
    assert (found["spans"], found["total"]) == ({"A": "0.045000000"}, {"g0": "0.045000000"})


def test_v9_two_gpus() -> None:
    gpu = {"rate": [[0, "0.001"]], "billed": [MINUTE]}
    both = [claim("A", 0, 10), {**claim("A", 0, 10), "gpu": "g1"}]
    found = allocation(*both, gpus={"g0": gpu, "g1": gpu})
    assert found["spans"] == found["inclusive"] == {"A": "0.020000000"}
    assert [one["idle"] for one in found["buckets"].values()] == ["0.050000000"] * 2
    assert found == allocation({**claim("A", 0, 10), "gpu": ["g0", "g1"]}, gpus={"g0": gpu, "g1": gpu})


def test_v11_idle_is_spread_by_use() -> None:
    view = with_idle({"A": 25_000_000, "B": 25_000_000}, 10_000_000, IdlePolicy.WEIGHTED)
    assert (view.costs, view.left) == ({"A": 30_000_000, "B": 30_000_000}, 0)


def test_v12_a_late_span_is_booked_as_corrections_that_add_up_to_nothing() -> None:
    tape = Tape("g0", [(0, Fraction(1, 1000))], [Billed(0, 60 * NANO)])
    early, late = Claim("A", "g0", 0, 30 * NANO), Claim("B", "g0", 20 * NANO, 50 * NANO)
    before = allocate(tape, claim_table([early]), [0, 60 * NANO])
    assert (before.nano.tolist(), before.by_bucket()["idle"]) == ([30_000_000], 30_000_000)
    after, booked = reallocated(before, tape, [early], [late])
    assert {one.span or one.bucket: formatted(one.nano) for one in booked} == {
        "A": "-0.005000000",
        "B": "0.025000000",
        "idle": "-0.020000000",
    }
    assert after.nano.tolist() == [25_000_000, 25_000_000]


COUNTER = [(0, 0), (10, 1_000_000), (20, 4_500_000), (30, 8_000_000), (40, 9_000_000)]


def test_v13_energy_and_its_cost() -> None:
    used = consumed([(at * NANO, mj) for at, mj in COUNTER], 12 * NANO, 28 * NANO)
    assert (used.mj, used.coverage) == (5_600_000, 1)
    assert used.above(Fraction(100)) == 4_000_000
    assert round(energy_cost(used.mj, Fraction("0.15"))) == 233_333


def test_v13_the_sweep_splits_energy_as_it_splits_money() -> None:
    steps = [(at, rate) for at, _, rate in power([(at * NANO, mj) for at, mj in COUNTER])]
    tape = Tape("g0", steps, [Billed(0, 40 * NANO)])
    found = allocate(tape, claim_table([Claim("A", "g0", 12 * NANO, 28 * NANO)]), [0, 40 * NANO])
    assert (found.nano.tolist(), found.totals) == ([5_600_000], [9_000_000])


def test_v14_a_counter_that_falls_hides_energy_and_never_makes_it_negative() -> None:
    samples = [(0, 9_000_000), (10 * NANO, 9_500_000), (20 * NANO, 200_000)]
    used = consumed(samples, 5 * NANO, 15 * NANO)
    assert (used.mj, used.coverage) == (250_000, Fraction(1, 2))


def test_v22_a_counter_without_a_value_is_left_out() -> None:
    samples = [(0, 0), (5 * NANO, 9_223_372_036_854_775_794), (10 * NANO, 1_000_000)]
    assert consumed(samples, 0, 10 * NANO).mj == 1_000_000


def test_the_cold_start_goes_to_the_job_that_caused_it_or_to_all() -> None:
    costs = {"first": 10, "second": 30}
    assert with_startup(costs, 8, StartupPolicy.CHARGE_TRIGGER, "first").costs == {"first": 18, "second": 30}
    assert with_startup(costs, 8, StartupPolicy.AMORTISE).costs == {"first": 12, "second": 36}
    assert with_startup(costs, 8, StartupPolicy.SEPARATE).left == 8


@pytest.mark.parametrize("policy", list(IdlePolicy))
def test_idle_stays_when_there_is_nobody_to_bear_it(policy: IdlePolicy) -> None:
    assert with_idle({}, 7, policy).left == 7


def test_idle_policies_move_amounts_and_lose_none() -> None:
    costs = {"A": 1, "B": 2}
    assert with_idle(costs, 10, IdlePolicy.EVEN).costs == {"A": 6, "B": 7}
    assert with_idle(costs, 10, IdlePolicy.WEIGHTED).costs == {"A": 4, "B": 9}
    assert with_idle(costs, 10, IdlePolicy.TENANT_RESERVED, "C").costs == {"A": 1, "B": 2, "C": 10}
    assert with_idle(costs, 10, IdlePolicy.SEPARATE).left == 10
