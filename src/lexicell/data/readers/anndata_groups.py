"""AnnData on disk: .h5ad, the RNA modality of .h5mu, and .zarr. All three are groups of the same shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from lexicell.data.readers.gzip_array import quicker
from lexicell.data.readers.hdf5 import first_line, open_hdf5, text_of
from lexicell.data.readers.matrices import CompressedMatrix, DenseMatrix, Matrix
from lexicell.data.readers.source import Closing, check_shape
from lexicell.errors import InputError, listing

_RNA_NAMES = ("rna", "RNA", "gex", "GEX", "Gene Expression", "gene_expression")


class GroupSource(Closing):
    """Reads a group that is laid out as AnnData; see `lexicell.data.readers.source.MatrixSource`.

    Parameters
    ----------
    name
        What to call it in messages.
    root
        h5py or zarr group.
    close
        Called when the source is left.
    """

    def __init__(self, name: str, root: Any, close: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self._root = root
        self._close = close
        self._gene_names: dict[str, pd.Index] = {}  # of var and raw/var, which several steps ask for
        try:
            self._check_parts()
            self._cells = self._index("obs")
            self.n_cells = len(self._cells)
            self.obs_columns = self._columns("obs")
            self.matrices = self._find_matrices()
            self.species = self._find_species()
        except BaseException:
            close()
            raise

    def obs(self, columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return the named columns of ``obs``, indexed by cell name; other columns are not read."""
        return self._frame("obs", self._cells, columns)

    def var(self, matrix: str) -> pd.DataFrame:
        """Return ``var``, or ``raw/var`` for the matrix ``raw``."""
        place = "raw/var" if matrix == "raw" else "var"
        return self._frame(place, self._genes(place), self._columns(place))

    def matrix(self, name: str) -> Matrix:
        """Return ``X``, a layer, or ``raw/X``."""
        if name not in self.matrices:
            raise InputError(f"{self.name}: has no matrix '{name}'; it has {listing(self.matrices, 20)}.")
        node = self._root["raw/X" if name == "raw" else name]
        where = f"{self.name}: {name}"
        n_genes = len(self._genes("raw/var" if name == "raw" else "var"))
        return check_shape(where, self._open_matrix(where, node, n_genes), self.n_cells, n_genes)

    def _genes(self, place: str) -> pd.Index:
        if place not in self._gene_names:
            self._gene_names[place] = self._index(place)
        return self._gene_names[place]

    def _check_parts(self) -> None:
        missing = [part for part in ("obs", "var") if part not in self._root]
        if missing:
            held = listing(self._root.keys(), 10) or "nothing"
            raise InputError(f"{self.name}: is not AnnData: it lacks {listing(missing)}; it holds {held}.")

    def _open_matrix(self, where: str, node: Any, n_genes: int) -> Matrix:
        if _is_array(node):
            return DenseMatrix(where, node)
        kind = text_of(node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", "")))
        if kind not in ("csr_matrix", "csc_matrix", "csr", "csc"):
            raise InputError(f"{where}: expected a dense, CSR or CSC matrix, found '{kind or 'an unknown group'}'.")
        missing = [part for part in ("data", "indices", "indptr") if part not in node]
        if missing:
            raise InputError(f"{where}: is damaged: it lacks {listing(missing)}.")
        shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
        n_cells, genes = (self.n_cells, n_genes) if shape is None else (int(shape[0]), int(shape[1]))
        data, indices = quicker(node["data"]), quicker(node["indices"])
        return CompressedMatrix(where, data, indices, node["indptr"], (n_cells, genes), by_cell="csr" in kind)

    def _find_matrices(self) -> tuple[str, ...]:
        found = ["X"] if "X" in self._root and _holds_values(self._root["X"]) else []
        if "layers" in self._root and not _is_array(self._root["layers"]):
            found += [f"layers/{layer}" for layer in sorted(self._root["layers"].keys())]
        found += ["raw"] if "raw" in self._root and "raw/X" in self._root and "raw/var" in self._root else []
        if not found:
            raise InputError(f"{self.name}: holds no matrix (no X, no layers, no raw).")
        return tuple(found)

    def _find_species(self) -> str | None:
        for key in ("uns/species", "uns/organism"):
            if key in self._root and _is_array(self._root[key]) and self._root[key].shape == ():
                value = self._root[key][()]
                if isinstance(value, str | bytes | np.ndarray):
                    return text_of(value.item() if isinstance(value, np.ndarray) else value)
        return None

    def _legacy(self, place: str) -> pd.DataFrame:
        """Read a table that an anndata older than 0.7 wrote: one compound array."""
        rows = np.asarray(self._root[place][:])
        names = rows.dtype.names
        if not names:
            raise InputError(f"{self.name}: '{place}' is not a table.")
        text = {name for name in names if rows[name].dtype.kind in "SO"}
        columns = {name: list(map(text_of, rows[name])) if name in text else rows[name] for name in names}
        return pd.DataFrame(columns).set_index(names[0])

    def _index(self, place: str) -> pd.Index:
        node = self._root[place]
        if _is_array(node):
            legacy: pd.Index = self._legacy(place).index
            return legacy
        name = text_of(node.attrs.get("_index", "_index"))
        if name not in node:
            raise InputError(f"{self.name}: '{place}' has no names: its index '{name}' is missing.")
        values = self._element(node[name], f"{place}/{name}")
        if getattr(values, "ndim", 1) != 1:
            raise InputError(f"{self.name}: '{place}' is damaged: its index has {values.ndim} dimensions.")
        index: pd.Index = pd.Index(np.asarray(values), name=None)
        return index

    def _columns(self, place: str) -> tuple[str, ...]:
        node = self._root[place]
        if _is_array(node):
            return tuple(map(str, self._legacy(place).columns))
        index = text_of(node.attrs.get("_index", "_index"))
        order = [text_of(column) for column in node.attrs.get("column-order", ())]
        if set(order) == set(node.keys()) - {index, "__categories"}:
            return tuple(order)
        return tuple(column for column in node.keys() if column not in (index, "__categories"))  # noqa: SIM118

    def _frame(self, place: str, index: pd.Index, columns: Sequence[str]) -> pd.DataFrame:
        node = self._root[place]
        if _is_array(node):
            return self._legacy(place)[list(columns)]
        table = {column: self._column(node, place, column) for column in columns}
        for column, values in table.items():
            if len(values) != len(index):
                raise InputError(
                    f"{self.name}: {place}['{column}'] has {len(values)} values for {len(index)} rows. "
                    "The file is damaged."
                )
        return pd.DataFrame(table, index=index)

    def _column(self, node: Any, place: str, column: str) -> Any:
        if "__categories" in node and column in node["__categories"]:  # anndata 0.7
            names = self._element(node["__categories"][column], f"{place}/{column}")
            return pd.Categorical.from_codes(np.asarray(node[column][:]), categories=pd.Index(names))
        return self._element(node[column], f"{place}/{column}")

    def _element(self, node: Any, place: str) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old encodings are announced; they are read all the same
                value = anndata.io.read_elem(node)
        except Exception as error:  # read_elem wraps whatever it meets, depending on the encoding
            raise InputError(f"{self.name}: '{place}' cannot be read ({first_line(error)}).") from None
        if isinstance(value, np.ndarray) and value.dtype.kind == "S":
            return np.array([text_of(v) for v in value], dtype=object)
        return value


def open_h5ad(path: Path, name: str) -> GroupSource:
    """Open an .h5ad file."""
    file = open_hdf5(path, name)
    return GroupSource(name, file, file.close)


def open_h5mu(path: Path, name: str) -> GroupSource:
    """Open the RNA modality of an .h5mu file."""
    file = open_hdf5(path, name)
    modalities = list(file["mod"].keys()) if "mod" in file else []
    rna = next((m for m in _RNA_NAMES if m in modalities), modalities[0] if len(modalities) == 1 else None)
    if rna is None:
        file.close()
        raise InputError(f"{name}: no RNA modality (named 'rna'); it holds {listing(modalities) or 'none'}.")
    return GroupSource(name, file[f"mod/{rna}"], file.close)


def open_zarr(path: Path, name: str) -> GroupSource:
    """Open a .zarr folder that anndata wrote."""
    import zarr

    try:
        root = zarr.open_group(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds, of its own and of the file system
        raise InputError(f"{name}: cannot be read as zarr ({first_line(error)}).") from None
    return GroupSource(name, root)


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _holds_values(node: Any) -> bool:
    return not _is_array(node) or len(node.shape) == 2
