"""Turning a gene-by-gene matrix round on disk, in bounded memory.

The entries are read once, in file order, and dealt to bands of neighbouring cells, one scratch file a band. A
band then fits in memory and is sorted by cell when it is read. So each entry is written once and read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from lexicell.data.counts import RawRows
from lexicell.data.read_ahead import read_ahead
from lexicell.data.readers.matrices import BLOCK_ENTRIES, Entries, Matrix, cut
from lexicell.errors import InputError

_MAX_BANDS = 4096  # files in the scratch folder
_BANDS_A_BLOCK = 8  # a band is sorted in half of the time when the processor's cache holds it


class BandedMatrix:
    """A matrix that lies in bands of cells in a scratch folder; see `Matrix`.

    A band's file holds one stretch for each piece that was dealt to it: its cells, its genes, its values, each
    in one piece of memory (records of three fields would be four times slower to sort).
    """

    by_cell = True

    def __init__(self, matrix: Matrix, scratch: Path, limit: int) -> None:
        self.where = matrix.where
        self.n_cells, self.n_genes = matrix.n_cells, matrix.n_genes
        n_bands = min(max(1, -(-matrix.n_entries // limit)), _MAX_BANDS, max(self.n_cells, 1))
        self._shift = (-(-self.n_cells // n_bands) - 1).bit_length()  # a cell's band is found without division
        self._width = 1 << self._shift
        self._edges = np.append(np.arange(0, self.n_cells, self._width), self.n_cells).astype(np.int64)
        self._scratch = scratch
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        self._stretches: list[list[int]] = [[] for _ in range(len(self._edges) - 1)]
        self.n_entries = 0
        scratch.mkdir(parents=True, exist_ok=True)
        for band in range(len(self._stretches)):
            self._path(band).write_bytes(b"")  # a run that was killed may have left one
        for piece in read_ahead(matrix.entries()):
            self._deal(piece)

    def sample(self, limit: int) -> Entries:
        """Return the entries of the first band, at most `limit`."""
        piece = next(self.entries(), None)
        if piece is None:
            nothing = np.empty(0, dtype=np.int64)
            return Entries(nothing, nothing, nothing)
        return Entries(piece.cells[:limit], piece.genes[:limit], piece.values[:limit])

    def edges(self, limit: int = BLOCK_ENTRIES) -> npt.NDArray[np.int64]:
        """Return the edges of the bands, whatever `limit`."""
        return self._edges

    def read(self, start: int, stop: int) -> RawRows:
        """Return the cells ``start:stop``, which lie in one band."""
        band = start // self._width
        cells, genes, values = self._band(band)
        if (start, stop) != (self._edges[band], self._edges[band + 1]):
            inside = (cells >= start) & (cells < stop)
            cells, genes, values = cells[inside], genes[inside], values[inside]
        return rows_of(cells - start, genes, values, stop - start)

    def entries(self) -> Iterator[Entries]:
        """Return the entries band by band."""
        for band in range(len(self._stretches)):
            cells, genes, values = self._band(band)
            yield Entries(cells.astype(np.int64), genes.astype(np.int64), values)

    def _path(self, band: int) -> Path:
        return self._scratch / f"band{band:04d}.bin"

    def _band(self, band: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[Any]]:
        sizes = self._stretches[band]
        total = sum(sizes)
        cells, genes = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.int32)
        values = np.empty(total, dtype=self._dtype)
        at = 0
        with self._path(band).open("rb") as file:
            for size in sizes:
                for column in (cells, genes, values):
                    column[at : at + size] = np.fromfile(file, dtype=column.dtype, count=size)
                at += size
        return cells, genes, values

    def _deal(self, piece: Entries) -> None:
        self._dtype = piece.values.dtype
        edges, *columns = _grouped(piece.cells, piece.genes, piece.values, self._shift, len(self._stretches))
        for band, (begin, end) in enumerate(pairwise(edges.tolist())):
            if end > begin:
                # Opened for each stretch: there may be more bands than a system lets a process hold open.
                with self._path(band).open("ab") as file:
                    for column in columns:
                        file.write(column[begin:end].view(np.uint8).data)
                self._stretches[band].append(end - begin)
        self.n_entries += len(piece.values)


def turned(matrix: Matrix, scratch: Path | None, limit: int = BLOCK_ENTRIES) -> Matrix:
    """Return `matrix` in a form whose cells can be read.

    Parameters
    ----------
    matrix
        Any matrix; one that is `by_cell` comes back as it is.
    scratch
        Folder for the bands; it is made when it is needed, and the caller removes it. Without one, the matrix
        must fit in memory.
    limit
        Entries that fit in memory several times over; a band holds fewer.
    """
    if matrix.by_cell:
        return matrix
    if scratch is None or matrix.n_entries <= limit:
        return _in_memory(matrix)
    return BandedMatrix(matrix, scratch, max(limit // _BANDS_A_BLOCK, 1))


def rows_of(
    cells: npt.NDArray[np.integer[Any]], genes: npt.NDArray[Any], values: npt.NDArray[Any], n_cells: int
) -> RawRows:
    """Sort entries by cell, in the order in which they come within a cell."""
    edges, _, sorted_genes, sorted_values = _grouped(cells, genes, values, 0, n_cells)
    return RawRows(sorted_values, sorted_genes, edges)


def _grouped(
    cells: npt.NDArray[np.integer[Any]], genes: npt.NDArray[Any], values: npt.NDArray[Any], shift: int, n_groups: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[Any]]:
    """Group entries by ``2**shift`` neighbouring cells, in the order in which they come within a group.

    Returns
    -------
    edges
        (n_groups + 1,) where each group begins.
    cells, genes, values
        (n,) entries.
    """
    bits = values.view(f"u{values.dtype.itemsize}")  # moved, not looked at: one compiled kind for each size
    whole = (cells.astype(np.int32, copy=False), genes.astype(np.int32, copy=False), bits)
    edges, grouped_cells, grouped_genes, grouped_bits = _counting_sort(*whole, shift, n_groups)
    return edges, grouped_cells, grouped_genes, grouped_bits.view(values.dtype)


@numba.njit(cache=True, nogil=True)
def _counting_sort(cells, genes, bits, shift, n_groups):
    """A counting sort that moves all three columns at once: several times faster than sorting and taking each."""
    edges = np.zeros(n_groups + 1, np.int64)
    for cell in cells:
        edges[(cell >> shift) + 1] += 1
    edges = np.cumsum(edges)
    place = edges[:-1].copy()
    out_cells, out_genes, out_bits = np.empty_like(cells), np.empty_like(genes), np.empty_like(bits)
    for entry in range(len(cells)):
        cell = cells[entry]
        group = cell >> shift
        at = place[group]
        place[group] = at + 1
        out_cells[at], out_genes[at], out_bits[at] = cell, genes[entry], bits[entry]
    return edges, out_cells, out_genes, out_bits


class _MemoryMatrix:
    """Rows in memory."""

    by_cell = True

    def __init__(self, matrix: Matrix, rows: RawRows) -> None:
        self.where = matrix.where
        self.n_cells, self.n_genes = matrix.n_cells, matrix.n_genes
        self.n_entries = len(rows.data)
        self._rows = rows

    def sample(self, limit: int) -> Entries:
        piece = next(self.entries())
        return Entries(piece.cells[:limit], piece.genes[:limit], piece.values[:limit])

    def edges(self, limit: int = BLOCK_ENTRIES) -> npt.NDArray[np.int64]:
        return cut(self._rows.indptr, limit)

    def read(self, start: int, stop: int) -> RawRows:
        begin, end = self._rows.indptr[start], self._rows.indptr[stop]
        edges = self._rows.indptr[start : stop + 1] - begin
        return RawRows(self._rows.data[begin:end], self._rows.genes[begin:end], edges)

    def entries(self) -> Iterator[Entries]:
        cells = np.repeat(np.arange(self.n_cells), np.diff(self._rows.indptr))
        yield Entries(cells, self._rows.genes.astype(np.int64), self._rows.data)


def _in_memory(matrix: Matrix) -> Matrix:
    pieces = list(matrix.entries())
    if not pieces:
        nothing = np.empty(0, dtype=np.int64)
        return _MemoryMatrix(matrix, RawRows(nothing, nothing, np.zeros(matrix.n_cells + 1, dtype=np.int64)))
    try:
        cells, genes = (np.concatenate([getattr(p, key) for p in pieces]) for key in ("cells", "genes"))
        values = np.concatenate([piece.values for piece in pieces])
    except MemoryError:
        raise InputError(f"{matrix.where}: does not fit in memory, and lies gene by gene.") from None
    return _MemoryMatrix(matrix, rows_of(cells, genes.astype(np.int32), values, matrix.n_cells))
