"""What a verb returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lexicell.reporting.text import Table


class Result(Protocol):
    """What every workflow returns."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs, JSON-able."""

    def tables(self) -> list[Table]:
        """Return the tables for people."""
