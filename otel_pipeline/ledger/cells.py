"""CSV files that people open with a spreadsheet, too.

A spreadsheet runs a cell that begins with = + - or @ as a formula, whoever wrote it: names of workflows, jobs and
models come from outside. Such a text gets an apostrophe before it, which spreadsheets take as "what follows is text".
Numbers stay numbers. What was a line break in a text is one within quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_RUN: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a formula begins with; the last four are wide forms of the first, which some programs take for them."""
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_QUOTED: Final = re.compile('[",\r\n]')


def defused(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return f"'{text}" if text.startswith(_RUN) and not _NUMBER.fullmatch(text) else text


def csv_line(cells: Iterable[object]) -> str:
    """A line of a CSV file as in RFC 4180, but that it ends with a line feed. Null characters are left out: readers
    stop at them.
    """
    return ",".join(_quoted(defused(str(cell).replace("\0", ""))) for cell in cells) + "\n"


def _quoted(cell: str) -> str:
    if not _QUOTED.search(cell):
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'
