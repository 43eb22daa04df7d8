"""One input, whatever its format: cells, their annotation, genes, and matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import pandas as pd

from lexicell.data.readers.matrices import Matrix
from lexicell.errors import InputError


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


class Closing:
    """What is closed by a function of its own when its ``with`` block is left."""

    _close: Callable[[], None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def check_shape(where: str, matrix: Matrix, n_cells: int, n_genes: int) -> Matrix:
    """Return a matrix; raise InputError where its shape is not that of the file's lists of cells and genes."""
    if (matrix.n_cells, matrix.n_genes) != (n_cells, n_genes):
        raise InputError(
            f"{where}: is damaged: it has {matrix.n_cells} x {matrix.n_genes} values, but the file lists "
            f"{n_cells} cells and {n_genes} genes."
        )
    return matrix
