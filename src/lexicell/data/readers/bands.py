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
from lexicell.data.store_format import gene_dtype
from lexicell.errors import InputError

_MAX_BANDS = 4096  # files in the scratch folder
_MAX_WIDTH = 1 << 16  # cells of a band, whose places are kept as uint16
_BANDS_A_BLOCK = 8  # a band is sorted in half of the time when the processor's cache holds it


class BandedMatrix:
    """A matrix that lies in bands of cells in a scratch folder; see `Matrix`.

    A band's file holds one stretch for each piece that was dealt to it: its cells, counted from the band's first, its
    genes, its values, each in one piece of memory (records of three fields would be four times slower to sort).
    """

    by_cell = True

    def __init__(self, matrix: Matrix, scratch: Path, limit: int) -> None:
        self.where = matrix.where
        self.n_cells, self.n_genes = matrix.n_cells, matrix.n_genes
        n_bands = min(max(1, -(-matrix.n_entries // limit)), _MAX_BANDS, max(self.n_cells, 1))
        n_bands = max(n_bands, -(-self.n_cells // _MAX_WIDTH))
        self._shift = (-(-self.n_cells // n_bands) - 1).bit_length()  # a cell's band is found without division
        self._width = 1 << self._shift
        self._edges = np.append(np.arange(0, self.n_cells, self._width), self.n_cells).astype(np.int64)
        self._scratch = scratch
        value = np.dtype(np.float32)  # until the first piece tells
        self._types: tuple[np.dtype[Any], ...] = (np.dtype(np.uint16), gene_dtype(self.n_genes), value)
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
        first, last = self._edges[band : band + 2].tolist()
        rows = rows_of(*self._band(band), last - first)
        if (start, stop) == (first, last):
            return rows
        edges = rows.indptr[start - first : stop - first + 1]
        begin, end = edges[0], edges[-1]
        return RawRows(rows.data[begin:end], rows.genes[begin:end], edges - begin)

    def entries(self) -> Iterator[Entries]:
        """Return the entries band by band."""
        for band, first in enumerate(self._edges[:-1].tolist()):
            cells, genes, values = self._band(band)
            yield Entries(cells.astype(np.int64) + first, genes.astype(np.int64), values)

    def _path(self, band: int) -> Path:
        return self._scratch / f"band{band:04d}.bin"

    def _band(self, band: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Return places in the band, genes and values of its entries, in the order in which they came."""
        sizes = self._stretches[band]
        cells, genes, values = (np.empty(sum(sizes), dtype=dtype) for dtype in self._types)
        raw = np.fromfile(self._path(band), dtype=np.uint8)
        place, at = 0, 0
        for size in sizes:
            for column in (cells, genes, values):
                width = size * column.itemsize
                column[at : at + size] = raw[place : place + width].view(column.dtype)
                place += width
            at += size
        return cells, genes, values

    def _deal(self, piece: Entries) -> None:
        self._types = (*self._types[:2], piece.values.dtype)
        edges, *columns = _dealt(piece, self._shift, len(self._stretches), self._types)
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
    cells: npt.NDArray[np.integer[Any]], genes: npt.NDArray[np.integer[Any]], values: npt.NDArray[Any], n_cells: int
) -> RawRows:
    """Sort entries by cell, in the order in which they come within a cell."""
    edges, _, sorted_genes, bits = _counting_sort(
        cells, genes, _bits(values), 0, n_cells, np.empty(0, cells.dtype), np.empty_like(genes)
    )
    return RawRows(bits.view(values.dtype), sorted_genes, edges)


def _dealt(
    piece: Entries, shift: int, n_bands: int, types: tuple[np.dtype[Any], ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Group entries by band of ``2**shift`` cells, in the order in which they come within a band.

    Returns
    -------
    edges
        (n_bands + 1,) where each band begins.
    cells, genes, values
        (n,) entries, in the `types` of a band's file; cells are counted from the first of their band.
    """
    cells, genes = piece.cells.astype(np.int32, copy=False), piece.genes.astype(np.int32, copy=False)
    places, short = (np.empty(len(cells), dtype=dtype) for dtype in types[:2])
    edges, places, short, bits = _counting_sort(cells, genes, _bits(piece.values), shift, n_bands, places, short)
    return edges, places, short, bits.view(piece.values.dtype)


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values that are moved but not looked at: one compiled kind for each size."""
    return values.view(f"u{values.dtype.itemsize}")


@numba.njit(cache=True, nogil=True)
def _counting_sort(cells, genes, bits, shift, n_groups, out_places, out_genes):
    """Sort by ``cells >> shift``, moving all columns at once: several times faster than sorting and taking each.

    `out_places` takes a cell's place in its group, or nothing where it has no room.
    """
    edges = np.zeros(n_groups + 1, np.int64)
    for cell in cells:
        edges[(cell >> shift) + 1] += 1
    edges = np.cumsum(edges)
    place = edges[:-1].copy()
    out_bits = np.empty_like(bits)
    rest = (1 << shift) - 1
    wanted = len(out_places) > 0
    for entry in range(len(cells)):
        cell = cells[entry]
        at = place[cell >> shift]
        place[cell >> shift] = at + 1
        if wanted:
            out_places[at] = cell & rest
        out_genes[at], out_bits[at] = genes[entry], bits[entry]
    return edges, out_places, out_genes, out_bits


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
        cells, genes = (np.concatenate([getattr(p, key) for p in pieces], dtype=np.int32) for key in ("cells", "genes"))
        values = np.concatenate([piece.values for piece in pieces])
    except MemoryError:
        raise InputError(f"{matrix.where}: does not fit in memory, and lies gene by gene.") from None
    return _MemoryMatrix(matrix, rows_of(cells, genes, values, matrix.n_cells))
