"""A dense matrix of genes by cells in chunks, as HDF5 holds it: read chunk by chunk, never one chunk twice.

A block of cells is as wide as a chunk, and is gathered slab of genes by slab of genes, so that only its counts are
in memory and not its zeros. Where a chunk holds too many cells for that, the matrix gives its entries in file order
and is turned round on disk by `lexicell.data.readers.bands`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lexicell.data.counts import RawRows
from lexicell.data.readers.bands import rows_of
from lexicell.data.readers.matrices import BLOCK_ENTRIES, ArrayLike, Entries
from lexicell.errors import InputError

_MAX_WIDTH = 4096  # cells whose counts fit in memory, with what it takes to sort them
_WINDOWS = 16


class GeneMajorMatrix:
    """A dense matrix of genes by cells; see `lexicell.data.readers.matrices.Matrix`.

    Parameters
    ----------
    where
        File and matrix, for messages.
    array
        (n_genes, n_cells).
    """

    def __init__(self, where: str, array: ArrayLike) -> None:
        if len(array.shape) != 2:
            raise InputError(f"{where}: expected a matrix, found an array of shape {tuple(array.shape)}.")
        self.where = where
        self._array = array
        self.n_genes, self.n_cells = array.shape
        chunks: tuple[int, int] = getattr(array, "chunks", None) or (1, max(self.n_cells, 1))
        self._chunk = chunks
        self.by_cell = chunks[1] <= _MAX_WIDTH

    @property
    def n_entries(self) -> int:
        """Number of values, zeros included."""
        return self.n_cells * self.n_genes

    def sample(self, limit: int) -> Entries:
        """Return up to about `limit` entries that are not zero, from places all over the matrix."""
        rows, columns = (-(-size // chunk) for size, chunk in zip(self._array.shape, self._chunk, strict=True))
        room = max(1, limit // max(1, min(_WINDOWS, rows * columns)))
        width = min(self._chunk[1], room)
        height = max(1, min(self._chunk[0], room // width))
        n_windows = min(rows * columns, max(_WINDOWS, limit // (height * width)))
        pieces = []
        for window in range(n_windows):
            row, column = divmod(window * rows * columns // n_windows, columns)
            gene, cell = row * self._chunk[0], column * self._chunk[1]
            pieces.append(self._nonzero(gene, gene + height, cell, cell + width))
        return _joined(pieces)

    def edges(self, limit: int = BLOCK_ENTRIES) -> npt.NDArray[np.int64]:
        """Return edges that cut the cells into blocks of whole chunks."""
        chunks = max(1, limit // max(self.n_genes * self._chunk[1], 1))
        return np.append(np.arange(0, self.n_cells, chunks * self._chunk[1]), self.n_cells).astype(np.int64)

    def read(self, start: int, stop: int) -> RawRows:
        """Return the cells ``start:stop``."""
        found = _joined([self._nonzero(a, b, start, stop) for a, b in self._slabs(stop - start)])
        return rows_of([Entries(found.cells - start, found.genes.astype(np.int32), found.values)], stop - start)

    def entries(self) -> Iterator[Entries]:
        """Return the entries that are not zero, in file order, in pieces."""
        for start, stop in self._slabs(self.n_cells):
            yield self._nonzero(start, stop, 0, self.n_cells)

    def _slabs(self, width: int) -> Iterator[tuple[int, int]]:
        """Cut the genes into slabs of whole chunks that hold about `BLOCK_ENTRIES` values of `width` cells."""
        height = max(1, BLOCK_ENTRIES // max(width * self._chunk[0], 1)) * self._chunk[0]
        return pairwise([*range(0, self.n_genes, height), self.n_genes])

    def _nonzero(self, gene: int, gene_stop: int, cell: int, cell_stop: int) -> Entries:
        block = np.asarray(self._array[gene:gene_stop, cell:cell_stop])
        genes, cells = np.nonzero(block)
        values = block[genes, cells]
        return Entries((cells + cell).astype(np.int32), (genes + gene).astype(np.int32), values)


def _joined(pieces: list[Entries]) -> Entries:
    if not pieces:
        nothing = np.empty(0, dtype=np.int64)
        return Entries(nothing, nothing, nothing)
    return Entries(*(np.concatenate([getattr(p, key) for p in pieces]) for key in ("cells", "genes", "values")))
