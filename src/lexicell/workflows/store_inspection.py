"""`lexicell store info | verify | export`: looking into a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.reporting.text import Table

_MOST_ROWS = 12
_GROUPS = ("species", "donor", "tissue", "assay")


@dataclass(frozen=True, eq=False)
class StoreInfo:
    """What a store holds.

    Attributes
    ----------
    path
        The store's folder.
    summary
        Its size, species and fingerprint.
    sources
        One row a file: name, species, cells, genes it measured, median counts and genes a cell.
    groups
        For species, donor, tissue, assay and each label level, where they are known: number of cells by group,
        largest first.
    """

    path: Path
    summary: dict[str, Any]
    sources: pd.DataFrame
    groups: dict[str, pd.Series]

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            **self.summary,
            "sources": self.sources.to_dict(orient="records"),
            "groups": {name: {str(k): int(n) for k, n in cells.items()} for name, cells in self.groups.items()},
        }

    def tables(self) -> list[Table]:
        """Return the figures for people; long groups are cut with a count."""
        tables = [Table(f"store {self.path}", ("", ""), tuple(self.summary.items()))]
        rows = tuple(tuple(row) for row in self.sources.astype(object).itertuples(index=False))
        tables.append(Table("files", tuple(column.replace("_", " ") for column in self.sources.columns), rows))
        tables += [_group_table(name, cells) for name, cells in self.groups.items()]
        return tables


@dataclass(frozen=True, eq=False)
class StoreCheck:
    """What `store_verify` found.

    Attributes
    ----------
    path
        The store's folder.
    problems
        What is wrong; empty when the store is whole.
    """

    path: Path
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for a whole store, 2 for a damaged one."""
        return 2 if self.problems else 0

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {"store": str(self.path), "whole": not self.problems, "problems": list(self.problems)}

    def tables(self) -> list[Table]:
        """Return the problems for people."""
        if not self.problems:
            return [Table(f"store {self.path}", ("result",), (("whole: every byte is as it was written",),))]
        return [Table(f"store {self.path} is damaged", ("problem",), tuple((text,) for text in self.problems))]


@dataclass(frozen=True)
class StoreExport:
    """What `store_export` wrote: `cells` cells of `genes` genes, at `out`."""

    out: Path
    cells: int
    genes: int

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {"out": str(self.out), "cells": self.cells, "genes": self.genes}

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows = (("cells", self.cells), ("genes", self.genes), ("written to", str(self.out)))
        return [Table("Export", ("", ""), rows)]


def store_info(store: str | Path | Store) -> StoreInfo:
    """Count what a store holds, by file, species, donor, tissue, assay and label level.

    Parameters
    ----------
    store
        A store, or its folder.
    """
    store = store if isinstance(store, Store) else Store.open(store)
    names = [name for name in (*_GROUPS, *store.label_levels) if name in store.columns]
    obs = store.obs_columns([*names, "depth", "n_genes"])
    summary = {
        "store": str(store.path),
        "cells": store.n_cells,
        "genes": store.n_genes,
        "counts_stored": store.nnz,
        "megabytes": round(sum(f.stat().st_size for f in store.path.rglob("*") if f.is_file()) / 1e6, 1),
        "species": listing(store.lexicon.species),
        "label_levels": listing(store.label_levels) or None,
        "fingerprint": store.fingerprint,
    }
    sources = pd.DataFrame(
        {
            "name": source.name,
            "species": source.species,
            "cells": source.stop - source.start,
            "genes_measured": len(source.panel),
            "counts_per_cell": _median(obs["depth"].iloc[source.start : source.stop]),
            "genes_per_cell": _median(obs["n_genes"].iloc[source.start : source.stop]),
        }
        for source in store.sources
    )
    return StoreInfo(store.path, summary, sources, {name: obs[name].value_counts() for name in names})


def store_verify(store: str | Path | Store) -> StoreCheck:
    """Read every byte of a store and report every problem found.

    Parameters
    ----------
    store
        A store, or its folder, which may be too damaged to open.
    """
    path = store.path if isinstance(store, Store) else Path(store)
    if not (path / "meta.json").is_file():
        raise InputError(f"{path}: there is no such store, or this folder is not a store.")
    return StoreCheck(path, tuple(Store.problems(path)))


def store_export(
    store: str | Path | Store, out: str | Path, *, where: str | None = None, overwrite: bool = False
) -> StoreExport:
    """Write cells of a store as .h5ad, raw counts in ``X``.

    Parameters
    ----------
    store
        A store, or its folder.
    out
        The .h5ad file to write.
    where
        Which cells, as a pandas query over ``obs``, such as ``"donor == 'mouse1' and depth > 1000"``; all when
        None.
    overwrite
        Replace a file that stands at `out`.

    Raises
    ------
    InputError
        When the query is not valid or chooses no cell, or `out` cannot be written.
    """
    store = store if isinstance(store, Store) else Store.open(store)
    out = Path(out)
    if out.suffix != ".h5ad":
        raise InputError(f"{out}: expected a name that ends in .h5ad.")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}.")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: stands there already; give another name, or overwrite it on purpose.")
    adata = store.to_anndata(None if where is None else _chosen(store, where))
    draft = out.with_name(f".{out.name}.part")
    try:
        adata.write_h5ad(draft, compression="gzip")
        draft.replace(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}).") from None
    finally:
        draft.unlink(missing_ok=True)
    return StoreExport(out, int(adata.n_obs), int(adata.n_vars))


def _median(values: pd.Series) -> float:
    return float(values.median()) if len(values) else 0.0


def _group_table(name: str, cells: pd.Series) -> Table:
    rows: list[tuple[object, ...]] = [(str(group), int(number)) for group, number in cells.items()]
    if len(rows) > _MOST_ROWS:
        rest = cells.iloc[_MOST_ROWS - 1 :]
        rows = [*rows[: _MOST_ROWS - 1], (f"and {len(rest):,} more", int(rest.sum()))]
    return Table(f"{name} ({len(cells):,})", (name, "cells"), tuple(rows))


def _chosen(store: Store, where: str) -> npt.NDArray[np.int64]:
    obs = store.obs.reset_index(drop=True)
    if "@" in where or "__" in where:
        raise InputError(f"where: {where!r} may only compare columns of obs.")
    try:
        rows = obs.query(where, engine="python").index.to_numpy()
    except Exception as error:  # pandas raises whatever the expression raises
        raise InputError(
            f"where: {where!r} cannot be used ({error}); the columns are {listing(obs.columns, 20)}."
        ) from None
    if not len(rows):
        raise InputError(f"where: {where!r} chooses none of the {store.n_cells:,} cells.")
    return np.asarray(rows, dtype=np.int64)
