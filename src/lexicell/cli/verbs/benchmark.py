"""Verbs that put lexicell beside other methods, on a user's own cells."""

from __future__ import annotations

from pathlib import Path

from lexicell.cli.verbs.result import Result
from lexicell.workflows.benchmark_options import Entrants, Part


def benchmark_annotate(
    store: Path,
    *,
    out: Path,
    split: str = "donor",
    entrants: Entrants,
    levels: tuple[str, ...] | None = None,
    only: Part,
    labelled: tuple[int, ...] = (),
    min_cells: int = 1,
    seeds: int = 3,
    baseline: str | None = None,
    overrides: dict[str, object] | None = None,
) -> Result:
    """Annotate the same held-out cells with lexicell, other tools and other embeddings; print who does best.

    Every answer is kept in the folder: an interrupted benchmark goes on, and a further competitor joins the others.

    Parameters
    ----------
    store
        Folder of a store with labels.
    out
        Folder for answers, tables (scores.csv, intervals.csv) and pictures.
    split
        donor holds each donor out in turn; donor:K deals donors over K folds; folds:K deals cells, stratified by the
        finest level; donor=NAME and source=NAME test on one donor or input file.
    entrants
        Who takes part.
    levels
        Label levels, coarse to fine, with commas between. Default: all of the store's.
    only
        Which part of the tasks is asked for.
    labelled
        Numbers of labelled training cells a label, with commas between: draws learning curves. Each seed draws its own.
    min_cells
        Labels with fewer cells are left out.
    seeds
        Number of seeds, for competitors that draw anything; for learning curves also the number of draws.
    baseline
        Whom the others are compared with, by paired intervals: a competitor, or best: of each task and level the best
        one of the other tools and embeddings. Default: logistic_regression, where it takes part.
    overrides
        Fields of how the method finetune trains, in dotted form.
    """
    from lexicell.workflows.benchmark_annotate import benchmark_annotate

    return benchmark_annotate(
        store,
        out,
        split=split,
        entrants=entrants,
        levels=levels,
        only=only,
        labelled=labelled,
        min_cells=min_cells,
        seeds=seeds,
        baseline=baseline,
        overrides=overrides,
    )
