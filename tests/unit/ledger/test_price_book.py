"""Which row wins, what explains it, and what the shipped and the operator's files say."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from otel_pipeline.errors import ConfigError
from otel_pipeline.ledger import price_yaml
from otel_pipeline.ledger.price_book import BooksInTurn, PriceBook, rate_of, subject
from otel_pipeline.ledger.price_file import read, read_file, shipped
from otel_pipeline.ledger.price_rows import GPU_BASES, Basis, Row, moment_ns, row_of, row_text
from otel_pipeline.ledger_commands import price

NOW = moment_ns("2026-11-20")
SHIPPED = shipped()
ROOT = Path(__file__).parents[3]


def row(name: str, match: dict[str, Any] | None = None, **rest: Any) -> Row:
    return Row.model_validate({"id": name, "match": match or {}, "basis": "gpu_second", "price": "1", **rest})


H100 = subject(
    {"provider": "runpod", "gpu": "NVIDIA H100 80GB HBM3", "region": "EU-RO-1", "host": "h1", "pod": "p1"},
    {"tier": "pro", "stage": "video"},
)

PRECEDENCE = [
    row("own-any"),
    row("a-all", {"provider": "runpod", "gpu": "*H100*", "region": "eu-ro-1", "attributes": {"tier": "pro"}}),
    row("b-host", {"provider": "runpod", "gpu": "NVIDIA H100 80GB HBM3", "host": "h1"}),
    row("c-exact", {"provider": "runpod", "gpu": "nvidia h100 80gb hbm3"}),
    row("d-long", {"provider": "runpod", "gpu": "*H100 80GB*"}),
    row("e-short", {"provider": "runpod", "gpu": "*H100*"}, effective_from="2026-06-01"),
    row("f-old", {"provider": "runpod", "gpu": "*H100*"}, effective_from="2026-01-01"),
    row("g-ever", {"provider": "runpod", "gpu": "*H100*"}),
    row("h-same", {"provider": "runpod", "gpu": "*H100*"}),
    row("i-gpu", {"gpu": ["*A100*", "*H100*"]}),
    row("j-any"),
]
"""Each goes over all that follow; the first is the operator's."""


@pytest.mark.parametrize("index", range(len(PRECEDENCE)))
def test_of_the_rows_that_match_the_first_by_precedence_wins(index: int) -> None:
    own, defaults = PRECEDENCE[index : index + 1], PRECEDENCE[index + 1 :]
    book = PriceBook([] if index else own, [*reversed(defaults), *(own if index else [])])
    assert book.lookup(H100, NOW).row == PRECEDENCE[index]


def test_the_order_of_rows_changes_nothing() -> None:
    answers = {
        PriceBook([], rows).lookup(H100, NOW).row.id  # type: ignore[union-attr]
        for rows in itertools.permutations(PRECEDENCE[3:8])
    }
    assert answers == {"c-exact"}


def test_each_row_that_lost_is_told_why() -> None:
    told = {one.entry.row.id: one.why for one in PriceBook(PRECEDENCE[:1], PRECEDENCE[1:]).explain(H100, NOW)}
    assert told["own-any"] == "the first of the rows that match"
    assert told["a-all"] == "is a default, and your own rows go first"
    told = {one.entry.row.id: one.why for one in PriceBook([], PRECEDENCE[4:]).explain(H100, NOW)}
    assert told["e-short"] == "matches by a shorter text"
    assert told["i-gpu"] == "has 1 conditions, fewer than 2"
    told = {one.entry.row.id: one.why for one in PriceBook([], PRECEDENCE[5:9]).explain(H100, NOW)}
    assert told["f-old"] == "is older: in effect since 2026-01-01"
    assert told["g-ever"] == "is older: in effect since always"
    told = {one.entry.row.id: one.why for one in PriceBook([], PRECEDENCE[7:9]).explain(H100, NOW)}
    assert told["h-same"] == "is equal in all; the id decided"
    told = {one.entry.row.id: one.why for one in PriceBook([], PRECEDENCE[3:5]).explain(H100, NOW)}
    assert told["d-long"] == "matches by a pattern where the other is exact"


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ({"model": "*"}, "model is unknown, not *"),
        ({"provider": ["aws", "gcp"]}, "provider is runpod, not aws or gcp"),
        ({"attributes": {"tier": "free"}}, "attributes.tier is pro, not free"),
        ({"attributes": {"gone": "x"}}, "attributes.gone is unknown, not x"),
        ({"gpu": "H100"}, "gpu is NVIDIA H100 80GB HBM3, not H100"),
        ({"pod": "p?", "host": "h2"}, "host is h1, not h2"),
    ],
)
def test_a_row_that_does_not_match_is_told_why(match: dict[str, Any], why: str) -> None:
    book = PriceBook([row("a", match)])
    verdict = book.explain(H100, NOW)[0]
    assert (verdict.outcome, verdict.why) == ("no match", why)
    assert book.lookup(H100, NOW).reason.startswith("no price for provider=runpod gpu=NVIDIA H100 80GB HBM3")


def test_a_letter_of_a_pattern_means_itself() -> None:
    book = PriceBook([row("a", {"model": "veo-3.1"})])
    assert book.lookup(subject({"model": "VEO-3.1"}), NOW).row
    assert not book.lookup(subject({"model": "veo-3x1"}), NOW).row


def test_unknown_is_a_reason_and_no_price() -> None:
    found = PriceBook([]).lookup(subject({}), NOW)
    assert (found.row, found.reason) == (None, "no price for nothing")


def test_a_price_holds_from_its_first_day_to_before_its_last() -> None:
    first = row("a", effective_from="2026-01-01", effective_to="2026-07-01")
    book = PriceBook([first])
    assert not book.lookup(H100, moment_ns("2025-12-31T23:59:59.999999")).row
    assert book.lookup(H100, moment_ns("2026-01-01")).row
    assert book.lookup(H100, moment_ns("2026-07-01") - 1).row
    assert book.lookup(H100, moment_ns("2026-07-01")).reason.startswith("no price is in effect on 2026-07-01 for ")
    assert book.explain(H100, moment_ns("2026-07-01"))[0].why == "was in effect until 2026-07-01"
    assert book.explain(H100, 0)[0].why == "comes into effect on 2026-01-01"


def test_steps_are_the_prices_of_a_time_and_tell_where_there_is_none() -> None:
    rows = [row("a", effective_from="2026-02-01", effective_to="2026-03-01"), row("a", effective_from="2026-03-01")]
    start, end = moment_ns("2026-01-01"), moment_ns("2026-04-01")
    steps = PriceBook(rows).steps(H100, start, end, GPU_BASES)
    assert [(at, found.row) for at, found in steps] == [
        (start, None),
        (moment_ns("2026-02-01"), rows[0]),
        (moment_ns("2026-03-01"), rows[1]),
    ]


def test_only_rows_of_the_bases_are_asked() -> None:
    rows = [row("gpu"), row("call", {"provider": "runpod"}, basis="request")]
    assert PriceBook(rows).lookup(H100, NOW, frozenset({Basis.GPU_SECOND})).row == rows[0]
    assert PriceBook(rows).explain(H100, NOW, GPU_BASES)[1].why == "is a price of a request"


def test_a_rate_is_nano_units_a_nanosecond() -> None:
    assert rate_of(row("a", basis="gpu_hour", price="3.99")) == Fraction("3.99") / 3600
    assert rate_of(row("a", basis="serverless_second", price="0.00031")) == Fraction("0.00031")
    with pytest.raises(ValueError, match="no price of GPU time"):
        rate_of(Row.model_validate({"id": "a", "basis": "reported"}))


def test_a_subject_has_known_fields() -> None:
    with pytest.raises(ValueError, match="colour is not known"):
        subject({"colour": "red"})


def test_the_answers_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.ledger.price_book.PRICE_LOOKUPS_KEPT", 2)
    book = PriceBook([row("a")])
    assert all(book.lookup(subject({"model": str(index)}), NOW).row for index in (1, 2, 3, 1))
    assert len(book._known) == 2


# -- files -------------------------------------------------------------------------------------------------------------


def test_every_shipped_price_has_a_source_and_the_day_it_was_read() -> None:
    rows = SHIPPED
    assert len(rows) > 150
    assert not [one.id for one in rows if not (one.source and one.url.startswith("https://") and one.read)]
    assert len({one.id for one in rows}) == len(rows)


@pytest.mark.parametrize(
    ("fields", "platform", "name", "price_of"),
    [
        ({"provider": "runpod", "gpu": "NVIDIA GeForce RTX 4090"}, "runpod_serverless", "0.00031", "serverless_second"),
        ({"provider": "runpod", "gpu": "NVIDIA H100 80GB HBM3"}, "runpod_pod", "3.99", "gpu_hour"),
        ({"provider": "runpod", "gpu": "NVIDIA A100-SXM4-80GB"}, "runpod_serverless", "0.00076", "serverless_second"),
        ({"provider": "runpod", "gpu": "NVIDIA L4"}, "runpod_serverless", "0.00019", "serverless_second"),
        ({"provider": "runpod", "gpu": "NVIDIA L40S"}, "runpod_serverless", "0.00053", "serverless_second"),
        ({"provider": "aws", "gpu": "NVIDIA H100 80GB HBM3", "region": "us-east-1"}, "", "6.88", "gpu_hour"),
        ({"provider": "fal", "model": "fal-ai/flux/schnell"}, "", "0.003", "image"),
        ({"provider": "elevenlabs", "model": "eleven_v3"}, "", "0.08", "thousand_characters"),
        ({"provider": "openai", "model": "whisper-1"}, "", "0.006", "audio_minute"),
    ],
)
def test_shipped_prices_are_found_by_what_workers_tell(
    fields: dict[str, str], platform: str, name: str, price_of: str
) -> None:
    found = PriceBook([], SHIPPED).lookup(subject(fields, {"cloud.platform": platform}), NOW).row
    assert found
    assert (found.price, found.basis) == (Fraction(name), price_of)


def test_the_operators_example_is_valid_and_its_examples_are_too(tmp_path: Path) -> None:
    text = (ROOT / "collector-config" / "prices.yaml").read_text(encoding="utf-8")
    assert not read(text, "prices.yaml").prices
    head, rows = text.split("\nprices:\n")
    shown = "\n".join(line.removeprefix("#") for line in rows.splitlines())
    path = tmp_path / "prices.yaml"
    path.write_text(f"{head}\nprices:\n{shown}\n", encoding="utf-8")
    assert {one.basis for one in read_file(path).prices} >= set(Basis) - {Basis.ITEM, Basis.GPU_SECOND}


def test_a_price_stays_what_is_written() -> None:
    found = read("currency: EUR\nprices:\n  - {id: a, basis: item, price: 0.10}\n", "f")
    assert (found.prices[0].price, found.prices[0].currency) == (Fraction(1, 10), "EUR")


def test_a_row_takes_what_its_source_says() -> None:
    text = """
sources: {list: {name: The list, url: "https://a", read: 2026-11-09}}
prices: [{id: a, basis: item, price: 1, source: list, url: "https://b"}]
"""
    found = read(text, "f").prices[0]
    assert (found.source, found.url, str(found.read)) == ("The list", "https://b", "2026-11-09")


GOOD = "id: a, basis: item, price: 1"


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        ("id: a, basis: item, price: 1e3", "price: must be a plain decimal number such as 0.08, with at most 12"),
        ("id: a, basis: item, price: -1", "price: Input should be greater than or equal to 0"),
        ("id: a, basis: item, price: [1]", "price: must be a plain decimal number such as 0.08"),
        ("id: a, basis: item", "needs a price; what costs nothing has the price 0"),
        ("id: a, basis: hour, price: 1", "basis: Input should be 'gpu_second', 'gpu_hour'"),
        ("id: '', basis: item, price: 1", "id: String should match pattern"),
        (f"{GOOD}, currency: usd", "currency: String should match pattern"),
        (f"{GOOD}, colour: red", "colour: Extra inputs are not permitted"),
        (f"{GOOD}, match: {{modell: x}}", "match.modell: Extra inputs are not permitted"),
        (f"{GOOD}, match: {{model: }}", "match: a key without a value matches nothing: leave it out"),
        (f"{GOOD}, effective_from: soon", "effective_from: must be a date such as 2026-11-09"),
        (f"{GOOD}, effective_from: 2026-02-30", "effective_from: must be a date such as 2026-11-09"),
        (f"{GOOD}, effective_from: 2026-02-01, effective_to: 2026-02-01", "effective_to must be later than"),
        (f"{GOOD}, read: soon", "read: must be a date such as 2026-11-09"),
        (f"{GOOD}, round_up: 0", "round_up must be more than 0; leave it out if nothing is rounded"),
        (f"{GOOD}, failed: maybe", "failed: String should match pattern"),
        (f"{GOOD}, prices: {{720p: 1}}", "prices.720p is no price of a item; only price"),
        (f"{GOOD}, input_image: 1", "input_image is no price of a item"),
        ("id: a, basis: video_second, prices: {hd: 1}", "prices.hd is no price of a video_second; only resolutions"),
        ("id: a, basis: million_tokens, prices: {cached_input: 1}", "needs prices.input or prices.output, or a price"),
        (
            "id: a, basis: serverless_second, prices: {idle: 1}",
            "needs a price, or all prices: execution, idle, startup",
        ),
        ("id: a, basis: reported, price: 1", "a reported cost has no price of its own"),
        (
            "id: a, basis: serverless_second, price: 1, energy_price: 1",
            "energy_price is for GPUs of your own, beside a price of a gpu_hour or gpu_second",
        ),
    ],
)
def test_a_mistake_in_a_row_is_told_with_its_line_and_place(entry: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"prices:\n  - {{id: z, basis: item, price: 1}}\n  - {{{entry}}}\n", "own.yaml")
    assert len(caught.value.mistakes) == 1
    assert caught.value.mistakes[0].startswith("own.yaml, line 3: prices.1")
    assert mistake in caught.value.mistakes[0]


def test_all_mistakes_are_told_at_once() -> None:
    text = "currency: euro\nprices:\n  - id: a\n    basis: item\n    price: x\n  - basis: item\n    price: 1\n"
    with pytest.raises(ConfigError) as caught:
        read(text, "own.yaml")
    places = [mistake.split(": ")[0] for mistake in caught.value.mistakes]
    assert places == ["own.yaml, line 1", "own.yaml, line 5", "own.yaml, line 6"]


def test_one_id_may_not_hold_twice_for_the_same_time() -> None:
    twice = "prices: [{id: a, basis: item, price: 1, effective_from: 2026-01-01}, {id: a, basis: item, price: 2}]"
    with pytest.raises(ConfigError, match=r"line 1: prices\.1\.id: a stands twice for the same time"):
        read(twice, "f")
    later = twice.replace("price: 2", "price: 2, effective_to: 2026-01-01")
    assert len(read(later, "f").prices) == 2


def test_a_source_that_is_not_told_is_a_mistake() -> None:
    text = "sources: {b: {name: B}}\nprices:\n  - {id: a, basis: item, price: 1, source: c}\n"
    with pytest.raises(ConfigError, match=r"line 3: prices\.0\.source: c is not in sources; one of b"):
        read(text, "f")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("prices: [", "f, line 1: no YAML"),
        ("a: 1\na: 2", "f, line 2: the key 'a' stands twice"),
        ("a: &x [1]\nb: *x", "f, line 1: no references: write it out"),
        ("? [a]\n: 1", "f, line 1: a key must be a text"),
        ("[[[[[[[[[[1]]]]]]]]]]", "f, line 1: nested too deep"),
        ("- 1", "f, line 1: the file: Input should be a valid dictionary"),
        ("[" * 500, "f, line 1: no YAML|nested too deep"),
        ("a: \x07", "f: no YAML"),
    ],
)
def test_what_is_no_price_file_is_told(text: str, mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake):
        read(text, "f")


def test_a_file_has_a_largest_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(price_yaml, "PRICE_FILE_BYTES_MAX", 3)
    with pytest.raises(ConfigError, match="longer than 3 bytes"):
        read("prices:", "f")
    with pytest.raises(ConfigError, match="No such file"):
        read_file(tmp_path / "none.yaml")


# -- the command -------------------------------------------------------------------------------------------------------


def explained(*arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(price, ["explain", *arguments])
    return ran.exit_code, ran.output


def test_the_command_tells_the_price_and_what_lost(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("prices: [{id: mine, match: {model: sora-*}, basis: item, price: 0.5, source: Bill}]")
    code, output = explained("--provider", "openai", "--model", "sora-2", "--prices", str(own), "--at", "2026-11-20")
    assert code == 0
    assert output.splitlines()[:4] == [
        "won: mine (own): 0.5 USD a item, from always",
        "    the first of the rows that match",
        "    Bill",
        "lost: openai-sora-2 (default): 0.1 USD a video_second, from always",
    ]


def test_the_command_leaves_the_shipped_prices_out_when_they_are_switched_off(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("defaults: false\n")
    assert explained("--provider", "openai", "--model", "sora-2", "--prices", str(own))[0] == 1


def test_the_command_tells_what_is_unknown_and_what_is_near() -> None:
    code, output = explained("--provider", "openai", "--model", "sora-3", "--format", "json")
    found = json.loads(output)
    assert (code, found["reason"]) == (1, "no price for provider=openai model=sora-3")
    assert found["rows"][0]["why"].startswith("model is sora-3, not ")


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["--attribute", "x"], "x is not KEY=VALUE"),
        (["--at", "soon"], "must be a date"),
        (["--basis", "hour"], "'hour' is not a valid Basis"),
    ],
)
def test_the_command_tells_wrong_arguments(arguments: list[str], mistake: str) -> None:
    code, output = explained(*arguments)
    assert code == 2
    assert mistake in output


FULL = row(
    "full", {"gpu": ["a*", "b"], "attributes": {"tier": ["x", "y"]}}, basis="video_second", prices={"720p": "0.1"},
    input_image="0.02", currency="EUR", effective_from="2026-01-01T10:00:00.000001+02:00", effective_to="2027-01-01",
    round_up="0.5", minimum="3", failed="free", source="s", url="u", read="2026-11-01", note="n",
)  # fmt: skip


def test_a_row_is_kept_as_it_is() -> None:
    assert [row_of(row_text(one)) for one in (FULL, *SHIPPED)] == [FULL, *SHIPPED]


def test_books_hold_in_turn() -> None:
    dear, cheap = row("a", price="3"), row("a", price="2")
    later = row("a", price="1", effective_from="2026-06-01")
    turn = moment_ns("2026-03-01")
    book = BooksInTurn([(turn - 7, PriceBook([dear])), (turn, PriceBook([cheap, later]))])
    start, end = moment_ns("2026-01-01"), moment_ns("2027-01-01")
    steps = [(at, found.row) for at, found in book.steps(H100, start, end, GPU_BASES)]
    assert steps == [(start, dear), (turn, cheap), (later.start_ns, later)]
    assert [book.lookup(H100, at).row for at in (start, turn - 1, turn, end)] == [dear, dear, cheap, later]
    assert [found.row for _, found in book.steps(H100, turn, turn + 1)] == [cheap]
