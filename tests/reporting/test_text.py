import io

import numpy as np
import pytest
from rich.console import Console

from lexicell.reporting.text import Table, format_cell, print_tables


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.123"),
        (np.float32(0.5), "0.5"),
        (1234567, "1,234,567"),
        (np.int64(3), "3"),
        (12345.6, "12,346"),
        (float("nan"), "-"),
        (float("inf"), "inf"),
        (None, "-"),
        (True, "yes"),
        (np.bool_(False), "no"),
        ("a [red]name", "a [red]name"),
    ],
)
def test_cells(value, shown):
    assert format_cell(value) == shown


def test_tables_are_printed_with_markup_as_text():
    out = io.StringIO()
    table = Table("skill", ("name", "n"), (("[bold]x", 1000), ("y", None)))
    print_tables([table], Console(file=out, width=60))
    text = out.getvalue()
    assert "skill" in text
    assert "[bold]x" in text
    assert "1,000" in text


def test_rows_must_fit_the_columns():
    with pytest.raises(ValueError, match="2 columns, but a row has 1"):
        Table("t", ("a", "b"), (("x",),))
