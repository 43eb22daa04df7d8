"""Loom files: HDF5 with a dense genes x cells matrix, layers, and attributes of rows and columns."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import h5py
import pandas as pd

from lexicell.data.readers.hdf5 import open_hdf5, texts_of
from lexicell.data.readers.matrices import DenseMatrix
from lexicell.data.readers.plain import PlainSource
from lexicell.errors import InputError, listing

_CELL_NAMES = ("CellID", "obs_names", "cell_id", "Cell", "barcode")
_GENE_NAMES = ("Gene", "var_names", "gene", "Accession", "gene_id")


def open_loom(path: Path, name: str) -> PlainSource:
    """Open a .loom file."""
    file = open_hdf5(path, name)
    try:
        missing = [part for part in ("matrix", "row_attrs", "col_attrs") if part not in file]
        if missing:
            raise InputError(f"{name}: is not a loom file: it lacks {listing(missing)}.")
        n_genes, n_cells = file["matrix"].shape
        obs = _attributes(file["col_attrs"], n_cells, _CELL_NAMES, f"{name}: col_attrs")
        var = _attributes(file["row_attrs"], n_genes, _GENE_NAMES, f"{name}: row_attrs")
        nodes = {"X": file["matrix"]}
        nodes |= {f"layers/{layer}": file["layers"][layer] for layer in file.get("layers", {})}
        matrices = {key: partial(DenseMatrix, f"{name}: {key}", node, transposed=True) for key, node in nodes.items()}
        return PlainSource(name, obs, var, matrices, file.close)
    except BaseException:
        file.close()
        raise


def _attributes(group: h5py.Group, size: int, names: tuple[str, ...], where: str) -> pd.DataFrame:
    columns = {key: texts_of(node[:]) for key, node in group.items() if getattr(node, "shape", None) == (size,)}
    index = next((key for key in names if key in columns), None)
    if index is None:
        raise InputError(f"{where}: no names; expected one of {listing(names)}, found {listing(group.keys(), 20)}.")
    table = pd.DataFrame(columns)
    table.index = pd.Index(table.pop(index).to_numpy(), name=None)
    return table
