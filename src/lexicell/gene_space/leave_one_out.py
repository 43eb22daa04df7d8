"""Leave-one-out AUROC of gene sets: how well the rest of a set finds each of its members.

A member is held out, the others' unit vectors are summed, and all genes outside the set are ranked beside the member by
cosine with that sum. The member's score is the share of them that it beats; the set's AUROC is the mean over its
members. The held-out member is absent from the sum that ranks the others too, so that small sets are not flattered.

With x the unit vectors, s the sum of a set and i the held-out member, a gene g loses where
``x_g . s - x_g . x_i < x_i . s - x_i . x_i``: what depends on the set (x . s) and what depends on the member (x . x_i)
are products of matrices, made in blocks that bound memory; the comparison itself is compiled.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_NUMBERS = 1 << 26  # float32 numbers of one block of products: 256 MiB
_TIE = 1e-6  # cosines this near count as equal


def unit_rows(points: npt.NDArray[np.floating]) -> Float32:
    """Return the rows scaled to length 1; rows of zeros stay."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    rows: Float32 = (points / np.where(norms > 0, norms, 1)).astype(np.float32)
    return rows


def leave_one_out_auroc(
    points: npt.NDArray[np.floating], members: csr_matrix, bins: Int64 | None = None
) -> tuple[Float64, Float64]:
    """Return each set's AUROC, over all genes and within bins.

    Parameters
    ----------
    points
        (n_genes, width) embedding; compared by cosine.
    members
        (n_sets, n_genes) sparse, true where a gene is in a set.
    bins
        (n_genes,) bin of each gene, such as of mean expression; all one bin when None.

    Returns
    -------
    auroc, matched : ndarray, (n_sets,)
        Mean over the members; `matched` compares a member only with the genes of its own bin, and leaves out
        members whose bin holds no gene outside the set. NaN for sets of fewer than two genes.
    """
    n_sets, n_genes = members.shape
    bins = np.zeros(n_genes, np.int64) if bins is None else np.asarray(bins, np.int64)
    order = np.argsort(bins, kind="stable")  # a bin's genes side by side
    x = unit_rows(points)[order]
    sorted_bins = bins[order]
    edges = [np.searchsorted(sorted_bins, sorted_bins, side=side) for side in ("left", "right")]
    sets = csr_matrix(members, dtype=bool)[:, order]
    sets.sort_indices()
    out = np.full((2, n_sets), np.nan)
    step = max(1, _NUMBERS // n_genes)
    for start in range(0, n_sets, step):
        out[:, start : start + step] = _some_sets(x, sets[start : start + step], *edges)
    return out[0], out[1]


def _some_sets(x: Float32, sets: csr_matrix, bin_start: Int64, bin_stop: Int64) -> Float64:
    n_sets, n_genes = sets.shape
    toward_sum = (sets.astype(np.float32) @ x) @ x.T  # (n_sets, n_genes)
    of_gene = sets.T.tocsr()  # which sets a gene is in
    total, seen = np.zeros((2, n_sets)), np.zeros((2, n_sets))
    indptr, genes = sets.indptr.astype(np.int64), sets.indices.astype(np.int64)
    step = max(1, _NUMBERS // n_genes // 4)
    for start in range(0, n_genes, step):
        stop = min(start + step, n_genes)
        toward_member = x[start:stop] @ x.T
        pointers = of_gene.indptr[start : stop + 1].astype(np.int64)
        holders = of_gene.indices.astype(np.int64)
        _count(toward_sum, toward_member, start, pointers, holders, indptr, genes, bin_start, bin_stop, total, seen)
    total[:, np.diff(indptr) < 2] = np.nan
    with np.errstate(invalid="ignore"):
        means: Float64 = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
    return means


@numba.njit(cache=True, nogil=True)
def _beaten(with_set, with_member, low, high, start, stop):
    """Count the genes start:stop whose score is below the member's, ties as halves (in half genes)."""
    halves = np.int32(0)  # narrow numbers throughout, so that several genes are compared at a time
    for g in range(start, stop):
        score = with_set[g] - with_member[g]
        halves += np.int32(score < low) + np.int32(score <= high)
    return halves


@numba.njit(cache=True, nogil=True)
def _count(toward_sum, toward_member, first, pointers, holders, indptr, genes, bin_start, bin_stop, total, seen):
    """Add the score of every member among some genes to the sets that hold it."""
    n_genes = toward_sum.shape[1]
    for row in range(len(pointers) - 1):
        i = first + row
        with_member = toward_member[row]
        b, e = bin_start[i], bin_stop[i]
        for at in range(pointers[row], pointers[row + 1]):
            one = holders[at]
            with_set = toward_sum[one]
            limit = with_set[i] - with_member[i]
            low, high = np.float32(limit - _TIE), np.float32(limit + _TIE)
            inside = _beaten(with_set, with_member, low, high, b, e)
            both = inside + _beaten(with_set, with_member, low, high, 0, b)
            both += _beaten(with_set, with_member, low, high, e, n_genes)
            others, others_in_bin = n_genes, e - b
            for k in range(indptr[one], indptr[one + 1]):  # take the set's own genes out again
                g = genes[k]
                half = _beaten(with_set, with_member, low, high, g, g + 1)
                both -= half
                others -= 1
                if b <= g < e:
                    inside -= half
                    others_in_bin -= 1
            if others > 0:
                total[0, one] += 0.5 * both / others
                seen[0, one] += 1
            if others_in_bin > 0:
                total[1, one] += 0.5 * inside / others_in_bin
                seen[1, one] += 1
