"""A source whose parts were read beforehand: for formats with little cell annotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from lexicell.data.readers.matrices import Matrix
from lexicell.data.readers.source import Closing, check_shape
from lexicell.errors import InputError, listing


class PlainSource(Closing):
    """Cells, genes and matrices; see `lexicell.data.readers.source.MatrixSource`.

    Parameters
    ----------
    name
        What to call it in messages.
    obs
        Cell annotation, indexed by cell name.
    var
        Gene annotation, indexed by gene name, for all matrices.
    matrices
        Makes each matrix when it is asked for.
    close
        Called when the source is left.
    """

    def __init__(
        self,
        name: str,
        obs: pd.DataFrame,
        var: pd.DataFrame,
        matrices: Mapping[str, Callable[[], Matrix]],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.n_cells = len(obs)
        self.matrices = tuple(matrices)
        self.obs_columns = tuple(map(str, obs.columns))
        self.species: str | None = None
        self._obs = obs
        self._var = var
        self._matrices = matrices
        self._close = close

    def obs(self, columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return the named columns of the cell annotation, indexed by cell name."""
        return self._obs[list(columns)].copy()

    def var(self, matrix: str) -> pd.DataFrame:
        """Return the gene annotation, indexed by gene name."""
        return self._var.copy()

    def matrix(self, name: str) -> Matrix:
        """Return a matrix."""
        if name not in self._matrices:
            raise InputError(f"{self.name}: has no matrix '{name}'; it has {listing(self.matrices, 20)}.")
        return check_shape(f"{self.name}: {name}", self._matrices[name](), self.n_cells, len(self._var))
