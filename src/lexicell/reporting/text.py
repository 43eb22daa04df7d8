"""Tables for people: what every verb prints when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text


@dataclass(frozen=True)
class Table:
    """A titled table; floats are shown with 3 significant digits, whole numbers with thousands separators."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: {len(self.columns)} columns, but a row has {len(row)} cells.")


def format_cell(value: object) -> str:
    """Return a value as a table shows it: ``0.12345`` as ``0.123``, ``12345`` as ``12,345``."""
    if value is None:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        if not np.isfinite(number):
            return "-" if np.isnan(number) else str(number)
        return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
    return str(value)


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print tables one below the other to standard output, or to `console`."""
    console = console or Console()
    for table in tables:
        shown = RichTable(title=table.title or None, title_justify="left", title_style="bold", show_edge=False)
        for place, column in enumerate(table.columns):
            values = [row[place] for row in table.rows]
            number = bool(values) and all(isinstance(v, int | float | np.number | None) for v in values)
            shown.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            # Names may hold square brackets, which rich would otherwise read as markup.
            shown.add_row(*(Text(format_cell(value)) for value in row))
        console.print(shown)
        console.print()
