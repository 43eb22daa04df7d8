"""Nearest-neighbour enrichment of gene sets, with exact tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.stats import hypergeom

from lexicell.gene_space.multiple_testing import benjamini_hochberg
from lexicell.randomness import generator

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def neighbour_enrichment(
    neighbours: Int64, members: csr_matrix, bins: Int64 | None = None, seed: int = 0
) -> pd.DataFrame:
    """Test whether the neighbours of a set's genes are in the set more often than by chance.

    Half of a set's genes, drawn at random, point: a gene outside that half is *near* when it is among the k nearest
    of one of them. The other half are sought. Where the set is any draw of genes, the sought ones are a draw from all
    genes that do not point, whatever points and however often neighbours are mutual: how many of them are near
    follows the hypergeometric distribution exactly.

    Parameters
    ----------
    neighbours
        (n_genes, k) indices of each gene's nearest genes, itself not among them.
    members
        (n_sets, n_genes) sparse, true where a gene is in a set.
    bins
        (n_genes,) bin of each gene, such as of mean expression. With them `expected_matched`, `fold_matched`,
        `p_matched` and `fdr_matched` are those of draws within bins: the sum of one hypergeometric a bin.
    seed
        Draws the halves.

    Returns
    -------
    DataFrame
        One row a set: near (genes), found (sought genes that are near), expected, fold, p, fdr (Benjamini-Hochberg),
        and the matched ones.
    """
    n_sets, n_genes = members.shape
    sets = csr_matrix(members, dtype=np.int32)
    sets.sort_indices()
    row = np.repeat(np.arange(n_sets), np.diff(sets.indptr))
    shuffled = np.lexsort((generator(seed, "pointing halves").random(sets.nnz), row))
    place = np.empty(sets.nnz, np.int64)
    place[shuffled] = np.arange(sets.nnz) - sets.indptr[row]
    pointing, sought = sets.copy(), sets.copy()
    pointing.data, sought.data = (place % 2 == 0).astype(np.int32), (place % 2 == 1).astype(np.int32)
    rows = np.repeat(np.arange(n_genes), neighbours.shape[1])
    graph = csr_matrix((np.ones(neighbours.size, np.int32), (rows, neighbours.ravel())), shape=(n_genes, n_genes))
    near = csr_matrix(pointing @ graph > 0, dtype=np.int32)
    near = near - near.multiply(pointing)
    n_near, n_sought, n_pointing = (np.asarray(m.sum(axis=1)).ravel() for m in (near, sought, pointing))
    hits = np.asarray(near.multiply(sought).sum(axis=1)).ravel()
    expected = n_near * n_sought / np.maximum(n_genes - n_pointing, 1)
    table = pd.DataFrame({"near": n_near, "found": hits, "expected": expected, "fold": _fold(hits, expected)})
    table["p"] = hypergeom.sf(hits - 1, n_genes - n_pointing, n_sought, n_near)
    table["fdr"] = benjamini_hochberg(table["p"].to_numpy())
    if bins is not None:
        in_bin = csr_matrix((np.ones(n_genes, np.int32), (np.arange(n_genes), bins)))
        near_b, sought_b, pointing_b = (np.asarray((m @ in_bin).todense()) for m in (near, sought, pointing))
        size = np.bincount(bins, minlength=in_bin.shape[1]) - pointing_b
        matched = (near_b * sought_b / np.maximum(size, 1)).sum(axis=1)
        table["expected_matched"], table["fold_matched"] = matched, _fold(hits, matched)
        p = [stratified_tail(int(hits[s]), size[s], sought_b[s], near_b[s]) for s in range(n_sets)]
        table["p_matched"] = np.asarray(p, dtype=np.float64)
        table["fdr_matched"] = benjamini_hochberg(table["p_matched"].to_numpy())
    return table


def stratified_tail(hits: int, size: Int64, members: Int64, drawn: Int64) -> float:
    """Return P(at least `hits` members are drawn), drawing without replacement from every stratum apart.

    Parameters
    ----------
    hits
        Members drawn, of all strata together.
    size, members, drawn
        (n_strata,) items, members among them, and items drawn.
    """
    total = np.ones(1)
    for n, m, k in zip(size, members, drawn, strict=True):
        if m and k:
            total = np.convolve(total, hypergeom.pmf(np.arange(min(m, k) + 1), n, m, k))
    return float(min(1.0, total[hits:].sum())) if hits > 0 else 1.0


def _fold(hits: Int64, expected: Float64) -> Float64:
    return np.where(expected > 0, hits / np.where(expected > 0, expected, 1), np.nan)
