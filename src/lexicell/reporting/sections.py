"""What a page is made of: headlines, and sections of text, pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lexicell.reporting import figures
from lexicell.reporting.text import Table


@dataclass(frozen=True)
class Picture:
    """A drawn figure and what it shows."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page: text first, then pictures, then tables, then code."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    code: str = ""


@dataclass(frozen=True)
class Headline:
    """A number for the top of the page."""

    value: str
    label: str
    note: str = ""


def table_of(table: pd.DataFrame, title: str, columns: Sequence[str]) -> Table:
    """Return some columns of a data frame as a table; missing values are shown as a dash."""
    part = table[list(columns)].astype(object)
    rows = part.where(part.notna(), None).itertuples(index=False, name=None)
    return Table(title, tuple(name.replace("_", " ") for name in columns), tuple(tuple(row) for row in rows))


def picture(figure: Figure, name: str, caption: str) -> Picture:
    """Return a figure as a picture; its name must be the page's only one."""
    return Picture(Markup(figures.to_svg(figure, name)), caption)
