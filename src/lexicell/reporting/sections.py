"""What a page is made of: headlines, and sections of text, pictures and tables."""

from __future__ import annotations

from dataclasses import dataclass

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


def picture(figure: Figure, name: str, caption: str) -> Picture:
    """Return a figure as a picture; its name must be the page's only one."""
    return Picture(Markup(figures.to_svg(figure, name)), caption)
