"""Raw counts on their way into a store: refuse what is not a count, bring rows into the store's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from lexicell.data.store_format import MAX_COUNT


@dataclass(frozen=True, eq=False)
class RawRows:
    """Some cells as a file holds them, CSR.

    Attributes
    ----------
    data
        (nnz,) values of any type.
    genes
        (nnz,) columns of the file, each inside it.
    indptr
        (n + 1,) edges of the rows, rising from 0 to nnz.
    """

    data: npt.NDArray[Any]
    genes: npt.NDArray[np.integer[Any]]
    indptr: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """Some cells in the store's form: genes ascending within a cell, each once, no zeros.

    Attributes
    ----------
    lengths
        (n,) int64, entries of each cell.
    genes
        (nnz,) int32, store-local gene indices.
    counts
        (nnz,) int32.
    depths
        (n,) int64, sum of the counts of each cell.
    """

    lengths: npt.NDArray[np.int64]
    genes: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    depths: npt.NDArray[np.int64]


class NotCountsError(ValueError):
    """A value that is not a raw count.

    Attributes
    ----------
    position
        Its place in the array that was looked at.
    kind
        What is wrong with it, in words.
    value
        The value itself.
    """

    def __init__(self, position: int, kind: str, value: object) -> None:
        super().__init__(f"{kind} value {value} at position {position}")
        self.position = position
        self.kind = kind
        self.value = value


def integers_of(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return raw counts as int32.

    Parameters
    ----------
    values
        (n,) numbers of any type.

    Raises
    ------
    NotCountsError
        When a value is negative, fractional, NaN, infinite or above 2**31 - 1, or the array holds no numbers.
    """
    if values.dtype.kind not in "buif":
        raise NotCountsError(0, "not a number:", repr(values.flat[0]) if values.size else values.dtype)
    if values.size == 0:
        return np.empty(0, dtype=np.int32)
    with np.errstate(invalid="ignore", over="ignore"):
        counts = values.astype(np.int32)
        sound = bool(counts.min() >= 0) and float(values.max()) <= MAX_COUNT
        if values.dtype.kind == "f":
            # The way back is exact for every count that a float of this width can hold.
            sound = sound and np.array_equal(counts.astype(values.dtype), values)
    if not sound:
        raise _first_fault(values)
    return counts


def _first_fault(values: npt.NDArray[Any]) -> NotCountsError:
    with np.errstate(invalid="ignore"):
        # 2**31 is exact in every float type, 2**31 - 1 is not.
        wrong = ~((values >= 0) & (values < MAX_COUNT + 1))
        if values.dtype.kind == "f":
            wrong |= np.floor(values) != values
    position = int(np.flatnonzero(wrong)[0])
    value = values[position]
    if np.isnan(value):
        kind = "NaN"
    elif np.isinf(value):
        kind = "infinite"
    elif value < 0:
        kind = "negative"
    elif value >= MAX_COUNT + 1:
        kind = "impossibly large"
    else:
        kind = "fractional"
    return NotCountsError(position, kind, value)


def block_of(matrix: RawRows, gene_map: npt.NDArray[np.int32], n_genes: int) -> Block:
    """Bring rows of a file into the store's form.

    Parameters
    ----------
    matrix
        (n, n_file_genes) any numeric type; genes of a row in any order, repeats allowed.
    gene_map
        (n_file_genes,) store-local index of each gene of the file, -1 for genes to leave out. Those that
        share an index are summed.
    n_genes
        Number of genes of the store.

    Raises
    ------
    NotCountsError
        Where an entry, or a sum of repeated ones, is not a raw count.
    """
    counts = integers_of(matrix.data)
    genes = gene_map[matrix.genes]
    edges = matrix.indptr
    keep = (genes >= 0) & (counts > 0)
    if not keep.all():
        kept = np.zeros(len(keep) + 1, dtype=np.int64)
        np.cumsum(keep, out=kept[1:])
        edges = kept[edges]
        genes, counts = genes[keep], counts[keep]
    rising = genes[1:] > genes[:-1]
    inner = edges[1:-1]
    rising[inner[(inner > 0) & (inner < len(genes))] - 1] = True
    if not rising.all():
        return _sorted_block(counts, genes, edges, n_genes)
    return _block(np.diff(edges), genes, counts)


def _sorted_block(
    counts: npt.NDArray[np.int32], genes: npt.NDArray[np.int32], edges: npt.NDArray[np.int64], n_genes: int
) -> Block:
    matrix = sp.csr_matrix((counts.astype(np.int64), genes, edges), shape=(len(edges) - 1, n_genes))
    # Transposing twice is a counting sort: several times faster than sorting row by row.
    matrix = matrix.tocsc().tocsr()
    matrix.sum_duplicates()
    lengths = np.diff(matrix.indptr).astype(np.int64)
    return _block(lengths, matrix.indices.astype(np.int32), integers_of(matrix.data))


def _block(lengths: npt.NDArray[np.int64], genes: npt.NDArray[np.int32], counts: npt.NDArray[np.int32]) -> Block:
    return Block(lengths, genes, counts, _row_sums(counts, lengths))


def _row_sums(counts: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    sums = np.zeros(len(lengths), dtype=np.int64)
    filled = lengths > 0
    if filled.any():
        # reduceat gives an empty stretch its first entry, so empty cells are left out.
        starts = (np.cumsum(lengths) - lengths)[filled]
        sums[filled] = np.add.reduceat(counts, starts, dtype=np.int64)
    return sums
