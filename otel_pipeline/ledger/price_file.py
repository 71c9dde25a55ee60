"""Reads price files: YAML in, rows out, or every mistake at once, each with its line and place."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from otel_pipeline.errors import ConfigError
from otel_pipeline.ledger.money import CURRENCY
from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.ledger.price_rows import PriceFile, Row
from otel_pipeline.ledger.price_yaml import Document, parse

if TYPE_CHECKING:
    from collections.abc import Iterable


def read(text: str, origin: str) -> PriceFile:
    """The rows of a price file, with the file's currency and sources filled in. ConfigError with every mistake."""
    document = parse(text, origin)
    tree = {} if document.tree is None else document.tree
    try:
        found = PriceFile.model_validate(_with_currency(tree))
    except ValidationError as error:
        told = sorted(_told(document, one) for one in error.errors())
        raise ConfigError([f"{origin}, line {line}: {mistake}" for line, mistake in told]) from error
    mistakes = [
        f"{origin}, line {document.line(('prices', index, *rest))}: prices.{index}.{'.'.join(rest)}: {reason}"
        for index, rest, reason in _across(found)
    ]
    if mistakes:
        raise ConfigError(mistakes)
    return found.model_copy(update={"prices": tuple(_with_source(row, found) for row in found.prices)})


def read_file(path: Path) -> PriceFile:
    """The rows of a price file; ConfigError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: {error}"]) from error
    return read(text, str(path))


def shipped() -> list[Row]:
    """The dated prices of this package."""
    folder = files("otel_pipeline.ledger") / "prices"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return [row for name in names for row in read((folder / name).read_text(encoding="utf-8"), name).prices]


def book_of(paths: Iterable[Path], *, defaults: bool = True) -> PriceBook:
    """The price book of an operator's files and, unless they or the caller say otherwise, the shipped prices."""
    own = [read_file(path) for path in paths]
    with_shipped = defaults and all(each.defaults for each in own)
    return PriceBook([row for each in own for row in each.prices], shipped() if with_shipped else ())


def _with_currency(tree: Any) -> Any:
    """The file's currency at each row that names none."""
    if not isinstance(tree, dict) or not isinstance(tree.get("prices"), list):
        return tree
    if not CURRENCY.fullmatch(str(tree.get("currency"))):  # none, or a mistake that is told by itself
        return tree
    rows = [{"currency": tree["currency"], **row} if isinstance(row, dict) else row for row in tree["prices"]]
    return {**tree, "prices": rows}


def _with_source(row: Row, of: PriceFile) -> Row:
    source = of.sources.get(row.source)
    if source is None:
        return row
    known = {"source": source.name, "url": row.url or source.url, "read": row.read or source.read}
    return row.model_copy(update=known)


def _across(found: PriceFile) -> Iterable[tuple[int, tuple[str, ...], str]]:
    """Index, place and reason of what only the whole file can tell."""
    known: dict[str, list[Row]] = {}
    for index, row in enumerate(found.prices):
        for other in known.setdefault(row.id, []):
            if row.start_ns < other.end_ns and other.start_ns < row.end_ns:
                yield index, ("id",), f"{row.id} stands twice for the same time; give the older one an effective_to"
                break
        known[row.id].append(row)
        if found.sources and row.source and row.source not in found.sources:
            yield index, ("source",), f"{row.source} is not in sources; one of {', '.join(found.sources)}"


def _told(document: Document, one: Any) -> tuple[int, str]:
    """The line of a mistake, and what it is."""
    name = ".".join(map(str, one["loc"])) or "the file"
    return document.line(one["loc"]), f"{name}: {one['msg'].removeprefix('Value error, ')}"
