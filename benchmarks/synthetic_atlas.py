"""A made-up atlas of any size as h5ad, written in pieces: what the benchmarks of prepare and of the loader read.

Genes differ in how often they are expressed as real ones do (log-normal), cells lie sorted by type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

_CELLS_AT_ONCE = 512


@dataclass(frozen=True)
class Atlas:
    """How large an atlas is, and how it lies in its file."""

    cells: int
    genes: int = 30_000
    genes_per_cell: int = 3000
    types: int = 50
    layout: str = "csr"
    compression: str | None = None
    seed: int = 0


def write_atlas(path: Path, atlas: Atlas) -> int:
    """Write an atlas and return its number of stored counts; CSC is made in memory."""
    type_of = np.arange(atlas.cells) * atlas.types // atlas.cells
    donors = pd.Categorical([f"donor{cell % 4}" for cell in range(atlas.cells)])
    obs = pd.DataFrame(
        {"type": pd.Categorical([f"type{code:03d}" for code in type_of]), "donor": donors},
        index=[f"cell{cell}" for cell in range(atlas.cells)],
    )
    var = pd.DataFrame(index=[f"ENSMUSG{gene:011d}" for gene in range(atlas.genes)])
    anndata.AnnData(obs=obs, var=var).write_h5ad(path)
    with h5py.File(path, "a") as file:
        group = file.create_group("X")
        group.attrs.update(
            {
                "encoding-type": f"{atlas.layout}_matrix",
                "encoding-version": "0.1.0",
                "shape": np.array([atlas.cells, atlas.genes]),
            }
        )
        pieces = _pieces(atlas, type_of)
        if atlas.layout == "csc":
            whole = sp.vstack(list(pieces), format="csr").tocsc()
            whole.sort_indices()
            pieces = iter([whole])
        return _append(group, pieces, atlas)


def _pieces(atlas: Atlas, type_of: np.ndarray) -> Iterator[sp.csr_matrix]:
    """Draw the cells, some at a time."""
    rng = np.random.default_rng(atlas.seed)
    usual = rng.lognormal(sigma=1.6, size=atlas.genes)
    by_type = usual * rng.lognormal(sigma=0.5, size=(atlas.types, atlas.genes))
    chance = np.clip(by_type * (atlas.genes_per_cell / by_type.sum(axis=1, keepdims=True)), 0, 0.95)
    for _ in range(8):  # what the clipping took away
        chance = np.clip(chance * (atlas.genes_per_cell / chance.sum(axis=1, keepdims=True)), 0, 0.95)
    chance = chance.astype(np.float32)
    for start in range(0, atlas.cells, _CELLS_AT_ONCE):
        types = type_of[start : start + _CELLS_AT_ONCE]
        expressed = rng.random((len(types), atlas.genes), dtype=np.float32) < chance[types]
        cells, genes = np.nonzero(expressed)
        counts = rng.geometric(0.6, len(genes)).astype(np.float32)
        edges = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=len(types)))])
        yield sp.csr_matrix((counts, genes.astype(np.int32), edges), shape=expressed.shape)


def _append(group: h5py.Group, pieces: Iterator[sp.csr_matrix | sp.csc_matrix], atlas: Atlas) -> int:
    options = {"maxshape": (None,), "chunks": (1 << 16,), "compression": atlas.compression}
    data = group.create_dataset("data", (0,), np.float32, **options)
    indices = group.create_dataset("indices", (0,), np.int32, **options)
    edges = [np.zeros(1, np.int64)]
    for piece in pieces:
        start, stop = len(data), len(data) + piece.nnz
        for array, values in ((data, piece.data), (indices, piece.indices)):
            array.resize((stop,))
            array[start:stop] = values
        edges.append(start + piece.indptr[1:].astype(np.int64))
    group.create_dataset("indptr", data=np.concatenate(edges))
    return len(data)
