"""Embed cells with a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anndata import AnnData, read_h5ad

from lexicell.data.query import Query, read_query
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import Table

KEY = "X_lexicell"


@dataclass(frozen=True)
class EmbedResult:
    """Embedded cells."""

    adata: AnnData
    """The query with ``obsm["X_lexicell"]``, (n_cells, width) float32."""
    query: Query
    """How the query was read: species, counts, matched genes."""
    out: Path | None
    """File written, if any."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "cells": self.adata.n_obs,
            "width": int(self.adata.obsm[KEY].shape[1]),
            "genes": self.query.report.figures(),
            "out": str(self.out) if self.out else None,
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows: list[tuple[object, ...]] = [
            ("cells", f"{self.adata.n_obs:,}"),
            ("embedding", f'obsm["{KEY}"], {self.adata.obsm[KEY].shape[1]} wide'),
            *self.query.report.rows(),
        ]
        if self.out:
            rows.append(("written to", str(self.out)))
        return [Table("Embedding", ("", ""), tuple(rows))]


def load(model: CellModel | str | Path) -> CellModel:
    """Return a model, loaded if it is given as a run folder."""
    return model if isinstance(model, CellModel) else CellModel.load(model)


def embed(
    model: CellModel | str | Path,
    query: AnnData | str | Path,
    *,
    out: str | Path | None = None,
    species: str | None = None,
    counts: str | None = None,
    samples: int | None = None,
    progress: bool = True,
) -> EmbedResult:
    """Embed cells.

    Every expressed gene of a cell that the model knows is used; genes that it does not know are reported.

    Parameters
    ----------
    model
        A model, or a run folder.
    query
        Cells with raw counts, as AnnData or an h5ad file. AnnData given is not changed.
    out
        h5ad file to write.
    species
        Species of the query; not needed where ``uns["species"]`` or an obs column says it.
    counts
        Where the raw counts are: ``X``, ``layers/NAME`` or ``raw``. Default: what holds them.
    samples
        At most so many gene samples a cell: faster, but not every expressed gene is seen.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When model or query cannot be used.
    """
    if out is not None and Path(out).suffix != ".h5ad":
        raise InputError(f"{out}: the output is an h5ad file; end its name in .h5ad")
    if not isinstance(query, AnnData) and Path(query).suffix != ".h5ad":
        raise InputError(f"{query}: the query is not an h5ad file; convert it to h5ad first, or pass it as AnnData")
    model = load(model)
    read = read_query(query, model.lexicon, species=species, counts=counts)
    embedding = model.embed(read, samples=samples, progress=progress)
    adata = query.copy() if isinstance(query, AnnData) else read_h5ad(query)
    adata.obsm[KEY] = embedding
    if out is not None:
        write_h5ad(adata, Path(out))
    return EmbedResult(adata, read, Path(out) if out else None)


def write_h5ad(adata: AnnData, out: Path) -> None:
    """Write an h5ad file so that it is whole or not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part.h5ad")
    adata.write_h5ad(part, compression="gzip")
    part.replace(out)
