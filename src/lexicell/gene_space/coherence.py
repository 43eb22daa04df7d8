"""Is a gene embedding biology? Coherence of gene sets in it, against random sets of alike size and expression."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from lexicell.gene_space.enrichment import neighbour_enrichment
from lexicell.gene_space.leave_one_out import leave_one_out_auroc
from lexicell.gene_space.multiple_testing import benjamini_hochberg, empirical_p
from lexicell.neighbors import find_neighbors

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_SIZES = 12  # classes of set size in which null AUROCs are standardised
_LEAST_NULLS = 20  # in such a class


def expression_bins(level: npt.NDArray[Any], n_bins: int = 10) -> Int64:
    """Return bins of like size, (n_genes,), by a gene's expression level; genes of one level may be parted."""
    place = np.argsort(np.argsort(level, kind="stable"), kind="stable")
    bins: Int64 = (place * n_bins // max(len(level), 1)).astype(np.int64)
    return bins


def matched_random_sets(members: csr_matrix, bins: Int64, rng: np.random.Generator) -> csr_matrix:
    """Return one random set for each set, with as many genes from every bin."""
    sets = csr_matrix(members, dtype=bool)
    genes_of = [np.flatnonzero(bins == b) for b in range(int(bins.max(initial=0)) + 1)]
    drawn = []
    for s in range(sets.shape[0]):
        wanted = np.bincount(bins[sets.indices[sets.indptr[s] : sets.indptr[s + 1]]], minlength=len(genes_of))
        parts = [
            genes_of[b][rng.choice(len(genes_of[b]), size=wanted[b], replace=False, shuffle=False)]
            for b in np.flatnonzero(wanted)
        ]
        drawn.append(np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64))
    indptr = np.concatenate([[0], np.cumsum([len(genes) for genes in drawn])])
    indices = np.concatenate(drawn) if drawn else np.zeros(0, np.int64)
    return csr_matrix((np.ones(len(indices), bool), indices, indptr), shape=sets.shape)


def set_coherence(
    points: npt.NDArray[np.floating],
    members: csr_matrix,
    bins: Int64,
    rng: np.random.Generator,
    *,
    nulls: int = 2,
    k: int = 10,
) -> pd.DataFrame:
    """Score every gene set in an embedding.

    Parameters
    ----------
    points
        (n_genes, width) embedding; compared by cosine.
    members
        (n_sets, n_genes) sparse, true where a gene is in a set.
    bins
        (n_genes,) bin of each gene's expression, from `expression_bins`.
    rng
        Draws the random sets.
    nulls
        Random sets for each set, with as many genes from each expression bin. Those of all sets are pooled for
        the p-values, after the matched AUROC was standardised among sets of like size.
    k
        Neighbours for the enrichment.

    Returns
    -------
    DataFrame
        One row a set: n_genes; auroc and auroc_matched (within expression bins; see `leave_one_out_auroc`);
        null_auroc and null_matched (mean of its random sets); p and fdr of auroc_matched; and, with the prefix
        ``nn_``, the columns of `neighbour_enrichment`.
    """
    n_sets = members.shape[0]
    random = [matched_random_sets(members, bins, rng) for _ in range(nulls)]
    auroc, matched = leave_one_out_auroc(points, vstack([csr_matrix(members, dtype=bool), *random], format="csr"), bins)
    sizes = np.diff(csr_matrix(members).indptr)
    table = pd.DataFrame({"n_genes": sizes, "auroc": auroc[:n_sets], "auroc_matched": matched[:n_sets]})
    if nulls:
        null_auroc, null_matched = (v[n_sets:].reshape(nulls, n_sets) for v in (auroc, matched))
        table["null_auroc"], table["null_matched"] = null_auroc.mean(axis=0), null_matched.mean(axis=0)
        z, null_z = _standardised(matched[:n_sets], null_matched, sizes)
        table["p"] = empirical_p(z, null_z.ravel())
        table["fdr"] = benjamini_hochberg(table["p"].to_numpy())
    found = find_neighbors(points, k=min(k, len(points) - 1))
    return pd.concat([table, neighbour_enrichment(found.indices, members, bins).add_prefix("nn_")], axis=1)


def _standardised(values: Float64, null: Float64, sizes: Int64) -> tuple[Float64, Float64]:
    """Subtract the mean and divide by the standard deviation of the null values of sets of like size."""
    classes = max(1, min(_SIZES, null.size // _LEAST_NULLS))
    group = expression_bins(sizes, classes)
    z, null_z = np.full(values.shape, np.nan), np.full(null.shape, np.nan)
    for g in range(classes):
        own = group == g
        centre, spread = np.nanmean(null[:, own]), max(float(np.nanstd(null[:, own])), 1e-9)
        z[own], null_z[:, own] = (values[own] - centre) / spread, (null[:, own] - centre) / spread
    return z, null_z
