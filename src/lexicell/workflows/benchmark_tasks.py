"""Tasks of the annotation benchmark: a store's cells and labels, split by donor, in folds or by source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix

from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.evaluation.runner import Task
from lexicell.evaluation.splits import Fold, hold_out, leave_group_out, stratified_folds
from lexicell.randomness import generator

Int64 = npt.NDArray[np.int64]

SPLITS = "donor, donor:K, folds:K, donor=NAME or source=NAME"


def store_tasks(
    store: Store, *, split: str, levels: Sequence[str] | None = None, min_cells: int = 1, seed: int = 0
) -> list[Task]:
    """Return one task a label level of a store.

    The pool of a fold, cells to learn from without labels, is all cells on its training side, whatever their labels:
    it is the same on every level.

    Parameters
    ----------
    store
        Its labels are the truth; genes that all of its files measured are compared on.
    split
        ``donor`` holds each donor out in turn; ``donor:K`` deals donors over K folds; ``folds:K`` deals cells,
        stratified by the finest level; ``donor=NAME`` and ``source=NAME`` test on one donor or input file.
    levels
        Label levels, coarse to fine. Default: all of the store's.
    min_cells
        Cells of rarer labels are left out of the task.
    seed
        Names how cells or donors are dealt.

    Raises
    ------
    InputError
        When the store has no such labels, or the split does not fit.
    """
    levels = tuple(levels or store.label_levels)
    unknown = [level for level in levels if level not in store.label_levels]
    if unknown or not levels:
        raise InputError(
            f"{store.path}: has no label level {listing(map(repr, unknown)) or 'at all'}; its levels are "
            f"{listing(map(repr, store.label_levels)) or 'none: name them under labels in the corpus'}."
        )
    obs = store.obs
    counts = csr_matrix(store.to_anndata().X)[:, shared_genes(store)]
    paths = pd.DataFrame({level: _text(obs[level]) for level in levels})
    groups = _text(obs["donor"]) if "donor" in obs else None
    folds = split_folds(store, split, _text(obs[levels[-1]]), seed)
    tasks = []
    for place, level in enumerate(levels):
        labels = paths[level].to_numpy()
        common = _common(labels, min_cells)
        kept = [Fold(f.name, f.train[common[f.train]], f.test[common[f.test]], f.train) for f in folds]
        kept = [fold for fold in kept if len(fold.train) and len(fold.test)]
        if not kept:
            raise InputError(
                f"{store.path}: no fold of the split {split!r} has labelled cells on both sides ({level})."
            )
        tasks.append(
            Task(
                store.name, level, counts, labels, kept, {}, groups, paths[list(levels[: place + 1])], store.fingerprint
            ),
        )
    return tasks


def shared_genes(store: Store) -> Int64:
    """Return the genes that every file of a store measured, as columns of the store.

    Raises
    ------
    InputError
        When there is none.
    """
    shared: Int64 = reduce(np.intersect1d, (source.panel for source in store.sources)).astype(np.int64)
    if not len(shared):
        raise InputError(f"{store.path}: its files share no measured gene, so there is nothing to compare on.")
    return shared


def split_folds(store: Store, split: str, labels: npt.NDArray[np.object_], seed: int) -> list[Fold]:
    """Return the folds that a split asks for; see `store_tasks`."""
    kind, _, value = split.partition("=")
    if value and kind in {"donor", "source"}:
        column = _text(store.obs[kind]) if kind in store.obs else np.full(store.n_cells, "", dtype=object)
        return [hold_out(column, value.split("+"))]
    parsed = re.fullmatch(r"(donor|folds)(?::(\d+))?", split)
    if parsed is None or (parsed[1] == "folds" and parsed[2] is None):
        raise InputError(f"split: expected {SPLITS}, got {split!r}.")
    if parsed[1] == "folds":
        return stratified_folds(labels, int(parsed[2]), seed)
    if "donor" not in store.obs:
        raise InputError(f"{store.path}: its cells have no donor; use --split folds:5, or name donor in the corpus.")
    donors = _text(store.obs["donor"])
    return leave_group_out(donors if parsed[2] is None else _dealt(donors, int(parsed[2]), seed))


def _dealt(donors: npt.NDArray[np.object_], n_folds: int, seed: int) -> npt.NDArray[np.object_]:
    """Deal donors over folds, each to the fold with fewest cells, larger donors first; missing stays missing."""
    names, sizes = np.unique(donors[donors != ""].astype(str), return_counts=True)
    if not 2 <= n_folds <= len(names):
        raise InputError(f"split: donor:{n_folds}, but the store has {len(names)} donors; K must be from 2 to that.")
    shuffled = generator(seed, "donor folds").permutation(len(names))
    load = np.zeros(n_folds)
    fold_of = {"": ""}
    for place in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold = int(load.argmin())
        fold_of[str(names[place])] = f"donors {fold + 1}"
        load[fold] += sizes[place]
    return np.array([fold_of[str(name)] for name in donors], dtype=object)


def with_few_labels(tasks: Sequence[Task], numbers: Sequence[int], seed: int = 0) -> Iterator[Task]:
    """Yield each task anew with at most n labelled training cells of each label, for every n: a learning curve.

    The draws are nested: the cells of a smaller n are among those of a larger one. The others stay in the fold's pool,
    to be learned from without their labels.
    """
    for task in tasks:
        for n in sorted(numbers):
            folds = []
            for fold in task.folds:
                order = generator(seed, "few labels", task.name, fold.name).permutation(len(fold.train))
                labels = pd.Series(task.labels[fold.train[order]])
                chosen = order[(labels.groupby(labels).cumcount() < n).to_numpy() & (labels != "").to_numpy()]
                folds.append(Fold(fold.name, np.sort(fold.train[chosen]), fold.test, fold.unlabelled))
            yield replace(task, name=f"{task.name}, {n} a label", folds=folds)


def _common(labels: npt.NDArray[np.object_], min_cells: int) -> npt.NDArray[np.bool_]:
    """Return which cells bear a label that at least `min_cells` cells bear."""
    sizes = pd.Series(labels).map(pd.Series(labels).value_counts()).to_numpy()
    common: npt.NDArray[np.bool_] = (labels != "") & (sizes >= min_cells)
    return common


def _text(column: pd.Series) -> npt.NDArray[np.object_]:
    values = column.astype(object).to_numpy()
    return np.where(pd.isna(values), "", values).astype(str).astype(object)
