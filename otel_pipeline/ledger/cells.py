"""CSV files that people open with a spreadsheet, too.

A spreadsheet runs a cell that begins with = + - or @ as a formula, whoever wrote it: names of workflows, jobs and
models come from outside. Such a text gets an apostrophe before it, which spreadsheets take as "what follows is text".
Numbers stay numbers. What was a line break in a text is one within quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_RUN: Final = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""What a formula begins with; the last four are wide forms of the first, which some programs take for them."""
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_PLAIN: Final = re.compile(f'(?![{re.escape(_RUN)}])[^",\r\n\0]*')
"""Most cells: they stay as they are."""
_TO_QUOTE: Final = re.compile('[",\r\n]')


def defused(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return f"'{text}" if text.startswith(tuple(_RUN)) and not _NUMBER.fullmatch(text) else text


def csv_line(cells: Iterable[object]) -> str:
    """A line of a CSV file as in RFC 4180, but that it ends with a line feed. Null characters are left out: readers
    stop at them.
    """
    is_plain = _PLAIN.fullmatch
    return ",".join([text if is_plain(text) else _quoted(text) for text in map(str, cells)]) + "\n"


def _quoted(text: str) -> str:
    cell = defused(text.replace("\0", ""))
    if not _TO_QUOTE.search(cell):
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'
