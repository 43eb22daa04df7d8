"""Are the count classes in order, where do neighbours become one, and what does clamping cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lexicell.errors import InputError
from lexicell.gene_space.count_order import CountOrder, count_order, merged_from
from lexicell.inference.cell_model import CellModel
from lexicell.inference.count_effects import CountEffects, count_effects
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.interpret_figures import count_classes_figure
from lexicell.reporting.text import Table
from lexicell.workflows.embed import load
from lexicell.workflows.genes_cells import cells_of_species, one_species, open_cells
from lexicell.workflows.interpret_cells import one_query, report_folder

INDISTINCT = 0.05  # a step that moves the cell by less than this share of what removing the count does


@dataclass(frozen=True)
class InterpretCountsResult:
    """Order and effect of count classes."""

    classes: pd.DataFrame
    """One row a class: class, from_count, to_count, count (middle), occurs (in the cells looked at), seen (often enough
    to be put in order), first, second, step, nearest, in_order (see `lexicell.gene_space.count_order.CountOrder`),
    tokens, cls_step, cls_removal and step_share (how far CLS moves by one class, by removal, and their ratio; the bag
    beside it knows no classes)."""
    distances: pd.DataFrame
    """Distance of every two classes: class, other, distance."""
    caps: pd.DataFrame
    """One row a cap: max_count, share_above (of expressed counts), moved (of CLS alone, as a share of the distance
    between two cells, CLS and bag together)."""
    order: CountOrder
    effects: CountEffects
    cells: int
    least: int
    written: tuple[Path, ...]

    @property
    def indistinct_from(self) -> int | None:
        """Count from which the step to the next class moves a cell by less than 5% of what removing it does."""
        found = merged_from(self.classes["step_share"].to_numpy(np.float64), INDISTINCT)
        return None if found is None else int(self.classes["from_count"].iloc[found])

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "classes": len(self.classes),
            "classes_seen": int(self.classes["seen"].sum()),
            "spearman": self.order.spearman,
            "distance_spearman": self.order.distance_spearman,
            "first_coordinate_explains": self.order.explained,
            "nearest_is_neighbour": self.order.in_order,
            "indistinct_from": self.indistinct_from,
            "counts_above_last_class": self.effects.clamped,
            "cells": self.cells,
            "caps": self.caps.to_dict("records"),
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        seen = int(self.classes["seen"].sum())
        distinct = self.indistinct_from
        rows: list[tuple[object, ...]] = [
            (
                f"classes with {self.least} counts or more in {self.cells:,} cells (and 0)",
                f"{seen} of {len(self.classes)}",
            ),
            ("Spearman of the first coordinate with count, those classes", self.order.spearman),
            ("variance that it explains", self.order.explained),
            ("Spearman of distance with difference in log count", self.order.distance_spearman),
            ("classes whose nearest class is their neighbour", self.order.in_order),
            ("the same, by chance", 2 / (seen - 1) if seen > 2 else None),
            (f"a step moves a cell by less than {INDISTINCT:.0%} of removal from count", distinct),
            ("counts above the last class", self.effects.clamped),
        ]
        capped = tuple(tuple(row) for row in self.caps.itertuples(index=False))
        words = ("counts capped at", "share of expressed counts above", "cell moves, of the distance to another cell")
        return [Table("Count classes", ("", ""), tuple(rows)), Table("What a cap would cost", words, capped)]


def interpret_counts(
    model: CellModel | str | Path,
    store: str | Path | Sequence[str | Path] | None = None,
    *,
    species: str | None = None,
    cells: int = 100,
    tokens: int = 32,
    least: int = 20,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> InterpretCountsResult:
    """Look into the embeddings of count classes.

    Parameters
    ----------
    model
        A run folder, or a model.
    store
        Stores with cells, which tell how often a class occurs and what it does; the run's own when None.
    species
        Whose cells; not needed where the model knows one species.
    cells
        Cells that are looked at, drawn at random.
    tokens
        Tokens of each class that are changed.
    least
        Classes that occur less often in those cells are left out of the order: training hardly saw them.
    seed
        Draws cells and tokens.
    out
        Folder for tables and picture; ``report`` in the run's folder when None. A model alone writes nothing
        without it.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When the cells cannot be read.
    """
    if min(cells, tokens, least) < 1 or cells < 2:
        raise InputError("--cells: 2 or more; --tokens and --least: 1 or more")
    loaded = load(model)
    collection = open_cells(model, loaded, store)
    rng = generator(seed, "count cells")
    own = rng.permutation(cells_of_species(collection, one_species(collection, species)))[:cells]
    query = one_query(collection, np.sort(own))
    classes = loaded.network.count_classes
    edges = classes.edges.cpu().numpy().astype(np.int64)
    upper = np.append(edges[1:] - 1, max(classes.max_count, int(edges[-1])))
    caps = _caps(len(edges))
    effects = count_effects(loaded, query, caps=caps, tokens=tokens, rng=rng, progress=progress)
    centres = classes.centres().cpu().numpy()
    seen = effects.occurs >= least
    seen[0] = True  # zeros are seen more than all else
    order = count_order(loaded.network.counts.weight.detach().float().cpu().numpy(), centres, seen)
    table = pd.DataFrame({"class": np.arange(len(edges)), "from_count": edges, "to_count": upper, "count": centres})
    table = pd.concat([table.assign(occurs=effects.occurs, seen=seen), order.classes], axis=1)
    step_share = np.full(len(edges), np.nan)
    known = effects.removal > 0
    step_share[known] = effects.step[known] / effects.removal[known]
    table = table.assign(
        tokens=effects.tokens, cls_step=effects.step, cls_removal=effects.removal, step_share=step_share
    )
    total = max(int(effects.occurs.sum()), 1)
    capped = pd.DataFrame(
        {
            "max_count": upper[effects.caps],
            "share_above": [effects.occurs[cap + 1 :].sum() / total for cap in effects.caps],
            "moved": effects.capped / max(effects.between, 1e-12),
        }
    )
    one, other = np.triu_indices(len(edges), k=1)
    pairs = pd.DataFrame({"class": one, "other": other, "distance": order.distances[one, other]})
    result = InterpretCountsResult(table, pairs, capped, order, effects, query.n_cells, least, ())
    folder = report_folder(model, out)
    return result if folder is None else _write(result, folder)


def _caps(n_classes: int) -> list[int]:
    """Return classes to cap at: 1, 2, 3, 5, 8, 12, ... and those of the last quarter in threes."""
    caps = [1, 2, 3, 5, 8, 12, *range(15, n_classes - 1, 4)]
    return [cap for cap in caps if cap < n_classes - 1]


def _write(result: InterpretCountsResult, folder: Path) -> InterpretCountsResult:
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "interpret_counts": result.classes,
        "interpret_counts_distances": result.distances,
        "interpret_counts_caps": result.caps,
    }
    written = [folder / f"{name}.csv" for name in tables]
    for path, table in zip(written, tables.values(), strict=True):
        table.to_csv(path, index=False)
    figure = count_classes_figure(result.classes, result.distances, result.caps)
    written += save_figure(figure, folder / "interpret_counts")
    return InterpretCountsResult(
        result.classes,
        result.distances,
        result.caps,
        result.order,
        result.effects,
        result.cells,
        result.least,
        tuple(written),
    )
