"""Contextual gene embeddings: what the model makes of each gene in each group of cells."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from anndata import AnnData
from anndata.io import write_elem
from rich.progress import track

from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.inference.cell_model import CellModel
from lexicell.inference.contextual import RunningMoments, token_moments
from lexicell.randomness import generator
from lexicell.reporting.text import Table
from lexicell.workflows.embed import load
from lexicell.workflows.genes_cells import Groups, groups_of, open_cells, queries
from lexicell.workflows.genes_contextual_groups import GroupStates, write_contexts
from lexicell.workflows.interpret_cells import report_folder

ENDINGS = (".h5ad", ".zarr", ".parquet")


@dataclass(frozen=True)
class GenesContextualResult:
    """Contextual gene embeddings on disk."""

    level: str
    groups: pd.DataFrame
    """One row a group: group, cells, genes (seen), states, layer (its key in the file)."""
    out: Path
    distances: pd.DataFrame
    """One row a pair of groups: see `lexicell.workflows.genes_contextual_groups.GroupStates.tables`."""
    genes: pd.DataFrame
    """One row a gene and group: species, gene_id, symbol, group, n, distance, spread; foremost genes first."""
    written: tuple[Path, ...]
    """Tables and pictures."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {"by": self.level, "groups": self.groups.to_dict("records"), "out": str(self.out)} | {
            "written": [str(path) for path in self.written]
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows = tuple(tuple(row) for row in self.groups[["group", "cells", "genes", "states"]].itertuples(index=False))
        title = f"Contextual gene embeddings by {self.level}, in {self.out}"
        tables = [Table(title, ("group", "cells", "genes seen", "token states"), rows)]
        if len(self.genes):
            key = ["species", "gene_id"]
            farthest = self.genes.sort_values("distance", ascending=False, kind="stable").drop_duplicates(key)
            first = self.genes.drop_duplicates(key).head(10)[[*key, "symbol", "spread"]]
            first = first.merge(farthest[[*key, "group"]], on=key)
            rows = tuple(tuple(row) for row in first[["symbol", "spread", "group"]].itertuples(index=False))
            words = ("gene", "spread, in standard deviations from cell to cell", "farthest from the others in")
            tables.append(Table("Genes whose state differs most between groups", words, rows))
        return tables


def genes_contextual(
    model: CellModel | str | Path,
    store: str | Path | Sequence[str | Path] | None = None,
    *,
    by: str,
    out: str | Path,
    groups: Sequence[str] = (),
    least_cells: int = 10,
    cells: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    pictures: str | Path | None = None,
    progress: bool = True,
) -> GenesContextualResult:
    """Write means and variances of every gene's token state in each group of cells.

    One group is held in memory at a time, as (genes x width) sums, whatever the number of cells; for the tables and the
    picture that compare groups, the states of at most 1,000 genes in at most 60 groups are kept.

    Parameters
    ----------
    model
        A run folder, or a model.
    store
        Stores with the cells; the run's own when None.
    by
        Column of the cell annotation: ``cell_type``, ``tissue``, ``donor`` ...
    out
        ``.h5ad`` or ``.zarr`` (a folder): AnnData with genes as rows and dimensions as columns; ``X`` is the mean over
        all groups' cells, ``layers["mean GROUP"]`` and ``layers["variance GROUP"]`` those of a group (a slash in a
        name becomes ``_``), ``obsm["n"]`` how many states each is of; genes never seen are 0, with n 0. ``.parquet``:
        one row a group and gene that was seen: group, species, gene_id, symbol, n, m0 ... (mean), v0 ... (variance).
    groups
        Groups wanted; all when empty.
    least_cells
        Groups with fewer cells are left out.
    cells
        At most so many cells of a group, drawn at random.
    samples
        At most so many gene samples a cell: faster, but not every expressed gene of a cell is seen.
    seed
        Draws the cells.
    pictures
        Folder for the tables and the picture that compare groups; ``report`` in the run's folder when None. A model
        alone writes none without it.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When a file or an option cannot be used.
    """
    path = Path(out)
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: contextual embeddings are written as {' or '.join(ENDINGS)}; choose one")
    if path.is_dir() and not (path / ".zgroup").is_file():
        raise InputError(f"{path}: is a folder, and none that was written here; choose another name")
    loaded = load(model)
    collection = open_cells(model, loaded, store)
    chosen = groups_of(
        collection, by, only=groups, least=least_cells, most=cells, rng=generator(seed, "contextual cells")
    )
    layers = _layer_names(chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{path.suffix}")
    compared = GroupStates(collection, chosen)
    sink = _ParquetSink(part, loaded.lexicon) if path.suffix == ".parquet" else _AnnDataSink(part, loaded)
    rows = []
    try:
        for name, own, layer in track(
            list(zip(chosen.names, chosen.cells, layers, strict=True)), description=by, disable=not progress
        ):
            moments = token_moments(loaded, queries(collection, own), samples=samples)
            sink.add(name, layer, moments)
            compared.add(name, moments)
            seen = int((moments.n > 0).sum())
            rows.append({"group": name, "cells": len(own), "genes": seen, "states": int(moments.n.sum())})
        table = pd.DataFrame(rows).assign(layer=layers)
        sink.close(table)
        _remove(path)
        part.replace(path)
    finally:
        _remove(part)
    distances, genes = compared.tables(loaded.lexicon)
    folder = report_folder(model, pictures)
    written = [] if folder is None else write_contexts(distances, genes, folder)
    return GenesContextualResult(by, table, path, distances, genes, tuple(written))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _layer_names(groups: Groups) -> list[str]:
    names = [name.replace("/", "_") for name in groups.names]
    if len(set(names)) < len(names):
        raise InputError(f"--by {groups.level}: two groups differ by a slash alone; rename one of them")
    return names


class _AnnDataSink:
    """Writes layers one at a time, so that one group is in memory: to HDF5, or to a zarr folder."""

    def __init__(self, path: Path, model: CellModel) -> None:
        table = model.lexicon.table
        index = pd.Index(table["species"] + ":" + table["gene_id"], name="gene")
        obs = pd.DataFrame(table.to_numpy(), index=index, columns=table.columns)
        var = pd.DataFrame(index=[f"d{i}" for i in range(model.width)])
        empty = AnnData(shape=(len(obs), len(var)), obs=obs, var=var)
        self._path, self._zarr = path, path.suffix == ".zarr"
        if self._zarr:
            _remove(path)  # of a run that was killed
            write_elem(zarr.open_group(str(path), mode="w", zarr_format=2), "/", empty)
        else:
            empty.write_h5ad(path)
        self._all = RunningMoments(len(obs), model.width)
        self._n: dict[str, np.ndarray[Any, Any]] = {}
        self._index = index

    def add(self, name: str, layer: str, moments: RunningMoments) -> None:
        for kind, values in (("mean", moments.mean), ("variance", np.nan_to_num(moments.variance))):
            self._write(f"layers/{kind} {layer}", values.astype(np.float32))
        self._all.merge(moments)
        self._n[name] = moments.n

    def close(self, groups: pd.DataFrame) -> None:
        self._write("X", self._all.mean.astype(np.float32))
        self._write("obsm/n", pd.DataFrame(self._n, index=self._index))
        self._write("uns/groups", groups)

    def _write(self, key: str, values: np.ndarray[Any, Any] | pd.DataFrame) -> None:
        if self._zarr:
            write_elem(zarr.open_group(str(self._path), mode="r+"), key, values)
            return
        options = {"compression": "gzip", "compression_opts": 1} if isinstance(values, np.ndarray) else {}
        with h5py.File(self._path, "r+") as file:
            write_elem(file, key, values, dataset_kwargs=options)


class _ParquetSink:
    """Writes one row group a group of cells."""

    def __init__(self, path: Path, lexicon: Lexicon) -> None:
        self._path, self._lexicon = path, lexicon
        self._writer: pq.ParquetWriter | None = None

    def add(self, name: str, layer: str, moments: RunningMoments) -> None:
        seen = np.flatnonzero(moments.n)
        frame = self._lexicon.table.iloc[seen].reset_index(drop=True)
        frame.insert(0, "group", name)
        frame["n"] = moments.n[seen]
        values = {"m": moments.mean[seen], "v": moments.variance[seen]}
        columns = {f"{k}{i}": v[:, i].astype(np.float32) for k, v in values.items() for i in range(v.shape[1])}
        table = pa.Table.from_pandas(pd.concat([frame, pd.DataFrame(columns)], axis=1), preserve_index=False)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table.cast(self._writer.schema))

    def close(self, groups: pd.DataFrame) -> None:
        if self._writer is not None:
            self._writer.close()
