"""A row of the price book: what it is for, what it costs and since when. Pure data; `price_file.py` reads it."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from otel_pipeline.ledger.money import CURRENCY, NANO, decimal, exact
from otel_pipeline.limits import PRICE_ROWS_MAX

FOREVER_NS: Final = 2**63 - 1
ALWAYS_NS: Final = -(2**63)
_PART: Final = re.compile(r"[0-9]{1,6}(/[1-9][0-9]{0,5}|\.[0-9]{1,20})?")
_RESOLUTION: Final = re.compile(r"[1-9][0-9]{2,4}p|[1-9][0-9]?k|[1-9][0-9]{1,4}x[1-9][0-9]{1,4}")


class Basis(StrEnum):
    """What a price is for; the unit is in the name."""

    GPU_SECOND = "gpu_second"
    GPU_HOUR = "gpu_hour"
    SERVERLESS_SECOND = "serverless_second"
    ITEM = "item"
    IMAGE = "image"
    VIDEO_SECOND = "video_second"
    THOUSAND_CHARACTERS = "thousand_characters"
    AUDIO_MINUTE = "audio_minute"
    MILLION_TOKENS = "million_tokens"
    REQUEST = "request"
    KILOWATT_HOUR = "kilowatt_hour"
    REPORTED = "reported"


OWNED: Final = frozenset({Basis.GPU_SECOND, Basis.GPU_HOUR})
"""What may cost energy beside its price: a serverless worker is always somebody else's."""
GPU_BASES: Final = OWNED | {Basis.SERVERLESS_SECOND}
"""Prices of time on a GPU."""
OWN_GPU_BASES: Final = GPU_BASES | {Basis.KILOWATT_HOUR}
"""The same, and energy: what a GPU may be paid by."""
CALL_BASES: Final = frozenset(Basis) - OWN_GPU_BASES
"""Prices of a call to somebody else's model."""
TIERED: Final = frozenset({Basis.IMAGE, Basis.VIDEO_SECOND})
"""What may cost by resolution; `price` is then for all other resolutions."""
MOMENTS: Final = ("effective_from", "effective_to")
NAMED: Final = {
    Basis.SERVERLESS_SECOND: frozenset({"startup", "execution", "idle"}),
    Basis.MILLION_TOKENS: frozenset(
        {"input", "output", "cached_input", "cache_write", "image_output", "audio_input", "audio_output", "image_input"}
    ),
}


class Shares(StrEnum):
    """How those who are on a GPU at the same time share its cost: as the modes of an allocation."""

    EQUAL = "equal"
    WEIGHTED = "weighted"
    FIXED = "fixed"


def _share(text: str) -> str:
    if not _PART.fullmatch(text) or not 0 < Fraction(text) <= 1:
        raise ValueError("must be a part of the GPU such as 1/4 or 0.25")
    return text


def _price(value: Any) -> Fraction:
    if not isinstance(value, str):
        raise ValueError("must be a plain decimal number such as 0.08")  # noqa: TRY004  pydantic takes ValueError
    return exact(value)


def _at_ns(value: Any) -> Any:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError("must be a date such as 2026-11-09, or one with a time, in UTC if it says no zone") from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * NANO + at.microsecond * 1000


def _day(value: Any) -> Any:
    try:
        return None if value is None else date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError("must be a date such as 2026-11-09") from error


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Price = Annotated[Fraction, BeforeValidator(_price), Field(ge=0)]
Share = Annotated[str, AfterValidator(_share)]
"""Kept as it is written: a seventh is no decimal number."""
Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)]
Moment = Annotated[int | None, BeforeValidator(_at_ns)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,95}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Match(_Part):
    """What a row is for. All that is given must hold, each by one of its texts; * and ? stand for any letters."""

    provider: Patterns = ()
    model: Patterns = ()
    gpu: Patterns = ()
    region: Patterns = ()
    host: Patterns = ()
    pod: Patterns = ()
    attributes: dict[str, Patterns] = {}

    @model_validator(mode="before")
    @classmethod
    def _given(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and any(value is None for value in fields.values()):
            raise ValueError("a key without a value matches nothing: leave it out")
        return fields

    def conditions(self) -> list[tuple[str, tuple[str, ...]]]:
        """Name and texts of each condition; attributes as attributes.KEY."""
        fields = [name for name in type(self).model_fields if name != "attributes"]
        found = [(name, getattr(self, name)) for name in fields if getattr(self, name)]
        return [*found, *((f"attributes.{key}", patterns) for key, patterns in sorted(self.attributes.items()))]


class Source(_Part):
    """Where a price was read, and when."""

    name: str
    url: str = ""
    read: Annotated[date | None, BeforeValidator(_day)] = None


class Row(_Part):
    """One price. `price` is for one unit of the basis; `prices` names several, such as resolutions.

    effective_from is inclusive, effective_to is not. round_up: quantities are billed in multiples of it, minimum: and
    are at least this, both in the units of the basis that are measured (seconds, or 1,000 characters and so on).
    energy_price: of a kilowatt hour, beside the price of a GPU of one's own: what it was bought for, and what it uses.
    failed: whether the provider bills what failed.
    shares: how spans share a GPU that they use at the same time; share: what each has that does not tell it.
    """

    id: Name
    match: Match = Match()
    basis: Basis
    price: Price | None = None
    prices: dict[str, Price] = {}
    input_image: Price | None = None
    energy_price: Price | None = None
    currency: Annotated[str, Field(pattern=f"^{CURRENCY.pattern}$")] = "USD"
    effective_from: Moment = None
    effective_to: Moment = None
    round_up: Price | None = None
    minimum: Price | None = None
    failed: Annotated[str, Field(pattern="^(billed|free)$")] = "billed"
    shares: Shares = Shares.EQUAL
    share: Share | None = None
    source: str = ""
    url: str = ""
    read: Annotated[date | None, BeforeValidator(_day)] = None
    note: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Row:
        if problem := _problem(self):
            raise ValueError(problem)
        return self

    @property
    def start_ns(self) -> int:
        return ALWAYS_NS if self.effective_from is None else self.effective_from

    @property
    def end_ns(self) -> int:
        return FOREVER_NS if self.effective_to is None else self.effective_to

    @property
    def free(self) -> bool:
        """Whether the operator wrote that it costs nothing."""
        single = (self.price, self.input_image, self.energy_price)
        given = [*self.prices.values(), *(one for one in single if one is not None)]
        return bool(given) and not any(given)

    @property
    def tariff(self) -> Fraction | None:
        """The price of a kilowatt hour, if energy costs anything."""
        return (self.price if self.basis is Basis.KILOWATT_HOUR else self.energy_price) or None


def _problem(row: Row) -> str:
    """What is wrong with the row as a whole, or nothing: the first that holds."""
    allowed = NAMED.get(row.basis, frozenset())
    tiered, has_price = row.basis in TIERED, row.price is not None or bool(row.prices)
    strange = sorted(name for name in row.prices if not (_RESOLUTION.fullmatch(name) if tiered else name in allowed))
    kinds = "resolutions such as 720p, 4k or 1024x1024" if tiered else ", ".join(sorted(allowed))
    no_tokens = row.price is None and not {"input", "output"} & row.prices.keys()
    some_phases = row.price is None and len(row.prices) < len(allowed)
    problems = (
        (row.start_ns >= row.end_ns, "effective_to must be later than effective_from"),
        (row.basis is Basis.REPORTED and has_price, "a reported cost has no price of its own"),
        (bool(strange), f"prices.{''.join(strange[:1])} is no price of a {row.basis}; only {kinds or 'price'}"),
        (row.basis is not Basis.REPORTED and not has_price, "needs a price; what costs nothing has the price 0"),
        (row.basis is Basis.MILLION_TOKENS and no_tokens, "needs prices.input or prices.output, or a price for both"),
        (row.basis is Basis.SERVERLESS_SECOND and some_phases, f"needs a price, or all prices: {kinds}"),
        (row.input_image is not None and not tiered, f"input_image is no price of a {row.basis}"),
        (
            row.energy_price is not None and row.basis not in OWNED,
            f"energy_price is for GPUs of your own, beside a price of a {' or '.join(sorted(OWNED))}",
        ),
        (row.shares is not Shares.EQUAL and row.basis not in OWN_GPU_BASES, f"nobody shares a {row.basis}"),
        (row.share is not None and row.shares is Shares.EQUAL, "share needs shares: fixed, or weighted"),
        (row.round_up == 0, "round_up must be more than 0; leave it out if nothing is rounded"),
    )
    return next((reason for wrong, reason in problems if wrong), "")


class PriceFile(_Part):
    """What a price file may say. `defaults: false` switches the shipped prices off."""

    defaults: bool = True
    currency: Annotated[str, Field(pattern=f"^{CURRENCY.pattern}$")] = "USD"
    sources: Annotated[dict[str, Source], BeforeValidator(lambda given: given or {})] = {}
    prices: Annotated[
        tuple[Row, ...], BeforeValidator(lambda given: [] if given is None else given), Field(max_length=PRICE_ROWS_MAX)
    ] = ()


def moment_ns(text: str) -> int:
    """ns since 1970 of a date or a time, UTC if it says no zone; ValueError for any other text."""
    found: int = _at_ns(text)
    return found


def row_text(row: Row) -> str:
    """The row as JSON, the same for equal rows; `row_of` reads it."""
    return json.dumps(_plain(row), sort_keys=True)


def row_of(text: str) -> Row:
    """The row that a text tells; ValueError if it tells none."""
    return Row.model_validate(json.loads(text))


def _plain(value: Any) -> Any:
    """As it stands in a price file, without what is left out there."""
    if isinstance(value, BaseModel):
        given = {name: getattr(value, name) for name in type(value).model_fields}
        told = {name: each for name, each in given.items() if each != type(value).model_fields[name].default}
        return {name: _moment(each) if name in MOMENTS else _plain(each) for name, each in told.items()}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return decimal(value) if isinstance(value, Fraction) else str(value)


def _moment(at_ns: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_ns // 1000)).isoformat()


def told_prices(row: Row) -> str:
    """The prices of a row in words, such as 0.00031 USD a serverless_second."""
    named = [f"{name} {decimal(price)}" for name, price in row.prices.items()]
    plain = [decimal(row.price)] if row.price is not None else []
    image = [f"input_image {decimal(row.input_image)}"] if row.input_image is not None else []
    energy = f" and {decimal(row.energy_price)} a kilowatt_hour" if row.energy_price is not None else ""
    shares = f", shares: {row.shares} {row.share or ''}".rstrip() if row.shares is not Shares.EQUAL else ""
    return f"{', '.join([*plain, *named, *image]) or 'as reported,'} {row.currency} a {row.basis}{energy}{shares}"


def day_of(at_ns: int | None) -> str:
    """The date of a moment, with its time if it isn't midnight UTC; empty for none."""
    if at_ns is None:
        return ""
    at = datetime.fromtimestamp(at_ns // NANO, tz=UTC)
    return at.date().isoformat() if at.time() == time() else at.isoformat()
