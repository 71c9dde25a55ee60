"""CSV cells: spreadsheets run none of them, and readers get back what was written."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.cells import csv_line, defused
from tests.unit.ledger.conftest import PROPERTIES

FORMULAS = (
    "=1+1",
    "+1-1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "=cmd|' /C calc'!A0",
    "--1",
    "-",
    "-1e5",
    "\uff1d1",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_a_text(text: str) -> None:
    assert defused(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "0.025000000", "-0.000000005", "-7", "a=b", "2026-11-21T00:00:00Z", "wan-2.1"])
def test_numbers_and_other_texts_stay(text: str) -> None:
    assert defused(text) == text


def test_breaks_and_quotes_are_part_of_a_cell() -> None:
    assert csv_line(["a,b", 'say "x"', "two\nlines", "old\rline", 5, None, "nul\0"]) == (
        '"a,b","say ""x""","two\nlines","old\rline",5,None,nul\n'
    )


@PROPERTIES
@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=2)))
def test_a_reader_gets_the_cells_back(rows: list[list[str]]) -> None:
    file = io.StringIO("".join(map(csv_line, rows)), newline="")
    assert list(csv.reader(file)) == [[defused(cell) for cell in row] for row in rows]
