"""An AnnData in memory (or backed) as a source."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from lexicell.data.readers.matrices import CompressedMatrix, DenseMatrix, Matrix
from lexicell.errors import InputError, listing


class AnnDataSource:
    """Reads an AnnData; see `lexicell.data.readers.source.MatrixSource`."""

    def __init__(self, adata: AnnData, name: str = "AnnData") -> None:
        self.name = name
        self._adata = adata
        self.n_cells = int(adata.n_obs)
        self.obs_columns = tuple(map(str, adata.obs.columns))
        found = ["X"] if adata.X is not None else []
        found += [f"layers/{layer}" for layer in adata.layers]
        found += ["raw"] if adata.raw is not None else []
        self.matrices = tuple(found)
        species = adata.uns.get("species", adata.uns.get("organism"))
        self.species = species if isinstance(species, str) else None

    def obs(self, columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return the named columns of ``obs``, indexed by cell name."""
        table: pd.DataFrame = self._adata.obs[list(columns)].copy()
        return table

    def var(self, matrix: str) -> pd.DataFrame:
        """Return ``var``, or ``raw.var`` for the matrix ``raw``."""
        table: pd.DataFrame = (self._adata.raw.var if matrix == "raw" else self._adata.var).copy()
        return table

    def matrix(self, name: str) -> Matrix:
        """Return ``X``, a layer, or ``raw.X``."""
        if name not in self.matrices:
            raise InputError(f"{self.name}: has no matrix '{name}'; it has {listing(self.matrices, 20)}.")
        if name == "X":
            values = self._adata.X
        else:
            values = self._adata.raw.X if name == "raw" else self._adata.layers[name.removeprefix("layers/")]
        where = f"{self.name}: {name}"
        if hasattr(values, "to_memory"):
            values = values.to_memory()  # the sparse part of a backed AnnData
        if sp.issparse(values):
            matrix = values if values.format in ("csr", "csc") else values.tocsr()
            by_cell = matrix.format == "csr"
            return CompressedMatrix(where, matrix.data, matrix.indices, matrix.indptr, matrix.shape, by_cell=by_cell)
        return DenseMatrix(where, values if hasattr(values, "dtype") else np.asarray(values))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
