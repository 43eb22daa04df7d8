"""Cell Ranger output: .h5 files and folders with matrix.mtx."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.data.counts import RawRows
from lexicell.data.readers.gzip_array import quicker
from lexicell.data.readers.hdf5 import first_line, open_hdf5, texts_of
from lexicell.data.readers.matrices import BLOCK_ENTRIES, CompressedMatrix, Entries, Matrix
from lexicell.data.readers.plain import PlainSource
from lexicell.errors import InputError, listing

_PARTS = ("data", "indices", "indptr", "shape", "barcodes")


def open_tenx_h5(path: Path, name: str) -> PlainSource:
    """Open a Cell Ranger .h5 file (version 3, or one genome of version 2)."""
    file = open_hdf5(path, name)
    try:
        return _source_of(file, name)
    except BaseException:
        file.close()
        raise


def _source_of(file: h5py.File, name: str) -> PlainSource:
    groups = [key for key, node in file.items() if isinstance(node, h5py.Group) and "barcodes" in node]
    if len(groups) != 1:
        held = listing(file.keys(), 10) or "nothing"
        raise InputError(
            f"{name}: expected one matrix of Cell Ranger (or AnnData), found {listing(groups) or 'none'}; "
            f"the file holds {held}."
        )
    group = file[groups[0]]
    missing = [part for part in _PARTS if part not in group]
    if missing:
        raise InputError(f"{name}: is damaged: it lacks {listing(missing)}.")
    if "features" in group:
        features = group["features"]
        columns = {"gene_symbol": "name", "feature_types": "feature_type"}
        var = pd.DataFrame({ours: texts_of(features[key][:]) for ours, key in columns.items() if key in features})
        ids = texts_of(features["id"][:])
    else:
        ids = texts_of(group["genes"][:])
        var = pd.DataFrame({"gene_symbol": texts_of(group["gene_names"][:])})
    var.index = pd.Index(ids)
    obs = pd.DataFrame(index=pd.Index(texts_of(group["barcodes"][:])))
    n_genes, n_cells = (int(size) for size in group["shape"][:])

    def matrix() -> Matrix:
        # Genes by cells in CSC are cells by genes in CSR.
        data, indices = quicker(group["data"]), quicker(group["indices"])
        return CompressedMatrix(f"{name}: X", data, indices, group["indptr"], (n_cells, n_genes), by_cell=True)

    return PlainSource(name, obs, var, {"X": matrix}, file.close)


def find_mtx(path: Path) -> Path | None:
    """Return the matrix of a folder of Cell Ranger, or of a path that is one; None where there is none."""
    if path.is_dir():
        found = sorted([*path.glob("*matrix.mtx"), *path.glob("*matrix.mtx.gz")])
        return found[0] if found else None
    return path if path.name.lower().endswith((".mtx", ".mtx.gz")) else None


def open_tenx_mtx(path: Path, name: str) -> PlainSource:
    """Open matrix.mtx with barcodes.tsv and features.tsv (or genes.tsv) beside it, plain or gzipped."""
    prefix = path.name[: path.name.index("matrix.mtx")] if "matrix.mtx" in path.name else ""
    barcodes = _table(path, prefix, ("barcodes",), name)
    features = _table(path, prefix, ("features", "genes"), name)
    var = features.iloc[:, 1:3].set_axis(["gene_symbol", "feature_types"][: features.shape[1] - 1], axis=1)
    var.index = pd.Index(features[0].to_numpy(dtype=object))
    obs = pd.DataFrame(index=pd.Index(barcodes[0].to_numpy(dtype=object)))
    return PlainSource(name, obs, var, {"X": lambda: MtxMatrix(f"{name}: X", path, len(obs), len(var))})


def _table(matrix: Path, prefix: str, stems: tuple[str, ...], name: str) -> pd.DataFrame:
    for stem in stems:
        for ending in (".tsv", ".tsv.gz"):
            path = matrix.with_name(f"{prefix}{stem}{ending}")
            if path.exists():
                try:
                    return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
                except (OSError, ValueError, EOFError) as error:
                    raise InputError(f"{path}: cannot be read ({first_line(error)}).") from None
    raise InputError(f"{name}: no {prefix}{' or '.join(stems)}.tsv(.gz) beside {matrix.name}.")


class MtxMatrix:
    """A Matrix Market file of genes by cells, or cells by genes; see `Matrix`.

    Text can only be read from its beginning, so it is turned round on disk before its cells are read.
    """

    by_cell = False

    def __init__(self, where: str, path: Path, n_cells: int, n_genes: int) -> None:
        self.where = where
        self._path = path
        self.n_cells, self.n_genes = n_cells, n_genes
        with self._open() as handle:
            n_rows, n_columns, self.n_entries = self._read_header(handle)
        if (n_rows, n_columns) not in ((n_genes, n_cells), (n_cells, n_genes)):
            raise InputError(
                f"{where}: has {n_rows} x {n_columns} values, but there are {n_genes} genes and {n_cells} cells."
            )
        self._genes_first = (n_rows, n_columns) == (n_genes, n_cells)

    def sample(self, limit: int) -> Entries:
        """Return the first `limit` entries."""
        for piece in self.entries(min(limit, BLOCK_ENTRIES)):
            return piece
        nothing = np.empty(0, dtype=np.int64)
        return Entries(nothing, nothing, nothing)

    def edges(self, limit: int = BLOCK_ENTRIES) -> npt.NDArray[np.int64]:
        """Not to be had of a text file."""
        raise NotImplementedError

    def read(self, start: int, stop: int) -> RawRows:
        """Not to be had of a text file."""
        raise NotImplementedError

    def entries(self, size: int = BLOCK_ENTRIES) -> Iterator[Entries]:
        """Return all entries in file order, in pieces of `size`."""
        seen = 0
        try:
            with self._open() as handle:
                self._read_header(handle)
                if self.n_entries:
                    types = {0: np.int64, 1: np.int64, 2: np.float64}
                    for piece in pd.read_csv(handle, sep=r"\s+", header=None, dtype=types, chunksize=size, comment="%"):
                        seen += len(piece)
                        yield self._piece(piece)
        except (OSError, EOFError, ValueError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.where}: cannot be read ({first_line(error)}).") from None
        if seen != self.n_entries:
            raise InputError(f"{self.where}: is cut short: {seen:,} entries, but its head says {self.n_entries:,}.")

    def _piece(self, table: pd.DataFrame) -> Entries:
        first, second = table[0].to_numpy() - 1, table[1].to_numpy() - 1
        genes, cells = (first, second) if self._genes_first else (second, first)
        for indices, size, axis in ((genes, self.n_genes, "genes"), (cells, self.n_cells, "cells")):
            if len(indices) and (indices.min() < 0 or indices.max() >= size):
                raise InputError(f"{self.where}: is damaged: an index lies outside the {size} {axis}.")
        return Entries(cells, genes, table[2].to_numpy())

    def _open(self) -> io.TextIOBase:
        if self._path.name.endswith(".gz"):
            return gzip.open(self._path, "rt", encoding="ascii", errors="replace")
        return self._path.open("rt", encoding="ascii", errors="replace")

    def _read_header(self, handle: io.TextIOBase) -> tuple[int, int, int]:
        try:
            head = handle.readline().lower().split()
            line = handle.readline()
            while line.startswith("%"):
                line = handle.readline()
            sizes = [int(part) for part in line.split()]
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{self.where}: cannot be read ({first_line(error)}).") from None
        if head[:3] != ["%%matrixmarket", "matrix", "coordinate"] or head[4:] != ["general"] or len(sizes) != 3:
            raise InputError(
                f"{self.where}: expected a Matrix Market file 'matrix coordinate integer general', "
                f"found {' '.join(head)[:60]!r}."
            )
        return sizes[0], sizes[1], sizes[2]
