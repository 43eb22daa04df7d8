"""Turning a gene-by-gene matrix round on disk, in bounded memory.

The entries are read once, in file order, and dealt to bands of neighbouring cells, one scratch file a band. A
band then fits in memory and is sorted by cell when it is read. So each entry is written once and read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
_BANDS_A_BLOCK = 4  # a band is sorted in half of the time when the processor's cache holds it
_HELD_ENTRIES = 1 << 24  # dealt and kept until they are written: long stretches are written several times faster


@dataclass(frozen=True)
class _Dealt:
    """Entries of one piece, grouped by band; cells are counted from the first of their band."""

    edges: npt.NDArray[np.int64]
    entries: Entries


class BandedMatrix:
    """A matrix that lies in bands of cells in a scratch folder; see `Matrix`.

    A band's file holds one stretch for each piece that was dealt to it: its cells, counted from the band's first, its
    genes, its values, each in one piece of memory (records of three fields would be four times slower to sort), in
    the narrowest types that hold them.
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
        self._gene_dtype = gene_dtype(self.n_genes)
        self._stretches: list[list[tuple[int, np.dtype[Any]]]] = [[] for _ in range(len(self._edges) - 1)]
        self.n_entries = 0
        scratch.mkdir(parents=True, exist_ok=True)
        for band in range(len(self._stretches)):
            self._path(band).write_bytes(b"")  # a run that was killed may have left one
        self._deal(matrix)

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
        rows = rows_of(self._band(band), last - first)
        if (start, stop) == (first, last):
            return rows
        edges = rows.indptr[start - first : stop - first + 1]
        begin, end = edges[0], edges[-1]
        return RawRows(rows.data[begin:end], rows.genes[begin:end], edges - begin)

    def entries(self) -> Iterator[Entries]:
        """Return the entries band by band."""
        for band, first in enumerate(self._edges[:-1].tolist()):
            for stretch in self._band(band):
                yield Entries(stretch.cells.astype(np.int64) + first, stretch.genes.astype(np.int64), stretch.values)

    def _path(self, band: int) -> Path:
        return self._scratch / f"band{band:04d}.bin"

    def _band(self, band: int) -> list[Entries]:
        """Return the stretches of a band, in the order in which they came."""
        raw = np.fromfile(self._path(band), dtype=np.uint8)
        stretches, place = [], 0
        for size, value in self._stretches[band]:
            columns = []
            for dtype in (np.dtype(np.uint16), self._gene_dtype, value):
                columns.append(raw[place : place + size * dtype.itemsize].view(dtype))
                place += size * dtype.itemsize
            stretches.append(Entries(*columns))
        return stretches

    def _deal(self, matrix: Matrix) -> None:
        held: list[_Dealt] = []
        n_held = 0
        for piece in read_ahead(matrix.entries()):
            narrow = Entries(piece.cells, piece.genes.astype(self._gene_dtype), _narrowed(piece.values))
            held.append(_Dealt(*_grouped([narrow], self._shift, len(self._stretches), with_cells=True)))
            n_held += len(piece.values)
            if n_held >= _HELD_ENTRIES:
                self._write(held)
                self.n_entries += n_held
                held, n_held = [], 0
        self._write(held)
        self.n_entries += n_held

    def _write(self, held: list[_Dealt]) -> None:
        for band, stretches in enumerate(self._stretches):
            # Opened anew each time: there may be more bands than a system lets a process hold open.
            with self._path(band).open("ab") as file:
                for dealt in held:
                    begin, end = dealt.edges[band : band + 2].tolist()
                    for column in (dealt.entries.cells, dealt.entries.genes, dealt.entries.values):
                        file.write(column[begin:end].view(np.uint8).data)
                    stretches.append((end - begin, dealt.entries.values.dtype))


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


def rows_of(stretches: Sequence[Entries], n_cells: int) -> RawRows:
    """Sort entries by cell, in the order in which they come within a cell."""
    edges, entries = _grouped(stretches, 0, n_cells, with_cells=False)
    return RawRows(entries.values, entries.genes, edges)


def _grouped(
    stretches: Sequence[Entries], shift: int, n_groups: int, *, with_cells: bool
) -> tuple[npt.NDArray[np.int64], Entries]:
    """Group entries by ``cells >> shift``, in the order in which they come within a group.

    Returns
    -------
    edges
        (n_groups + 1,) where each group begins.
    entries
        Cells are counted from the first of their group, as uint16, and left out where they are not wanted.
    """
    edges = np.zeros(n_groups + 1, dtype=np.int64)
    for stretch in stretches:
        _count(stretch.cells, shift, edges)
    edges = np.cumsum(edges)
    place = edges[:-1].copy()
    genes, values = (np.empty(edges[-1], dtype=_widest(stretches, key)) for key in ("genes", "values"))
    cells = np.empty(edges[-1] if with_cells else 0, dtype=np.uint16)
    for stretch in stretches:
        bits = _bits(stretch.values.astype(values.dtype, copy=False))
        _move(stretch.cells, stretch.genes, bits, shift, place, cells, genes, _bits(values))
    return edges, Entries(cells, genes, values)


def _widest(stretches: Sequence[Entries], key: str) -> np.dtype[Any]:
    """Return the type that holds one column of all stretches."""
    return np.result_type(np.uint8, *(getattr(stretch, key).dtype for stretch in stretches))


def _narrowed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values in the narrowest type that holds them exactly: most counts fit into a byte."""
    with np.errstate(invalid="ignore"):
        for dtype in (np.uint8, np.uint16):
            narrow = values.astype(dtype)
            if np.array_equal(narrow, values):
                return narrow
    return values


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values that are moved but not looked at: one compiled kind for each size."""
    return values.view(f"u{values.dtype.itemsize}")


@numba.njit(cache=True, nogil=True)
def _count(cells, shift, edges):
    """Add the number of entries of each group to ``edges[group + 1]``."""
    for cell in cells:
        edges[(cell >> shift) + 1] += 1


@numba.njit(cache=True, nogil=True)
def _move(cells, genes, bits, shift, place, out_cells, out_genes, out_bits):
    """Put each entry at its group's next place, all columns at once: several times faster than sorting each.

    `out_cells` takes a cell's place in its group, or nothing where it has no room.
    """
    rest = (1 << shift) - 1
    wanted = len(out_cells) > 0
    for entry in range(len(cells)):
        cell = cells[entry]
        at = place[cell >> shift]
        place[cell >> shift] = at + 1
        if wanted:
            out_cells[at] = cell & rest
        out_genes[at], out_bits[at] = genes[entry], bits[entry]


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
    try:
        pieces = list(matrix.entries())
        return _MemoryMatrix(matrix, rows_of(pieces, matrix.n_cells))
    except MemoryError:
        raise InputError(f"{matrix.where}: does not fit in memory, and lies gene by gene.") from None
