"""Which genes change company between tissues or cell types?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track

from lexicell.data.cells import CellCollection
from lexicell.errors import InputError
from lexicell.gene_space.displacement import PARTS, compare_groups, split_parts
from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import save_figure, volcano
from lexicell.reporting.text import Table
from lexicell.workflows.embed import load
from lexicell.workflows.genes_cells import FOLDER, Groups, groups_of, one_species, open_cells
from lexicell.workflows.genes_points import CellTable, points_of_cells

Int64 = npt.NDArray[np.int64]

NEIGHBOURS = 20
MEASURES = ("displacement", "rbo", "jaccard")


@dataclass(frozen=True)
class GenesTissueResult:
    """Genes that change company."""

    level: str
    table: str
    genes: pd.DataFrame
    """One row a pair of groups and gene: a, b, species, gene_id, symbol, n_seen and the columns of
    `lexicell.gene_space.displacement.compare_groups`; foremost first."""
    parts: pd.DataFrame
    """One row a group: group, cells, donors, and whether donors were kept whole."""
    written: tuple[Path, ...]

    def summary(self) -> pd.DataFrame:
        """Return one row a pair: genes compared and called, by measure."""
        rows = []
        for (a, b), part in self.genes.groupby(["a", "b"], sort=False):
            called = {f"{m}_fdr05": int((part[f"{m}_fdr"] <= 0.05).sum()) for m in MEASURES}
            rows.append({"a": a, "b": b, "genes": len(part), **called})
        return pd.DataFrame(rows)

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "by": self.level,
            "table": self.table,
            "pairs": self.summary().to_dict("records"),
            "parts": self.parts.to_dict("records"),
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        columns = ("a", "b", "genes", *(f"{m}_fdr05" for m in MEASURES))
        summary = self.summary()
        rows = tuple(tuple(row) for row in summary[list(columns)].itertuples(index=False))
        words = ("a", "b", "genes", *(f"{m}, FDR<.05" for m in MEASURES))
        tables = [Table(f"Genes that change company by {self.level}", words, rows)]
        shown = ("symbol", "displacement_effect", "displacement_excess", "displacement_fdr", "rbo_effect", "rbo_fdr")
        if len(summary) <= 6:
            for (a, b), part in self.genes.groupby(["a", "b"], sort=False):
                first = part.head(10)[list(shown)]
                rows = tuple(tuple(row) for row in first.itertuples(index=False))
                heads = ("gene", "displacement", "excess", "FDR", "neighbours lost (RBO)", "FDR")
                tables.append(Table(f"Foremost, {a} against {b}", heads, rows))
        return tables


def genes_tissue(
    model: CellModel | str | Path,
    store: str | Path | Sequence[str | Path] | None = None,
    *,
    by: str,
    pair: tuple[str | None, str | None] = (None, None),
    table: CellTable = "contextual",
    species: str | None = None,
    donor: str = "donor",
    least: int = 5,
    cells: int = 1000,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> GenesTissueResult:
    """Find genes whose place among the others differs between groups of cells.

    Each group is split into four parts (see `lexicell.gene_space.displacement.split_parts`). Displacement after
    orthogonal Procrustes, and loss of neighbours (rank-biased overlap, Jaccard), between the groups are set against
    those within them; the null distribution is the same comparison of two parts with two others of one group.

    Parameters
    ----------
    model
        A run folder, or a model.
    store
        Stores with the cells; the run's own when None.
    by
        Column of the cell annotation: ``tissue``, ``cell_type`` ...
    pair
        The groups to compare; all pairs of groups when both are None.
    table
        ``contextual`` (mean token states), ``responses`` (what the decoder expects of a gene in the group's cells), or
        ``coexpression`` (PCA loadings of log-CPM: no model, for comparison).
    species
        Whose genes; not needed where the model knows one species.
    donor
        Column that names donors or batches; random parts where there is none.
    least
        Genes seen (expressed) in fewer cells of any part are left out.
    cells
        At most so many cells of a group, drawn at random.
    seed
        Draws cells and parts.
    out
        Folder for tables and pictures; ``report`` in the run's folder when None.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When an option cannot be used, or the groups share too few genes.
    """
    if table not in get_args(CellTable):
        raise InputError(f"--table {table}: expected {', '.join(get_args(CellTable))}")
    a, b = pair
    if (a is None) != (b is None) or (a is not None and a == b):
        raise InputError("name two groups with --a and --b, or neither for all pairs")
    loaded = load(model)
    collection = open_cells(model, loaded, store)
    whose = one_species(collection, species)
    genes = collection.lexicon.rows_of(whose)
    rng = generator(seed, "tissue cells")
    only = () if a is None or b is None else (a, b)
    groups = groups_of(collection, by, species=whose, only=only, least=PARTS * least, most=cells, rng=rng)
    if len(groups.names) < 2:
        raise InputError(f"--by {by}: expected two groups or more of {PARTS * least} cells, got {list(groups.names)}")
    parts, described = _parts(collection, groups, donor, rng)
    made = [
        [points_of_cells(loaded, collection, own, genes, table, seed) for own in of_group]
        for of_group in track(parts, description=f"{table} tables", disable=not progress)
    ]
    found = []
    for i, j in combinations(range(len(made)), 2):
        n_seen = np.min([n for _, n in (*made[i], *made[j])], axis=0)
        keep = np.flatnonzero(n_seen >= least)
        if len(keep) <= NEIGHBOURS:
            raise InputError(
                f"{groups.names[i]}, {groups.names[j]}: {len(keep)} genes are seen in {least} cells of every part; "
                f"more than {NEIGHBOURS} are needed: take more cells (--cells), or a smaller --least"
            )
        points = [[p[keep] for p, _ in side] for side in (made[i], made[j])]
        compared, _ = compare_groups(points[0], points[1], n_seen[keep], NEIGHBOURS)
        about = loaded.lexicon.table.iloc[genes[keep]].reset_index(drop=True)
        about.insert(0, "b", groups.names[j])
        about.insert(0, "a", groups.names[i])
        whole = pd.concat([about.assign(n_seen=n_seen[keep]), compared], axis=1)
        order = np.lexsort((-whole["displacement_excess"], whole["displacement_p"]))
        found.append(whole.iloc[order])
    result = GenesTissueResult(by, table, pd.concat(found, ignore_index=True), described, ())
    folder = Path(out) if out is not None else None if isinstance(model, CellModel) else Path(model) / FOLDER
    return result if folder is None else _write(result, folder)


def _parts(
    collection: CellCollection, groups: Groups, donor: str, rng: np.random.Generator
) -> tuple[list[list[Int64]], pd.DataFrame]:
    donors = collection.column(donor) if donor in collection.columns else None
    parts, rows = [], []
    for name, own in zip(groups.names, groups.cells, strict=True):
        known = None if donors is None or any(d is None for d in donors[own]) else donors[own]
        part = split_parts(known, len(own), rng)
        parts.append([own[part == p] for p in range(PARTS)])
        n_donors = 0 if known is None else len(set(known))
        rows.append({"group": name, "cells": len(own), "donors": n_donors, "donors_whole": n_donors >= PARTS})
    return parts, pd.DataFrame(rows)


def _write(result: GenesTissueResult, folder: Path) -> GenesTissueResult:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "genes_tissue.parquet", folder / "genes_tissue.csv"]
    result.genes.to_parquet(written[0], index=False)
    result.summary().to_csv(written[1], index=False)
    pairs = list(result.genes.groupby(["a", "b"], sort=False))
    for number, ((a, b), part) in enumerate(pairs):
        figure = volcano(
            part["displacement_excess"].to_numpy(),
            part["displacement_p"].to_numpy(),
            part["displacement_fdr"].to_numpy(),
            part["symbol"].to_numpy(dtype=object),
            x_label="displacement beyond that of like genes (median absolute deviations)",
            title=f"{a} against {b}",
        )
        written += save_figure(figure, folder / ("genes_tissue" if len(pairs) == 1 else f"genes_tissue_{number + 1}"))
    return GenesTissueResult(result.level, result.table, result.genes, result.parts, tuple(written))
