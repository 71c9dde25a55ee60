"""What a case may say and what it gets wrong; states of a GPU, fixed shares, kin and waste."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from otel_pipeline.errors import ConfigError
from otel_pipeline.ledger import case as case_module
from otel_pipeline.ledger.allocation import Mode, allocate
from otel_pipeline.ledger.case import answer
from otel_pipeline.ledger.claims import Claim, claim_table
from otel_pipeline.ledger.tape import Billed, Tape
from otel_pipeline.ledger_commands import ledger
from tests.unit.ledger.test_vectors import A, B, allocation, claim


def idle(found: dict[str, Any]) -> dict[str, str]:
    return {name: amount for name, amount in found["buckets"]["g0"].items() if amount != "0.000000000"}


def test_time_without_a_claim_goes_to_the_state_of_the_gpu() -> None:
    gpu = {"ready": 5, "draining": 40, "unobserved": [[0, 10], [20, 25]], "billed": [[0, 59.5]], "round_up": 1}
    found = allocation(claim("A", 12, 15), gpu=gpu)
    assert idle(found) == {
        "startup": "0.005000000",
        "unobserved": "0.010000000",  # 5 to 10 and 20 to 25
        "idle": "0.022000000",
        "tail": "0.019500000",
        "rounding": "0.000500000",
    }


def test_a_claim_costs_also_before_the_worker_said_ready() -> None:
    assert allocation(claim("load", 1, 4), gpu={"ready": 5})["spans"] == {"load": "0.003000000"}


def test_a_claim_outside_the_paid_time_costs_nothing() -> None:
    found = allocation(claim("A", 50, 60), gpu={"billed": [[0, 50]]})
    assert (found["spans"], found["total"]) == ({"A": "0.000000000"}, {"g0": "0.050000000"})


def test_each_billed_time_may_have_its_own_start() -> None:
    gpu = {"billed": [[0, 20], [30, 60]], "ready": [5, 40]}
    assert idle(allocation(gpu=gpu)) == {"startup": "0.015000000", "idle": "0.035000000"}


def test_fixed_shares_leave_the_rest_idle() -> None:
    found = allocation({**A, "share": "2/7"}, {**B, "share": "1/7"}, gpu={"rate": [[0, "0.007"]]}, mode="fixed")
    assert found["spans"] == {"A": "0.060000000", "B": "0.030000000"}
    assert idle(found) == {"idle": "0.330000000"}


def test_fixed_shares_that_are_too_many_shrink_to_the_whole() -> None:
    found = allocation({**A, "share": 0.75}, {**B, "share": 0.75, "start": 0, "end": 30}, mode="fixed")
    assert found["spans"] == {"A": "0.015000000", "B": "0.015000000"}


def test_a_weight_may_change_while_the_span_runs() -> None:
    found = allocation(
        {**claim("A", 0, 60), "weight": [[0, 1], [30, 3]]}, {**claim("B", 0, 60), "weight": 1}, mode="weighted"
    )
    assert found["spans"] == {"A": "0.037500000", "B": "0.022500000"}


def test_weights_that_are_all_zero_split_evenly() -> None:
    found = allocation({**A, "weight": 0}, {**B, "weight": 0}, mode="weighted")
    assert found["spans"] == {"A": "0.025000000", "B": "0.025000000"}


def test_siblings_both_have_their_time_and_a_child_outlives_its_parent() -> None:
    found = allocation(claim("P", 0, 20), claim("x", 10, 30, "P"), claim("y", 10, 30, "P"))
    assert found["spans"] == {"P": "0.010000000", "x": "0.010000000", "y": "0.010000000"}


def test_a_child_that_lies_outside_of_its_parent_takes_nothing_from_it() -> None:
    assert allocation(claim("P", 0, 5), claim("x", 12, 15, "P"))["spans"] == {"P": "0.005000000", "x": "0.003000000"}


def test_children_that_overlap_take_their_time_once() -> None:
    found = allocation(claim("P", 0, 20), claim("x", 2, 10, "P"), claim("y", 4, 8, "x"), claim("z", 6, 14, "P"))
    assert found["spans"] == {"P": "0.008000000", "x": "0.003000000", "y": "0.003000000", "z": "0.006000000"}


def test_a_parent_that_is_unknown_is_no_matter() -> None:
    assert allocation({**A, "parent": "gone"}, B)["spans"]["A"] == "0.025000000"


def test_spans_that_are_parents_of_each_other_are_strangers() -> None:
    found = allocation({**A, "parent": "B"}, {**B, "parent": "A"}, claim("C", 0, 10, "A"))
    assert found["spans"] == {"A": "0.015000000", "B": "0.025000000", "C": "0.010000000"}


def test_kin_is_known_through_spans_that_claim_nothing() -> None:
    tape = Tape("g0", [(0, 1)], [Billed(0, 10)])
    claims = [Claim("a", "g0", 0, 10), Claim("c", "g0", 2, 4, parent="b")]
    assert allocate(tape, claim_table(claims, {"b": "a"}), [0, 10]).nano.tolist() == [8, 2]
    assert allocate(tape, claim_table(claims), [0, 10]).nano.tolist() == [9, 1]


def test_a_span_without_a_gpu_costs_nothing_and_links_its_children() -> None:
    found = allocation(claim("job", 0, 50), {**claim("http", 10, 40, "job"), "gpu": None}, claim("vae", 20, 30, "http"))
    assert found["spans"] == {"http": "0.000000000", "job": "0.040000000", "vae": "0.010000000"}
    assert found["inclusive"] == {"http": "0.010000000", "job": "0.050000000", "vae": "0.010000000"}


@pytest.mark.parametrize("rate", [[], [[0, "0.001"]]])
def test_a_gpu_that_is_not_billed_costs_nothing(rate: list[Any]) -> None:
    found = allocation(A, gpu={"rate": rate, "billed": []})
    assert (found["spans"], found["total"]) == ({"A": "0.000000000"}, {"g0": "0.000000000"})


def test_a_child_on_another_gpu_leaves_its_parent_alone() -> None:
    gpu = {"rate": [[0, "0.001"]], "billed": [[0, 60]]}
    claims = (claim("A", 0, 30), {**claim("B", 0, 30, "A"), "gpu": "g1"}, claim("C", 0, 10, "B"))
    found = allocation(*claims, gpus={"g0": gpu, "g1": gpu})
    assert found["spans"] == {"A": "0.020000000", "B": "0.030000000", "C": "0.010000000"}
    assert found["inclusive"]["A"] == "0.060000000"


def test_one_id_with_two_attempts_is_two_claims_and_one_line() -> None:
    found = allocation({**claim("A", 0, 12), "outcome": "error"}, {**claim("A", 20, 50), "attempt": 2})
    assert (found["spans"], found["waste"]) == ({"A": "0.042000000"}, "0.012000000")


def test_of_two_reports_of_one_claim_the_longer_one_counts() -> None:
    assert allocation(A, {**A, "end": 20})["spans"] == allocation({**A, "end": 20}, A)["spans"] == {"A": "0.030000000"}


def test_what_a_failed_attempt_called_is_wasted_too() -> None:
    found = allocation({**claim("try", 0, 30), "outcome": "error"}, claim("load", 0, 10, "try"), claim("ok", 40, 50))
    assert (found["waste"], set(found["waste_spans"])) == ("0.030000000", {"try", "load"})


def test_an_attempt_that_a_later_one_replaced_is_wasted() -> None:
    found = allocation({**A, "job": "J", "attempt": 1}, {**claim("B", 30, 50), "job": "J", "attempt": 2})
    assert found["jobs"] == {"J": {"cost": "0.050000000", "waste": "0.030000000"}}


def test_of_a_batch_the_failed_part_is_wasted() -> None:
    assert allocation({**A, "outputs": 4, "outputs_failed": 1})["waste"] == "0.007500000"


def test_a_claim_that_ends_before_it_starts_is_told_and_left_out() -> None:
    found = allocation(A, claim("X", 9, 3))
    assert found["dropped"] == [{"id": "X", "gpu": "g0", "reason": "ends before it starts"}]
    assert "X" not in found["spans"]


def test_a_claim_of_no_length_costs_nothing() -> None:
    assert allocation(A, claim("X", 9, 9))["spans"]["X"] == "0.000000000"


def test_cells_tell_self_time_paid_time_and_how_many_were_there() -> None:
    table = claim_table([Claim("a", "g0", 0, 10), Claim("b", "g0", 4, 6), Claim("c", "g0", 5, 6)])
    found = allocate(Tape("g0", [(0, 1)], [Billed(2, 10)]), table, [0, 10])
    assert (found.self_ns.tolist(), found.paid_ns.tolist(), found.shared_max.tolist()) == (
        [10, 2, 1],
        [8, 2, 1],
        [3, 3, 3],
    )


CASE = {
    "period": [0, 60],
    "gpus": {"g0": {"rate": [[0, "0.001"]], "billed": [[0, 60]]}},
    "claims": [{"id": "A", "gpu": "g0", "start": 0, "end": 30}],
}


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"period": [60, 0]}, "period: must end after it starts"),
        ({"period": [0, "x"]}, "period.1: must be a number"),
        ({"period": [0, 1e12]}, "period.1: is too far away: seconds are expected"),
        ({"period": [0, True]}, "period.1: must be a number"),
        ({"mode": "fair"}, "mode: Input should be 'equal', 'weighted' or 'fixed'"),
        ({"gpus": {}}, "gpus: Dictionary should have at least 1 item after validation, not 0"),
        ({"gpus": {"g0": {"rate": [[5, "1"]]}}}, "gpus.g0: g0 is billed before it has a price"),
        ({"gpus": {"g0": {"rate": [[0, "-1"]]}}}, "gpus.g0: a price of g0 is negative"),
        ({"gpus": {"g0": {"rate": [[1, 1], [0, 1]]}}}, "gpus.g0: the prices of g0 are not in the order of their times"),
        ({"gpus": {"g0": {"rate": [[0, 1]], "billed": [[5, 1]]}}}, "gpus.g0: a billed time ends before it starts"),
        (
            {"gpus": {"g0": {"rate": [[0, 1]], "billed": [[0, 5], [4, 6]]}}},
            "gpus.g0: the billed times of g0 overlap, end before they start or have no order",
        ),
        (
            {"gpus": {"g0": {"rate": [[0, 1]], "ready": [1, 2]}}},
            "gpus.g0: ready must be one value, or one for each billed time",
        ),
        ({"gpus": {"g0": {"rate": [[0, 1]], "round_up": 0}}}, "gpus.g0: round_up must be more than 0 seconds"),
        ({"claims": [{"id": "A", "gpu": "g7", "start": 0, "end": 1}]}, "claims.0.gpu: g7 is not in gpus; one of g0"),
        ({"claims": [{"id": "A", "gpu": "g0", "start": 0}]}, "claims.0.end: Field required"),
        (
            {"claims": [{"id": "A", "gpu": "g0", "start": 0, "end": 1, "share": "1/0"}]},
            "claims.0.share: must be a number or a quotient such as 1/7",
        ),
        (
            {"claims": [{"id": "A", "gpu": "g0", "start": 0, "end": 1, "share": 2}]},
            "claims.0.share: must be between 0 and 1",
        ),
        (
            {"claims": [{"id": "A", "gpu": "g0", "start": 0, "end": 1, "share": "1/1000003"}]},
            "claims: shares must be between 0 and 1, and whole parts of at most 1/1000000",
        ),
        (
            {"claims": [{"id": "A", "gpu": "g0", "start": "NaN", "end": 1}]},
            "claims.0.start: must be a number of at most 30 digits",
        ),
        (
            {"claims": [{"id": "A", "gpu": "g0", "start": 0, "end": 1, "weight": None, "share": "x"}]},
            "claims.0.share: must be a number",
        ),
        (
            {"claims": [{"id": "A", "gpu": "g0", "start": 0, "end": 1, "weight": [[0, 1], [1]]}]},
            "claims.0.weight: must be a number, or steps as [from, weight]",
        ),
        (
            {"claims": [{"id": "A", "gpu": "g0", "start": 0, "end": 1, "weight": -1}]},
            "claims: weights must be 0 or more and, as whole numbers, at most 10000",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(change: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        answer(json.dumps({**CASE, **change}))
    assert caught.value.mistakes == [mistake]


def test_what_is_no_json_or_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the case is no JSON"):
        answer(b"\xff{")
    monkeypatch.setattr(case_module, "LEDGER_CASE_BYTES_MAX", 3)
    with pytest.raises(ConfigError, match="longer than 3 bytes"):
        answer("null")


def test_an_unknown_key_is_told_and_left_out() -> None:
    strange = {**CASE, "name": "x", "claims": [{**CASE["claims"][0], "tenant": "y"}]}
    found, warnings = answer(json.dumps(strange))
    assert warnings == ["name: is not known and left out", "claims.0.tenant: is not known and left out"]
    assert found["spans"] == {"A": "0.030000000"}


def test_the_command_reads_a_case_and_prints_the_answer() -> None:
    ran = CliRunner().invoke(ledger, ["allocate"], input=json.dumps({**CASE, "name": "x"}))
    assert ran.exit_code == 0
    assert json.loads(ran.stdout)["total"] == {"g0": "0.060000000"}
    assert ran.stderr == "warning: name: is not known and left out\n"


@pytest.mark.parametrize("cuts", [[0], [], [0, 0], [5, 3]])
def test_periods_need_bounds_in_order(cuts: list[int]) -> None:
    with pytest.raises(ValueError, match="two or more bounds"):
        allocate(Tape("g0", [(0, 1)], []), claim_table([]), cuts, Mode.EQUAL)


def test_shares_and_weights_out_of_bounds_are_refused() -> None:
    for weight in (-1, 10_001, ()):
        with pytest.raises(ValueError, match="needs weights between 0 and 10000"):
            claim_table([Claim("a", "g0", 0, 1, weight=weight)])
    with pytest.raises(ValueError, match="weights of a have no order in time"):
        claim_table([Claim("a", "g0", 0, 1, weight=((1, 1), (0, 1)))])
    with pytest.raises(ValueError, match="more than 64 bits"):
        claim_table([Claim("a", "g0", 0, 2**64)])
    with pytest.raises(ValueError, match="shares must be"):
        claim_table([Claim("a", "g0", 0, 1, share=case_module.Fraction(1, 1_000_003))])
