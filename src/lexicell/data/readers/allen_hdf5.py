"""The .hdf5 files of the Allen Institute's cell type portal: data/counts, data/gene, data/samples.

They say nothing of which axis is which: that comes from the lengths of data/gene and data/samples.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import pandas as pd

from lexicell.data.readers.gene_major import GeneMajorMatrix
from lexicell.data.readers.hdf5 import open_hdf5, texts_of
from lexicell.data.readers.matrices import DenseMatrix, Matrix
from lexicell.data.readers.plain import PlainSource
from lexicell.errors import InputError, listing

_PARTS = ("counts", "gene", "samples")


def is_allen_hdf5(file: h5py.File) -> bool:
    """Say whether a file is laid out so."""
    node = file.get("data")
    return isinstance(node, h5py.Group) and "counts" in node and "gene" in node


def open_allen_hdf5(path: Path, name: str) -> PlainSource:
    """Open such a file; raise InputError when it lacks a part or its lengths do not fit together."""
    file = open_hdf5(path, name)
    try:
        group = file["data"]
        missing = [part for part in _PARTS if part not in group]
        if missing:
            raise InputError(
                f"{name}: is damaged: data lacks {listing(missing)}; it holds {listing(group.keys(), 10)}."
            )
        genes, samples = (texts_of(group[part][:]) for part in ("gene", "samples"))
        counts = group["counts"]
        shape, lengths = counts.shape, (len(genes), len(samples))
        if shape not in (lengths, lengths[::-1]):
            raise InputError(
                f"{name}: is damaged: data/counts has the shape {shape}, but there are {lengths[0]:,} genes and "
                f"{lengths[1]:,} samples."
            )

        def matrix() -> Matrix:
            # As many genes as samples leave both open: then it is genes by samples, as the published files are.
            return GeneMajorMatrix(f"{name}: X", counts) if shape == lengths else DenseMatrix(f"{name}: X", counts)

        obs, var = pd.DataFrame(index=pd.Index(samples)), pd.DataFrame(index=pd.Index(genes))
        return PlainSource(name, obs, var, {"X": matrix}, file.close)
    except BaseException:
        file.close()
        raise
