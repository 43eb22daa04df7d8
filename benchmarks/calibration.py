"""Do probabilities mean what they say, and does `--max-error` keep its word, on donors that nothing was learned from?

Usage: LEXICELL_DATA=FOLDER python benchmarks/calibration.py --out FOLDER [--sets mop,snare] [--run RUN]
       [--limits 0.02,0.05,0.1]

In every fold of a set (those of benchmarks/annotate.py, by donor or batch) the probe learns from the reference, is
calibrated on donors of it that are held out in turn, as `lexicell annotate` does it, and labels the query: donors
that took no part. Printed is, per level, the calibration error on the query, raw and calibrated; and for each limit,
how many of the query's cells kept a label, and how many of these labels were wrong. Without --run the probe has no
model, and judges by counts alone. calibration.csv and limits.csv keep every fold.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from annotate import SETS, store_of

from lexicell.annotation.calibration import called_right, expected_calibration_error
from lexicell.annotation.folds import reference_folds
from lexicell.annotation.held_out import final_calls, judge
from lexicell.annotation.methods import ProbeMethod, SeenCells, cross_fit_choosing
from lexicell.annotation.tree import call_labels
from lexicell.evaluation.runner import Task
from lexicell.evaluation.splits import Fold
from lexicell.inference.cell_model import CellModel
from lexicell.labels import LabelTree
from lexicell.reporting.text import Table, print_tables
from lexicell.workflows.benchmark_embeddings import embed_store
from lexicell.workflows.benchmark_tasks import store_tasks

Rows = list[dict[str, object]]


def judge_fold(task: Task, fold: Fold, embedding: np.ndarray, limits: list[float]) -> tuple[Rows, Rows]:
    """Return calibration errors per level, and what each limit kept per level, on a fold's test cells."""
    assert task.paths is not None
    tree = LabelTree.from_frame(task.paths, tuple(map(str, task.paths)), task.name)  # the query's labels are in it too
    codes, truth = (tree.encode(task.paths.iloc[rows]) for rows in (fold.train, fold.test))
    known, asked = (SeenCells(embedding[rows], task.counts[rows]) for rows in (fold.train, fold.test))
    donors = None if task.groups is None else task.groups[fold.train]
    folds, by_donor = reference_folds(donors, codes)
    method, held_out = cross_fit_choosing(ProbeMethod(), known, codes, tree, folds)
    tables = method.fit(known, codes, tree).tables(asked)
    raw = call_labels(tree, tables)
    about = {"set": task.name, "query": fold.name, "cells": len(fold.test)}
    errors, kept = [], []
    for limit in limits:
        report = judge(tree, held_out, codes, donors, by_donor=by_donor, max_error=limit)
        calibrated = call_labels(tree, report.temperatures.apply(tree, tables))
        calls = final_calls(tree, tables, report)
        about |= {"reference donors": report.n_donors}
        for place, level in enumerate(tree.levels):
            if limit == limits[0]:
                ece = [expected_calibration_error(*called_right(one, truth, place)) for one in (raw, calibrated)]
                errors.append({**about, "level": level, "raw": ece[0], "calibrated": ece[1]})
            called = (calls.codes[:, place] >= 0) & (truth[:, place] >= 0)
            wrong = calls.codes[called, place] != truth[called, place]
            whole = calibrated.codes[:, place] != truth[:, place]
            kept.append(
                {
                    **about,
                    "level": level,
                    "limit": limit,
                    "promise": report.promise,
                    "kept": int(called.sum()),
                    "wrong": int(wrong.sum()),
                    "wrong of all": int(whole[truth[:, place] >= 0].sum()),
                    "labelled": int((truth[:, place] >= 0).sum()),
                }
            )
    return errors, kept


def summary(kept: pd.DataFrame) -> Table:
    """Return one row a set, level and limit: folds pooled, and in how many the limit was kept."""
    rows = []
    for (name, level, limit), part in kept.groupby(["set", "level", "limit"], sort=False):
        share = part["wrong"] / part["kept"].clip(lower=1)
        rows.append(
            (
                f"{name}, {level}",
                limit,
                "a promise" if part["promise"].all() else "an estimate",
                part["kept"].sum() / part["labelled"].sum(),
                part["wrong"].sum() / max(part["kept"].sum(), 1),
                f"{int((share <= limit).sum())} of {len(part)}",
                float(share.max()),
                part["wrong of all"].sum() / part["labelled"].sum(),
            )
        )
    columns = ("set", "limit", "called", "kept", "error", "folds within it", "worst fold", "error of all")
    return Table("What --max-error keeps, on donors that took no part", columns, tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for stores, embeddings and tables")
    parser.add_argument("--sets", default="mop,snare,baron_human", help="sets of benchmarks/annotate.py")
    parser.add_argument("--run", type=Path, help="a pretrained run; without it the probe judges by counts alone")
    parser.add_argument("--limits", default="0.02,0.05,0.1", help="shares of wrong calls, with commas between")
    options = parser.parse_args()
    if "LEXICELL_DATA" not in os.environ:
        parser.error("the variable LEXICELL_DATA does not name the folder with the data")
    limits = [float(limit) for limit in options.limits.split(",")]
    errors: Rows = []
    kept: Rows = []
    for name in options.sets.split(","):
        store = store_of(name, Path(os.environ["LEXICELL_DATA"]), options.out)
        _, split, fewest = SETS[name]
        task = store_tasks(store, split=split, min_cells=fewest)[-1]
        embedding = np.empty((store.n_cells, 0), dtype=np.float32)
        if options.run:
            embedding = embed_store(CellModel.load(options.run), store, options.out / f"{name}-embedding.npz")
        for fold in task.folds:
            found = judge_fold(task, fold, embedding, limits)
            errors, kept = errors + found[0], kept + found[1]
            print(f"{name}, {fold.name}: done", flush=True)
        pd.DataFrame(errors).to_csv(options.out / "calibration.csv", index=False)
        pd.DataFrame(kept).to_csv(options.out / "limits.csv", index=False)
    table = pd.DataFrame(errors)
    columns = ("set", "query", "cells", "reference donors", "level", "raw", "calibrated")
    shown = tuple(tuple(row) for row in table[list(columns)].itertuples(index=False))
    print_tables([Table("Expected calibration error on the query", columns, shown), summary(pd.DataFrame(kept))])


if __name__ == "__main__":
    main()
