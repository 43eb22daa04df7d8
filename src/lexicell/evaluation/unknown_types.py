"""Which score tells cells of a type that the reference lacks? Each type is left out of it in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from lexicell.evaluation.runner import Task
from lexicell.evaluation.splits import Fold

FEWEST_TESTED, FEWEST_LEARNED = 10, 3  # cells of a type on either side of a fold, for it to be left out


def without_each_type(task: Task, fewest_tested: int = FEWEST_TESTED, fewest_learned: int = FEWEST_LEARNED) -> Task:
    """Return a task whose folds are the given ones, once for every type, without its cells among those learned from.

    Parameters
    ----------
    task
        Cells, labels and folds.
    fewest_tested, fewest_learned
        Cells that a type must have among a fold's tested cells, and among those learned from, to be left out.

    Raises
    ------
    ValueError
        When no fold has such a type.
    """
    folds = []
    for fold in task.folds:
        learned, tested = (pd.Series(task.labels[rows]).value_counts() for rows in (fold.train, fold.test))
        for name in sorted(set(learned.index[learned >= fewest_learned]) & set(tested.index[tested >= fewest_tested])):
            left = fold.train[task.labels[fold.train] != name]
            if name and len(set(task.labels[left]) - {""}) > 1:
                folds.append(Fold(f"{fold.name}, without {name}", left, fold.test, left))
    if not folds:
        raise ValueError(f"{task.name}: no type has {fewest_learned} cells to learn from and {fewest_tested} to test.")
    return replace(task, folds=folds)


def unknown_aurocs(predictions: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return how well low confidence tells the cells of the types left out from those of the types learned.

    Parameters
    ----------
    predictions
        As in `Benchmark.predictions`. The confidence says how known a cell looks; it need not be a probability.
    task
        What they are of, made by `without_each_type`. Tested cells of further types that are not learned do not count.

    Returns
    -------
    DataFrame
        One row a task, fold (one type left out), competitor and seed: left_out, n_unknown, n_known, and auroc, the area
        under the ROC curve.
    """
    keys = ["task", "level", "fold", "competitor", "seed"]
    rows, learned = [], {fold.name: set(task.labels[fold.train]) for fold in task.folds}
    for key, part in predictions.groupby(keys, sort=False):
        about = dict(zip(keys, key, strict=True))
        left_out = str(about["fold"]).partition(", without ")[2]
        own = (part["truth"] == left_out).to_numpy()
        counted = own | part["truth"].isin(learned[str(about["fold"])] - {""}).to_numpy()
        score = -part["confidence"].to_numpy(dtype=np.float64)[counted]
        known = int(counted.sum() - own.sum())
        auroc = float(roc_auc_score(own[counted], score)) if own.any() and known else np.nan
        rows.append({**about, "left_out": left_out, "n_unknown": int(own.sum()), "n_known": known, "auroc": auroc})
    return pd.DataFrame(rows)
