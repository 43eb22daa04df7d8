"""One source of a store as it is written: a part, whole or not there at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lexicell.data import store_format as fmt
from lexicell.data.counts import Block

LENGTHS, PANEL, ENTRY = "lengths.npy", "panel.npy", "part.json"


@dataclass(frozen=True, eq=False)
class Part:
    """What a writer has to know of one source.

    Attributes
    ----------
    name, species
        As in `lexicell.data.store.Source`.
    panel
        Store-local indices of the genes that the source measured, in any order.
    key
        Says what the part is made from: what an interrupted writer left is used when its key is the same.
    details
        Further facts for ``meta.json`` (JSON-able).
    """

    name: str
    species: str
    panel: npt.NDArray[np.int64]
    key: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def write_part(
    folder: Path,
    part: Part,
    n_genes: int,
    blocks: Iterable[Block],
    obs: pd.DataFrame,
    afterwards: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, Any]:
    """Write one source as a part of a store; runs in any process.

    Parameters
    ----------
    folder
        Where the part will stand once it is whole.
    part
        Name, species, panel and key.
    n_genes
        Number of genes of the store.
    blocks
        The source's cells in order.
    obs
        One row a cell, in the same order; `depth` and `n_genes` are added here.
    afterwards
        Called when all blocks are written; returns further details.

    Returns
    -------
    dict
        What ``part.json`` holds.
    """
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    dtype = fmt.gene_dtype(n_genes)
    lengths, depths, overflow_at, overflow = [], [], [], []
    nnz = 0
    with _NpyFile(draft / fmt.GENES, dtype) as genes, _NpyFile(draft / fmt.COUNTS, np.dtype(np.uint16)) as counts:
        for block in blocks:
            genes.append(block.genes)
            narrow = block.counts
            if len(narrow) and narrow.max() >= fmt.OVERFLOW:
                places = np.flatnonzero(narrow >= fmt.OVERFLOW)
                overflow_at.append(places + nnz)
                overflow.append(narrow[places].astype(np.int64))
                narrow = np.minimum(narrow, fmt.OVERFLOW)
            counts.append(narrow)
            lengths.append(block.lengths)
            depths.append(block.depths)
            nnz += len(narrow)
    n_genes_per_cell = _join(lengths)
    if len(n_genes_per_cell) != len(obs):
        raise ValueError(f"{part.name}: {len(n_genes_per_cell)} cells were written, but obs has {len(obs)} rows.")
    np.save(draft / LENGTHS, n_genes_per_cell)
    np.save(draft / fmt.OVERFLOW_AT, _join(overflow_at))
    np.save(draft / fmt.OVERFLOW_COUNTS, _join(overflow))
    np.save(draft / PANEL, np.unique(part.panel).astype(np.int64))
    _obs_table(obs, part, _join(depths), n_genes_per_cell, draft / fmt.OBS)
    entry: dict[str, Any] = {"name": part.name, "species": part.species, "details": {**part.details, **afterwards()}}
    entry |= {"key": part.key, "n_cells": len(obs), "nnz": nnz, "n_genes": n_genes}
    (draft / ENTRY).write_bytes(fmt.canonical_json(entry))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return entry


class _NpyFile:
    """A one-dimensional .npy file that grows; its header is right once it is closed."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._file = path.open("wb")
        self._dtype, self._length = dtype, 0
        self._file.write(fmt.npy_header(dtype, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._file.write(fmt.npy_header(self._dtype, self._length))

    def append(self, values: npt.NDArray[Any]) -> None:
        """Write values at the end."""
        self._file.write(as_bytes(values.astype(self._dtype)))
        self._length += len(values)


def part_entry(folder: Path) -> dict[str, Any] | None:
    """Return what the part in `folder` says of itself, or None where there is no whole part."""
    try:
        entry = json.loads((folder / ENTRY).read_bytes())
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and {"key", "n_genes", "n_cells", "nnz"} <= set(entry) else None


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of an array, without copying where they lie in one piece."""
    return np.ascontiguousarray(array).view(np.uint8).data


def _join(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays]).astype(np.int64, copy=False)


def _obs_table(
    obs: pd.DataFrame, part: Part, depth: npt.NDArray[np.int64], n_genes: npt.NDArray[np.int64], path: Path
) -> None:
    rest = [name for name in obs.columns if name not in fmt.STANDARD_COLUMNS]
    columns: dict[str, Any] = {
        "source": pd.Categorical([part.name]).repeat(len(obs)),
        "species": pd.Categorical([part.species]).repeat(len(obs)),
    }
    for name in [*(name for name in ("donor", "tissue", "assay") if name in obs.columns), *rest]:
        text = obs[name].dtype == object or pd.api.types.is_string_dtype(obs[name].dtype)
        columns[name] = pd.Categorical(obs[name]) if text else obs[name].array
    index = pd.Index(obs.index.astype(str), name="cell")
    frame = pd.DataFrame({**columns, "depth": depth, "n_genes": n_genes}, index=index)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=True), path)
