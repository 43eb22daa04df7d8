"""The loader's innermost step: rows of a CSR matrix found and copied out, in any order."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt


@numba.njit(cache=True, nogil=True)
def _find(rows, indptr, n_entries, starts, offsets):  # type: ignore[no-untyped-def]
    offsets[0] = 0
    for i in range(len(rows)):
        start, stop = indptr[rows[i]], indptr[rows[i] + 1]
        if start < 0 or stop < start or stop > n_entries:
            return False
        starts[i] = start
        offsets[i + 1] = offsets[i] + stop - start
    return True


# Unsigned positions spare numba the handling of negative ones, which keeps the inner loops vectorised:
# twice as fast as copying slices.


@numba.njit(cache=True, nogil=True)
def _copy_rows(starts, offsets, genes, counts, out_genes, out_counts):  # type: ignore[no-untyped-def]
    for row in range(starts.shape[0]):
        source = np.uint64(starts[row])
        target = np.uint64(offsets[row])
        length = np.uint64(offsets[row + 1] - offsets[row])
        for k in range(length):
            out_genes[target + k] = genes[source + k]
        for k in range(length):
            out_counts[target + k] = counts[source + k]


@numba.njit(cache=True, nogil=True)
def _copy_mapped_rows(starts, offsets, genes, counts, gene_map, out_genes, out_counts):  # type: ignore[no-untyped-def]
    for row in range(starts.shape[0]):
        source = np.uint64(starts[row])
        target = np.uint64(offsets[row])
        length = np.uint64(offsets[row + 1] - offsets[row])
        for k in range(length):
            out_genes[target + k] = gene_map[genes[source + k]]
        for k in range(length):
            out_counts[target + k] = counts[source + k]


def find_rows(
    rows: npt.NDArray[np.int64], indptr: npt.NDArray[np.int64], n_entries: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Return where the entries of some rows begin, here and (n + 1,) when they follow each other.

    Parameters
    ----------
    rows
        (n,) rows. The caller has checked that they are there.
    indptr
        (n_rows + 1,) edges of all rows.
    n_entries
        Number of entries of the matrix; None is returned where `indptr` leads a row outside of them.
    """
    starts, offsets = np.empty(len(rows), np.int64), np.empty(len(rows) + 1, np.int64)
    return (starts, offsets) if _find(rows, indptr, n_entries, starts, offsets) else None


def gather_rows(
    starts: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    genes: npt.NDArray[np.unsignedinteger],
    counts: npt.NDArray[np.uint16],
    gene_map: npt.NDArray[np.int32] | None = None,
    count_dtype: npt.DTypeLike = np.int32,
) -> tuple[npt.NDArray[np.integer], npt.NDArray[Any]]:
    """Copy stretches of `genes` and `counts` one behind the other.

    Parameters
    ----------
    starts
        (n,) where each stretch begins. The caller has checked that every stretch lies inside the arrays.
    offsets
        (n + 1,) where each stretch begins in the result, rising from 0.
    genes, counts
        (nnz,) the matrix's entries.
    gene_map
        (n_genes,) what each gene becomes on the way; None leaves them as they are.
    count_dtype
        Type of the counts that are returned.

    Returns
    -------
    genes, counts
        (offsets[-1],) each.
    """
    out_genes = np.empty(int(offsets[-1]), dtype=genes.dtype if gene_map is None else gene_map.dtype)
    out_counts = np.empty(int(offsets[-1]), dtype=count_dtype)
    if gene_map is None:
        _copy_rows(starts, offsets, genes, counts, out_genes, out_counts)
    else:
        _copy_mapped_rows(starts, offsets, genes, counts, gene_map, out_genes, out_counts)
    return out_genes, out_counts
