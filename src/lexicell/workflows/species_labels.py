"""Labels that the coupling of two species carries over by itself: of matched groups, before and beside any network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.annotation.tree import call_labels, consistent
from lexicell.gene_space.coupling import place_cells, transfer
from lexicell.labels import LabelTree, clean_labels
from lexicell.reporting.text import Table
from lexicell.training.extension import LineCells
from lexicell.training.gene_rows import log_cpm
from lexicell.training.species_rows import CoupledCells
from lexicell.workflows.genes import write_table
from lexicell.workflows.held_out import FOLDER
from lexicell.workflows.species_measures import score_shared

NAME = "species_labels"
PROB, UNKNOWN = "_prob", "unknown"
_BLOCK = 10_000  # cells that are placed at once
_SHOWN = 15  # labels in the summary
_DOUBTFUL = 0.5

Int64 = npt.NDArray[np.int64]


def coupled_labels(data: LineCells, coupled: Sequence[CoupledCells]) -> pd.DataFrame | None:
    """Return labels of all new cells whose species was coupled, held-out ones too.

    Parameters
    ----------
    data
        All cells, old and new.
    coupled
        The species that were coupled.

    Returns
    -------
    DataFrame or None
        One row a cell: ``cell`` (its name), ``source``, ``species``; for each label level its label and, as
        ``LEVEL_prob``, its share of the votes of matched groups; ``unknown``, the part of the cell's groups that found
        no partner. None where no old cell has a label.
    """
    tree, collection = data.label_tree, data.collection
    labels = collection.labels[: data.n_old_cells].astype(np.int64)
    parts = [part for part in coupled if (labels[part.old] >= 0).any()] if tree is not None else []
    if tree is None or not parts:
        return None
    edges = np.cumsum([0, *(store.n_cells for store in collection.stores)])
    new = [store for store, begin in zip(collection.stores, edges[:-1], strict=True) if begin >= data.n_old_cells]
    names = np.concatenate([store.obs.index.to_numpy(dtype=object) for store in new])
    source, species = collection.column("source"), collection.column("species")
    frames = []
    for part in parts:
        cells = data.n_old_cells + np.flatnonzero(species[data.n_old_cells :] == part.species)
        groups = _groups(data, part, cells)
        found = [transfer(part.couplings, labels[part.old, place], n, groups) for place, n in enumerate(tree.sizes)]
        calls = call_labels(tree, consistent(tree, [probabilities for probabilities, _ in found]))
        said = tree.decode(calls.codes)
        frame = pd.DataFrame(
            {"cell": names[cells - data.n_old_cells], "source": source[cells], "species": part.species}
        )
        for place, level in enumerate(tree.levels):
            frame[level] = said[level].to_numpy(dtype=object)
            frame[level + PROB] = calls.probs[:, place]
        frames.append(frame.assign(**{UNKNOWN: found[0][1]}).set_index(cells))
    return pd.concat(frames)


def _groups(data: LineCells, part: CoupledCells, cells: Int64) -> list[Int64]:
    """Return the cells' groups: as they were grouped, and, for cells that were not, those they are most like."""
    place = pd.Index(cells).get_indexer(pd.Index(part.new))
    rest = np.setdiff1d(np.arange(len(cells)), place)
    groups = [np.empty(len(cells), np.int64) for _ in part.couplings]
    for group, coupling in zip(groups, part.couplings, strict=True):
        group[place] = coupling.second.group
    for start in range(0, len(rest), _BLOCK):
        block = rest[start : start + _BLOCK]
        logs = log_cpm(data.collection, cells[block], part.genes)
        for group, coupling in zip(groups, part.couplings, strict=True):
            group[block] = place_cells(logs, coupling.second)
    return groups


def score_labels(table: pd.DataFrame, data: LineCells, tree: LabelTree, levels: Sequence[str]) -> dict[str, Any]:
    """Return a table's figures: how many cells, and, where the truth is known, how it compares.

    Parameters
    ----------
    table
        Of `coupled_labels`; its index says which cells.
    data
        All cells.
    tree
        The old labels.
    levels
        Those whose truth the new cells carry. Cells whose label was learned from (``labels: true``) are left out.
    """
    cells = table.index.to_numpy()
    figures: dict[str, Any] = {"cells": len(table), "doubtful": float((table[UNKNOWN] > _DOUBTFUL).mean())}
    learned = np.isin(cells, data.new_training) & (data.collection.labels[cells] >= 0).any(axis=1)
    asked = ~learned
    if not levels or not asked.any():
        return figures
    scores = {}
    for level in levels:
        texts = data.collection.coded(level).texts()[cells[asked]]
        truth = pd.Series(clean_labels(pd.Series(texts, dtype=object)))
        said = table[asked].reset_index(drop=True)
        doubts = {"unmatched": said[UNKNOWN].to_numpy(), "unsure": 1 - said[level + PROB].to_numpy()}
        scores[level] = score_shared(truth, said[level], tree.names[tree.levels.index(level)], doubts)
    return figures | {"levels": scores}


def write_labels(run: Path, table: pd.DataFrame) -> None:
    """Write the table into the run's report, as parquet and as CSV."""
    for ending in (".parquet", ".csv"):
        write_table(table, run / FOLDER / f"{NAME}{ending}")


def labels_table(run: Path, figures: dict[str, Any]) -> Table:
    """Return a summary of the labels for people: how many cells of each, how sure, and how they scored."""
    found = pd.read_parquet(run / FOLDER / f"{NAME}.parquet")
    level = next(name.removesuffix(PROB) for name in reversed(found.columns) if name.endswith(PROB))
    by_label = found.groupby(level, sort=False, observed=True).agg(
        cells=(level, "size"), sure=(level + PROB, "mean"), unknown=(UNKNOWN, "mean")
    )
    by_label = by_label.sort_values("cells", ascending=False)
    rows: list[tuple[object, ...]] = [tuple(row) for row in by_label.head(_SHOWN).itertuples()]
    if len(by_label) > _SHOWN:
        rows.append((f"{len(by_label) - _SHOWN} more labels", int(by_label["cells"][_SHOWN:].sum()), None, None))
    for name, scores in figures.get("levels", {}).items():
        rows.append((f"accuracy, {name} ({scores['cells']:,} cells of shared types)", scores["accuracy"], None, None))
        rows.append((f"macro-F1, {name}", scores["macro_f1"], None, None))
        if "unknown" in scores:
            auroc = scores["unknown"]["unmatched"]["auroc"]
            rows.append((f"types only the new species has: unmatched, AUROC, {name}", auroc, None, None))
    columns = (f"{level}, by the coupling", "cells", "confidence", "unknown")
    return Table("Labels of matched groups", columns, tuple(rows))
