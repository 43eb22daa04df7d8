"""Count matrices as files hold them, read by blocks of cells whatever their layout.

Design choices
- A matrix works on anything that slices like an array: h5py data sets, zarr arrays, numpy arrays. The file
  formats differ only in where these lie.
- Reading is by blocks of whole cells of a bounded number of entries, so memory is bounded too.
- Matrices that lie gene by gene (CSC, loom) give their entries in file order; `lexicell.data.readers.bands`
  turns them round on disk.
- A matrix is checked for sense when it is made, and its indices whenever a block is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lexicell.data.counts import RawRows
from lexicell.errors import InputError

BLOCK_ENTRIES = 1 << 22  # entries read in one go: about 32 MB of float32 values and int32 indices
_WINDOWS = 16


class ArrayLike(Protocol):
    """What is asked of an array on disk or in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of a matrix by coordinates: cells, genes and values, each (n,)."""

    cells: npt.NDArray[np.integer[Any]]
    genes: npt.NDArray[np.integer[Any]]
    values: npt.NDArray[Any]


class Matrix(Protocol):
    """A matrix of n_cells x n_genes.

    `n_entries` is the number of stored values (of all values in a dense matrix); `by_cell` says whether the
    rows of a block of cells can be read at once.
    """

    where: str
    n_cells: int
    n_genes: int

    @property
    def n_entries(self) -> int: ...  # noqa: D102

    @property
    def by_cell(self) -> bool: ...  # noqa: D102

    def sample(self, limit: int) -> Entries:
        """Return up to about `limit` entries from places all over the matrix."""
        ...

    def edges(self, limit: int = BLOCK_ENTRIES) -> npt.NDArray[np.int64]:
        """Return edges that cut the cells into blocks of about `limit` entries."""
        ...

    def read(self, start: int, stop: int) -> RawRows:
        """Return the cells ``start:stop``; needs `by_cell`."""
        ...

    def entries(self) -> Iterator[Entries]:
        """Return all entries in file order, in pieces."""
        ...


class CompressedMatrix:
    """A CSR or CSC matrix.

    Parameters
    ----------
    where
        File and matrix, for messages.
    data, indices, indptr
        The three arrays.
    shape
        (n_cells, n_genes).
    by_cell
        True for CSR (cells follow each other), False for CSC.

    Raises
    ------
    InputError
        When the arrays cannot be a matrix of that shape.
    """

    def __init__(
        self,
        where: str,
        data: ArrayLike,
        indices: ArrayLike,
        indptr: ArrayLike,
        shape: tuple[int, int],
        *,
        by_cell: bool = True,
    ) -> None:
        self.where = where
        self.n_cells, self.n_genes = shape
        self.by_cell = by_cell
        self._data = data
        self._indices = indices
        self._indptr = _checked_indptr(where, data, indices, indptr, shape[0] if by_cell else shape[1])

    @property
    def n_entries(self) -> int:
        """Number of stored values."""
        return int(self._indptr[-1])

    def sample(self, limit: int) -> Entries:
        """Return up to about `limit` stored entries from places all over the matrix."""
        pieces = [self._piece(start, stop) for start, stop in _windows(self.n_entries, limit)]
        return _join(pieces)

    def edges(self, limit: int = BLOCK_ENTRIES) -> npt.NDArray[np.int64]:
        """Return edges that cut the cells into blocks of at most `limit` entries, or of one cell."""
        return cut(self._indptr, limit)

    def read(self, start: int, stop: int) -> RawRows:
        """Return the cells ``start:stop``."""
        begin, end = int(self._indptr[start]), int(self._indptr[stop])
        genes = np.asarray(self._indices[begin:end])
        self._check_indices(genes)
        return RawRows(np.asarray(self._data[begin:end]), genes, self._indptr[start : stop + 1] - begin)

    def entries(self) -> Iterator[Entries]:
        """Return all entries in file order, in pieces."""
        for start in range(0, self.n_entries, BLOCK_ENTRIES):
            yield self._piece(start, min(start + BLOCK_ENTRIES, self.n_entries))

    def _piece(self, start: int, stop: int) -> Entries:
        minor = np.asarray(self._indices[start:stop])
        self._check_indices(minor)
        first, last = np.searchsorted(self._indptr, [start, stop - 1], side="right") - 1
        edges = self._indptr[first : last + 2].clip(start, stop)
        major = np.repeat(np.arange(first, last + 1, dtype=np.int32), np.diff(edges))
        minor = minor.astype(np.int32, copy=False)
        cells, genes = (major, minor) if self.by_cell else (minor, major)
        return Entries(cells, genes, np.asarray(self._data[start:stop]))

    def _check_indices(self, indices: npt.NDArray[np.integer[Any]]) -> None:
        size, axis = (self.n_genes, "genes") if self.by_cell else (self.n_cells, "cells")
        if len(indices) and (indices.min() < 0 or indices.max() >= size):
            worst = indices.min() if indices.min() < 0 else indices.max()
            raise InputError(f"{self.where}: is damaged: an index is {worst}, but there are {size} {axis}.")


class DenseMatrix:
    """A dense matrix, cells in rows, or in columns when `by_cell` is False and `transposed` is True.

    Parameters
    ----------
    where
        File and matrix, for messages.
    array
        (n_cells, n_genes), or (n_genes, n_cells) when `transposed`.
    transposed
        Genes lie in rows.
    """

    def __init__(self, where: str, array: ArrayLike, *, transposed: bool = False) -> None:
        if len(array.shape) != 2:
            raise InputError(f"{where}: expected a matrix, found an array of shape {tuple(array.shape)}.")
        self.where = where
        self._array = array
        self._transposed = transposed
        self.n_cells, self.n_genes = array.shape[::-1] if transposed else array.shape
        # Reading some columns of an array whose chunks hold whole rows would unpack it all for every block.
        chunks = getattr(array, "chunks", None)
        self.by_cell = not (transposed and chunks is not None and chunks[1] > 4 * self._block_cells())

    @property
    def n_entries(self) -> int:
        """Number of values, zeros included."""
        return self.n_cells * self.n_genes

    def sample(self, limit: int) -> Entries:
        """Return up to about `limit` entries that are not zero, from places all over the matrix."""
        cells = max(1, limit // max(self.n_genes, 1))
        pieces = [self._nonzero(self._cells(a, b), a) for a, b in _windows(self.n_cells, cells)]
        return _join(pieces)

    def edges(self, limit: int = BLOCK_ENTRIES) -> npt.NDArray[np.int64]:
        """Return edges that cut the cells into blocks of at most `limit` values, or of one cell."""
        step = max(1, limit // max(self.n_genes, 1))
        return np.append(np.arange(0, self.n_cells, step), self.n_cells).astype(np.int64)

    def read(self, start: int, stop: int) -> RawRows:
        """Return the cells ``start:stop``."""
        block = self._cells(start, stop)
        present = block != 0
        edges = np.concatenate([[0], np.cumsum(present.sum(axis=1, dtype=np.int64))])
        return RawRows(block[present], np.nonzero(present)[1], edges)

    def entries(self) -> Iterator[Entries]:
        """Return the entries that are not zero, in file order, in pieces."""
        if not self._transposed:
            edges = self.edges()
            for start, stop in pairwise(edges):
                yield self._nonzero(self._cells(int(start), int(stop)), int(start))
            return
        step = max(1, BLOCK_ENTRIES // max(self.n_cells, 1))
        for start in range(0, self.n_genes, step):
            block = np.asarray(self._array[start : start + step])
            genes, cells = np.nonzero(block)
            yield Entries(cells, genes + start, block[genes, cells])

    def _block_cells(self) -> int:
        return max(1, BLOCK_ENTRIES // max(self.n_genes, 1))

    def _cells(self, start: int, stop: int) -> npt.NDArray[Any]:
        block = self._array[:, start:stop] if self._transposed else self._array[start:stop]
        array = np.asarray(block)
        return np.ascontiguousarray(array.T) if self._transposed else array

    def _nonzero(self, block: npt.NDArray[Any], start: int) -> Entries:
        cells, genes = np.nonzero(block)
        return Entries(cells + start, genes, block[cells, genes])


def cut(indptr: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    """Return edges of blocks of rows that hold at most `limit` entries each, or one row."""
    n_rows = len(indptr) - 1
    edges = [0]
    while edges[-1] < n_rows:
        reach = int(np.searchsorted(indptr, indptr[edges[-1]] + limit, side="right")) - 1
        # Empty rows cost memory too: a block of nothing but them is cut as well.
        edges.append(min(max(reach, edges[-1] + 1), edges[-1] + limit, n_rows))
    return np.array(edges, dtype=np.int64)


def _checked_indptr(
    where: str, data: ArrayLike, indices: ArrayLike, indptr: ArrayLike, n_major: int
) -> npt.NDArray[np.int64]:
    arrays = {"data": data, "indices": indices, "indptr": indptr}
    for name, array in arrays.items():
        if len(array.shape) != 1:
            raise InputError(f"{where}: is damaged: '{name}' has the shape {tuple(array.shape)}, not one dimension.")
    for name in ("indices", "indptr"):
        if arrays[name].dtype.kind not in "iu":
            raise InputError(f"{where}: is damaged: '{name}' holds {arrays[name].dtype}, expected whole numbers.")
    if indptr.shape[0] != n_major + 1:
        raise InputError(f"{where}: is damaged: 'indptr' has {indptr.shape[0]} entries, expected {n_major + 1}.")
    edges = np.asarray(indptr[:]).astype(np.int64)
    if edges[0] != 0 or (np.diff(edges) < 0).any():
        raise InputError(f"{where}: is damaged: 'indptr' does not rise from 0.")
    if data.shape[0] != indices.shape[0] or edges[-1] != data.shape[0]:
        raise InputError(
            f"{where}: is damaged: {data.shape[0]} values and {indices.shape[0]} indices, "
            f"but 'indptr' ends at {edges[-1]}."
        )
    return edges


def _windows(total: int, limit: int) -> list[tuple[int, int]]:
    """Return up to `_WINDOWS` stretches of ``range(total)``, spread evenly, of `limit` in all."""
    if total <= limit:
        return [(0, total)] if total else []
    width = max(1, limit // _WINDOWS)
    starts = np.unique(np.linspace(0, total - width, min(_WINDOWS, limit)).astype(np.int64))
    return [(int(start), int(start) + width) for start in starts]


def _join(pieces: list[Entries]) -> Entries:
    if not pieces:
        nothing = np.empty(0, dtype=np.int64)
        return Entries(nothing, nothing, nothing)
    return Entries(*(np.concatenate([getattr(p, key) for p in pieces]) for key in ("cells", "genes", "values")))
