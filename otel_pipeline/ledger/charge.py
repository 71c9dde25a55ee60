"""What a call costs: a row of the price book and what was used. Exact until the end, then rounded once to whole n$.

A quantity that the row needs and nobody knows leaves the call unpriced, with the reason. Only an operator who wrote the
price 0 makes it free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import ceil, lcm
from typing import Final

from otel_pipeline.ledger.energy import MJ_PER_KWH
from otel_pipeline.ledger.money import NANO, Money, rounded, split
from otel_pipeline.ledger.price_rows import Basis, Row

SIDES: Final = (480, 720, 1080, 1440, 2160)
"""Short sides that resolutions are sold by; one in between is sold as the next larger one."""
ALIASES: Final = {"1440p": "2k", "2k": "1440p", "2160p": "4k", "4k": "2160p"}


_TOKEN_KINDS: Final = {
    "input": ("cached_input", "cache_write", "image_input", "audio_input"),
    "output": ("image_output", "audio_output"),
}


class Status(StrEnum):
    """How sure an amount is."""

    FINAL = "final"
    PROVISIONAL = "provisional"
    UNPRICED = "unpriced"
    FREE = "free"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantities:
    """What was used; None is unknown. Tokens that were cached, written to the cache, images or audio are part of
    `input_tokens` and `output_tokens`, as OpenTelemetry counts them. `resolution` is a text such as 720p, 4k,
    1024x1024.
    """

    gpu_ns: int | None = None
    startup_ns: int | None = None
    execution_ns: int | None = None
    idle_ns: int | None = None
    items: int | None = None
    images: int | None = None
    input_images: int = 0
    video_ns: int | None = None
    resolution: str = ""
    width: int = 0
    height: int = 0
    characters: int | None = None
    audio_ns: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    image_input_tokens: int = 0
    audio_input_tokens: int = 0
    image_output_tokens: int = 0
    audio_output_tokens: int = 0
    requests: int = 1
    energy_mj: int | None = None
    reported: Money | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Charge:
    """An amount in n$, or None with the reason. `parts` name what it consists of and add up to it."""

    nano: int | None
    currency: str
    basis: str
    status: Status
    price_id: str
    reason: str = ""
    parts: tuple[tuple[str, int], ...] = ()


class Unknown(Exception):
    """A quantity or a price is missing; the text says which."""


def charge(row: Row, used: Quantities) -> Charge:
    """What was used, at the row's price. Never raises, never negative."""
    if row.basis is Basis.REPORTED:
        return _reported(row, used)
    if used.failed and row.failed == "free":
        return Charge(0, row.currency, row.basis, Status.FREE, row.id, "the provider does not bill what failed")
    try:
        parts = _BY_BASIS[row.basis](row, used)
    except Unknown as unknown:
        return Charge(None, row.currency, row.basis, Status.UNPRICED, row.id, str(unknown))
    exact = [(name, amount * NANO) for name, amount in parts]
    total = sum((amount for _, amount in exact), Fraction(0))
    nano = rounded(total.numerator, total.denominator)
    whole = _whole_parts(nano, exact)
    return Charge(nano, row.currency, row.basis, Status.FREE if row.free else Status.FINAL, row.id, "", whole)


def unpriced(reason: str, basis: str = "") -> Charge:
    """What has no price."""
    return Charge(None, "", basis, Status.UNPRICED, "", reason)


Parts = list[tuple[str, Fraction]]


def _reported(row: Row, used: Quantities) -> Charge:
    if used.reported is None:
        return Charge(None, row.currency, row.basis, Status.UNPRICED, row.id, "the provider reported no cost")
    if used.reported.nano < 0:
        return Charge(None, row.currency, row.basis, Status.UNPRICED, row.id, "the reported cost is negative")
    return Charge(used.reported.nano, used.reported.currency, row.basis, Status.FINAL, row.id)


def _gpu(row: Row, used: Quantities) -> Parts:
    unit = 3600 if row.basis is Basis.GPU_HOUR else 1
    time = ("gpu", _price(row) * _billed(row, _seconds(used.gpu_ns, "the time on the GPU")) / unit)
    return [time, *_energy(row, used)] if row.tariff else [time]


def _serverless(row: Row, used: Quantities) -> Parts:
    """The worker's life is rounded up to whole seconds unless the row says otherwise; what that adds is idle."""
    startup = _seconds(used.startup_ns if used.startup_ns is not None else 0, "")
    execution = _seconds(used.execution_ns, "the time of execution")
    idle = _seconds(used.idle_ns if used.idle_ns is not None else 0, "")
    lived = startup + execution + idle
    step = row.round_up or Fraction(1)
    billed = max(ceil(lived / step) * step, row.minimum or 0)
    seconds = (("startup", startup), ("execution", execution), ("idle", idle), ("rounding", billed - lived))
    return [(name, _price(row, {"rounding": "idle"}.get(name, name)) * spent) for name, spent in seconds]


def _item(row: Row, used: Quantities) -> Parts:
    return [("item", _price(row) * _billed(row, _known(used.items, "the number of items")))]


def _image(row: Row, used: Quantities) -> Parts:
    count = _billed(row, _known(used.images, "the number of images"))
    return [("image", tier_price(row, used) * count), *_input_images(row, used)]


def _video(row: Row, used: Quantities) -> Parts:
    seconds = _billed(row, _seconds(used.video_ns, "the length of the video"))
    return [("video", tier_price(row, used) * seconds), *_input_images(row, used)]


def _characters(row: Row, used: Quantities) -> Parts:
    thousands = _known(used.characters, "the number of characters") / 1000
    return [("characters", _price(row) * _billed(row, thousands))]


def _audio(row: Row, used: Quantities) -> Parts:
    """Minutes that are billed by the second: round_up is in seconds."""
    seconds = _billed(row, _seconds(used.audio_ns, "the length of the audio"))
    return [("audio", _price(row) * seconds / 60)]


def _tokens(row: Row, used: Quantities) -> Parts:
    if used.input_tokens is None and used.output_tokens is None:
        raise Unknown("the number of tokens is unknown")
    parts: Parts = []
    for side in ("input", "output"):
        count = getattr(used, f"{side}_tokens") or 0
        for kind in _TOKEN_KINDS[side]:
            special = min(getattr(used, f"{kind}_tokens"), count)
            if special > 0 and kind in row.prices:
                parts.append((kind, row.prices[kind] * special / 1_000_000))
                count -= special
        if count > 0:
            parts.append((side, _price(row, side) * count / 1_000_000))
    return parts


def _request(row: Row, used: Quantities) -> Parts:
    return [("request", _price(row) * _billed(row, Fraction(used.requests)))]


def _energy(row: Row, used: Quantities) -> Parts:
    return [("energy", (row.tariff or 0) * _known(used.energy_mj, "the energy") / MJ_PER_KWH)]


_BY_BASIS: Final[dict[Basis, Callable[[Row, Quantities], Parts]]] = {
    Basis.GPU_SECOND: _gpu,
    Basis.GPU_HOUR: _gpu,
    Basis.SERVERLESS_SECOND: _serverless,
    Basis.ITEM: _item,
    Basis.IMAGE: _image,
    Basis.VIDEO_SECOND: _video,
    Basis.THOUSAND_CHARACTERS: _characters,
    Basis.AUDIO_MINUTE: _audio,
    Basis.MILLION_TOKENS: _tokens,
    Basis.REQUEST: _request,
    Basis.KILOWATT_HOUR: _energy,
}


def _price(row: Row, name: str = "") -> Fraction:
    price = row.prices.get(name, row.price)
    if price is None:
        raise Unknown(f"{row.id} has no price for {name}")
    return price


def _known(count: int | None, what: str) -> Fraction:
    if count is None:
        raise Unknown(f"{what} is unknown")
    if count < 0:
        raise Unknown(f"{what} is negative")
    return Fraction(count)


def _seconds(ns: int | None, what: str) -> Fraction:
    return _known(ns, what) / NANO


def _billed(row: Row, count: Fraction) -> Fraction:
    if row.round_up:
        count = ceil(count / row.round_up) * row.round_up
    return max(count, row.minimum or Fraction(0))


def _input_images(row: Row, used: Quantities) -> Parts:
    if row.input_image is None or used.input_images <= 0:
        return []
    return [("input_image", row.input_image * used.input_images)]


def tier_price(row: Row, used: Quantities) -> Fraction:
    """The price of the resolution; raises Unknown if the row has none for it."""
    names = _resolutions(used, video=row.basis is Basis.VIDEO_SECOND)
    for name in names:
        if name in row.prices:
            return row.prices[name]
    if row.price is None:
        known = ", ".join(row.prices)
        raise Unknown(f"{row.id} has no price for the resolution {names[0] if names else 'unknown'}, only for {known}")
    return row.price


def _resolutions(used: Quantities, *, video: bool) -> list[str]:
    """Names that the resolution may be listed by, the closest first. Videos go by their short side, images by the long
    one in steps of 1024: a video of 2k is 1440p, an image of 2k has 2048 pixels.
    """
    told = used.resolution.strip().lower().replace("\u00d7", "x")
    width, height = used.width, used.height
    left, _, right = told.partition("x")
    if left.isdecimal() and right.isdecimal() and len(told) < 16:
        width, height = int(left), int(right)
    names = [told] if told else []
    if width > 0 and height > 0:
        short, long = sorted((width, height))
        names.append(f"{width}x{height}")
        if video:
            names += [f"{short}p", *[f"{sold}p" for sold in SIDES if sold >= short][:1]]
        else:
            names += [f"{sold}k" for sold in (1, 2, 4) if sold * 1024 >= long][:1]
    if video:
        names += [ALIASES[name] for name in names if name in ALIASES]
    return list(dict.fromkeys(names))


def _whole_parts(nano: int, exact: Parts) -> tuple[tuple[str, int], ...]:
    """The parts in whole n$, with the amount as their sum."""
    if not exact:
        return ()
    common = lcm(*(amount.denominator for _, amount in exact))
    shares = split(nano, [int(amount * common) for _, amount in exact])
    return tuple((name, share) for (name, _), share in zip(exact, shares, strict=True))
