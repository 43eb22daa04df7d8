"""Probabilities that mean what they say: one temperature a level, and how far confidence is from accuracy.

A temperature divides log P(child | parent) among siblings; the products down the tree stay consistent (Guo et al.
2017, applied per level).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar

from lexicell.annotation.linear import along_paths, log_softmax_among_siblings
from lexicell.annotation.tree import Calls, Tables
from lexicell.labels import LabelTree

BINS = 10
_BOUNDS = (np.log(0.05), np.log(20.0))
_FLOOR = 1e-6  # probability below which a label counts as excluded: a vote that nobody cast is not proof


@dataclass(frozen=True)
class Temperatures:
    """One temperature a level; above 1 makes a level less sure, below 1 surer.

    Attributes
    ----------
    values
        Temperatures, coarse to fine.
    """

    values: tuple[float, ...]

    def apply(self, tree: LabelTree, tables: Sequence[npt.NDArray[np.floating]]) -> Tables:
        """Return calibrated probabilities of consistent tables, one (n_cells, n_labels) a level."""
        if all(value == 1.0 for value in self.values):
            return [np.asarray(table, dtype=np.float32) for table in tables]
        conditionals = [
            log_softmax_among_siblings(tree, place, logs / value)
            for place, (logs, value) in enumerate(zip(log_conditionals(tree, tables), self.values, strict=True))
        ]
        return along_paths(tree, conditionals)


def log_conditionals(tree: LabelTree, tables: Sequence[npt.NDArray[np.floating]]) -> list[npt.NDArray[np.float64]]:
    """Return log P(label | parent) of consistent probability tables; -inf where a label or its parent has none."""
    found = []
    for place, table in enumerate(tables):
        whole = np.asarray(tables[place - 1], np.float64)[:, tree.parents[place]] if place else 1.0
        share = np.divide(table, whole, out=np.zeros(np.shape(table)), where=np.asarray(whole) > 0)
        with np.errstate(divide="ignore"):
            found.append(np.log(share))
    return found


def fit_temperatures(
    tree: LabelTree, tables: Sequence[npt.NDArray[np.floating]], codes: npt.NDArray[np.int64]
) -> Temperatures:
    """Fit a temperature for each level on held-out cells, by maximum likelihood of their true child.

    Parameters
    ----------
    tree
        The label tree.
    tables
        Probabilities of held-out cells, consistent, one (n_cells, n_labels) a level.
    codes
        Their true labels (n_cells, n_levels), -1 is missing. A level is judged on cells that have a label there and
        above, among the siblings of the true label; a level without a choice to make keeps a temperature of 1.
    """
    return conditional_temperatures(tree, log_conditionals(tree, tables), codes)


def conditional_temperatures(
    tree: LabelTree,
    logs: Sequence[npt.NDArray[np.floating]],
    codes: npt.NDArray[np.int64],
    *,
    alike: bool = False,
) -> Temperatures:
    """Fit a temperature for each level of log P(label | parent); see `fit_temperatures`.

    With `alike`, all labels count alike instead of all cells.
    """
    values = []
    for place, table in enumerate(logs):
        parents = tree.parents[place] if place else np.zeros(table.shape[1], dtype=np.int64)
        siblings = np.bincount(parents)[parents]
        truth = codes[:, place]
        usable = (truth >= 0) & (siblings[truth] > 1) & np.isfinite(table).any(axis=1)
        if place:
            usable &= codes[:, place - 1] >= 0
        floored = np.maximum(table[usable], np.log(_FLOOR))
        sizes = np.bincount(truth[usable], minlength=tree.sizes[place]) if alike else np.ones(tree.sizes[place])
        weights = 1 / sizes[truth[usable]]
        values.append(_best_temperature(tree, place, floored, truth[usable], weights) if usable.any() else 1.0)
    return Temperatures(tuple(values))


def _best_temperature(
    tree: LabelTree,
    place: int,
    logs: npt.NDArray[np.float64],
    truth: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
) -> float:
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax_among_siblings(tree, place, logs / np.exp(log_temperature))
        return -float(np.average(scaled[rows, truth], weights=weights))

    found = minimize_scalar(loss, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def reliability(probs: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], bins: int = BINS) -> pd.DataFrame:
    """Return confidence against accuracy in equal-width bins of confidence: low, high, n_cells, confidence, accuracy.

    Bins without a cell are left out.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(np.asarray(probs, dtype=np.float64) * bins).astype(int) - 1, 0, bins - 1)
    size = np.bincount(place, minlength=bins)
    sure = np.bincount(place, np.asarray(probs, dtype=np.float64), bins)
    right = np.bincount(place, np.asarray(correct, dtype=np.float64), bins)
    here = np.flatnonzero(size)
    return pd.DataFrame(
        {
            "low": edges[here],
            "high": edges[here + 1],
            "n_cells": size[here],
            "confidence": sure[here] / size[here],
            "accuracy": right[here] / size[here],
        }
    )


def expected_calibration_error(
    probs: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], bins: int = BINS
) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins, weighted by cells (Naeini 2015).

    NaN without a cell.
    """
    table = reliability(probs, correct, bins)
    if not len(table):
        return float("nan")
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["n_cells"]).sum() / table["n_cells"].sum())


def called_right(
    calls: Calls, codes: npt.NDArray[np.int64], place: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return confidence and rightness of a level's calls, for cells whose truth is known there."""
    known = codes[:, place] >= 0
    return calls.probs[known, place], calls.codes[known, place] == codes[known, place]
