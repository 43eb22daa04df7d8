"""One input, whatever its format: cells, their annotation, genes, and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Self

import pandas as pd

from lexicell.data.readers.matrices import Matrix


class MatrixSource(AbstractContextManager["MatrixSource"], Protocol):
    """A file (or an AnnData in memory) that holds cells and one or more matrices.

    Attributes
    ----------
    name
        What to call it in messages.
    n_cells
        Number of cells.
    matrices
        Names of its matrices: ``X``, ``layers/NAME``, ``raw``.
    obs_columns
        Names of the columns of its cell annotation.
    species
        What it says of its species as a whole (``uns["species"]``), or None.
    """

    name: str
    n_cells: int
    matrices: tuple[str, ...]
    obs_columns: tuple[str, ...]
    species: str | None

    def obs(self, columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return the named columns of the cell annotation, indexed by cell name."""
        ...

    def var(self, matrix: str) -> pd.DataFrame:
        """Return the gene annotation of a matrix, indexed by gene name."""
        ...

    def matrix(self, name: str) -> Matrix:
        """Return a matrix; raise InputError when it is not there or makes no sense."""
        ...

    def __enter__(self) -> Self: ...
