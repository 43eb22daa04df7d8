"""Rows for new genes where the old cells are not there: all that a model itself tells of old genes is their mean.

Far weaker than `lexicell.training.species_rows`, which looks at whole profiles: for want of anything better. Genes of
a species that the model knows need no old cell, where the new cells measured old genes as well.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from lexicell.data.cells import CellCollection
from lexicell.gene_space.coupling import FEWEST
from lexicell.neighbors import find_neighbors
from lexicell.randomness import generator
from lexicell.training.gene_rows import cells_of_genes, log_cpm
from lexicell.training.rows_by_coexpression import match_by_coexpression
from lexicell.training.species_rows import NewGeneRows

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def rows_by_mean(
    collection: CellCollection,
    new_cells: Int64,
    old_rows: Float32,
    old_usual: Float32,
    *,
    neighbors: int = 15,
    seed: int = 0,
) -> NewGeneRows:
    """Set each new row to the mean of the old rows whose mean expression has the nearest rank within its species.

    New genes of a known species are placed by co-expression with the old genes that the new cells measured.

    Parameters
    ----------
    collection
        New cells under the grown lexicon, whose first ``len(old_rows)`` genes are the old ones.
    new_cells
        Cells of the collection to look at.
    old_rows, old_usual
        (n_old, width) the trained gene table, and (n_old,) the old genes' mean log(1 + counts per 10,000).
    neighbors
        Old genes that a new row is the mean of.
    seed
        Names which cells are looked at, and the rows of genes that no cell measured.
    """
    lexicon, n_old, width = collection.lexicon, *old_rows.shape
    n_new = len(lexicon) - n_old
    rng = generator(seed, "rows by mean")
    length = np.sqrt((old_rows**2).sum(axis=1).mean() / width)
    rows = (old_rows.mean(axis=0) + 0.1 * length * rng.standard_normal((n_new, width))).astype(np.float32)
    usual, confidence = np.zeros(n_new, np.float32), np.zeros(n_new, np.float32)
    weights = csr_matrix((n_new, n_old), dtype=np.float32)
    known = np.flatnonzero(old_usual > 0)
    owner = lexicon.table["species"].to_numpy()[known]
    place = np.concatenate([_ranks(old_usual[known[owner == name]]) for name in dict.fromkeys(owner)])
    old_genes = np.concatenate([known[owner == name] for name in dict.fromkeys(owner)])
    k = min(neighbors, len(old_genes))
    for species in lexicon.species:
        genes = lexicon.rows_of(species)
        cells = cells_of_genes(collection, new_cells, genes, rng)
        if genes[-1] < n_old or not len(cells):
            continue
        measured = np.unique(np.concatenate([collection.panels[p] for p in np.unique(collection.panel[cells])]))
        expression = log_cpm(collection, cells, measured)
        mean = np.asarray(expression.mean(axis=0)).ravel()
        is_new = measured >= n_old
        own = measured[is_new] - n_old
        usual[own] = mean[is_new]
        shared = np.flatnonzero(~is_new)
        if min(len(shared), len(cells)) >= FEWEST:
            matched = match_by_coexpression(expression, shared, k=neighbors, seed=seed)
            nearest, shares = measured[shared][matched.genes[is_new]], matched.weights[is_new]
            confidence[own] = (shares**2).sum(axis=1)
        else:
            found = find_neighbors(place[:, None], _ranks(mean)[is_new][:, None], k=k, metric="euclidean")
            nearest, shares = old_genes[found.indices], np.full(found.indices.shape, 1 / k, np.float32)
            confidence[own] = 1 / (1 + found.distances.mean(axis=1) * len(place) / k)
        entries = (np.repeat(own, nearest.shape[1]), nearest.ravel())
        weights += csr_matrix((shares.ravel(), entries), shape=(n_new, n_old))
        rows[own] = (weights @ old_rows)[own]
    return NewGeneRows(rows, usual, weights, confidence)


def _ranks(values: npt.NDArray[np.floating]) -> Float32:
    ranks: Float32 = ((rankdata(values) - 0.5) / max(len(values), 1)).astype(np.float32)
    return ranks
