"""A linear classifier down the label tree: at each parent, multinomial logistic regression among its children.

Each parent's fit sees its own cells only, so that thousands of labels cost little more than the largest family;
a label's probability is the product of P(child | parent) along its path (local classifiers per parent node, Silla &
Freitas 2011). scikit-learn's default tolerance stops a fit early, which was measured to help (see
`lexicell.evaluation.baselines`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from lexicell.annotation.tree import Tables
from lexicell.labels import LabelTree

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LinearSettings:
    """How each parent's regression is fitted.

    Attributes
    ----------
    penalty
        scikit-learn's C, the inverse strength of the L2 penalty on features as they are given: a feature that is
        scaled up is penalised less.
    balance
        Cells are weighed by (cells of their label) ** -balance: 0 learns labels as frequent as they are, 1 as if all
        were equally frequent.
    max_iterations
        Steps of L-BFGS at most.
    """

    penalty: float = 1.0
    balance: float = 1.0
    max_iterations: int = 1000


@dataclass(frozen=True, eq=False)
class LinearTree:
    """Weights of a linear classifier down the tree.

    Attributes
    ----------
    tree
        The label tree.
    weights, intercepts
        Per level (n_features, n_labels) and (n_labels,), float32; scores are compared among siblings only.
    learned
        Per level, whether a label had a cell to learn from (n_labels,).
    """

    tree: LabelTree
    weights: tuple[Float32, ...]
    intercepts: tuple[Float32, ...]
    learned: tuple[npt.NDArray[np.bool_], ...]

    def log_conditionals(self, features: Float32) -> list[Float32]:
        """Return log P(label | parent), one table (n_cells, n_labels) a level; -inf for labels without a cell."""
        tables = []
        for place, weight in enumerate(self.weights):
            scores = features @ weight + self.intercepts[place]
            scores[:, ~self.learned[place]] = -np.inf
            tables.append(log_softmax_among_siblings(self.tree, place, scores))
        return tables

    def tables(self, features: Float32) -> Tables:
        """Return probabilities (n_cells, n_labels) per level, consistent down the tree."""
        return along_paths(self.tree, self.log_conditionals(features))


def fit_linear_tree(
    features: Float32, codes: Int64, tree: LabelTree, settings: LinearSettings | None = None
) -> LinearTree:
    """Fit a linear classifier down the tree.

    Parameters
    ----------
    features
        (n_cells, n_features), centred; not changed.
    codes
        Labels (n_cells, n_levels) as `LabelTree.encode` gives them; -1 is missing. A cell teaches a level where it has
        a label on it and on the level above.
    tree
        The label tree.
    settings
        How each regression is fitted.

    Raises
    ------
    ValueError
        Where the arrays do not fit together or no cell is labelled on the coarsest level.
    """
    settings = settings or LinearSettings()
    codes = np.asarray(codes)
    if codes.shape != (len(features), len(tree.levels)):
        raise ValueError(f"codes: expected the shape {(len(features), len(tree.levels))}, got {codes.shape}.")
    if not (codes[:, 0] >= 0).any():
        raise ValueError(f"codes: no cell has a label on the level '{tree.levels[0]}'.")
    weights, intercepts, learned = [], [], []
    for place, size in enumerate(tree.sizes):
        weight = np.zeros((features.shape[1], size), dtype=np.float32)
        intercept = np.zeros(size, dtype=np.float32)
        known = codes[:, place] >= 0
        above = codes[:, place - 1] if place else np.where(known, 0, -1)
        for parent in np.unique(above[known & (above >= 0)]):
            cells = np.flatnonzero(known & (above == parent))
            labels = np.unique(codes[cells, place])
            if len(labels) > 1:
                weight[:, labels], intercept[labels] = _fit_family(features[cells], codes[cells, place], settings)
        weights.append(weight)
        intercepts.append(intercept)
        learned.append(np.bincount(codes[known, place], minlength=size) > 0)
    return LinearTree(tree, tuple(weights), tuple(intercepts), tuple(learned))


def along_paths(tree: LabelTree, log_conditionals: Sequence[npt.NDArray[np.floating]]) -> Tables:
    """Multiply P(label | parent) down the tree: log conditionals per level -> probabilities per level."""
    tables: Tables = []
    for place, logs in enumerate(log_conditionals):
        share = np.exp(logs)
        tables.append((share if not place else share * tables[-1][:, tree.parents[place]]).astype(np.float32))
    return tables


def log_softmax_among_siblings(tree: LabelTree, place: int, scores: npt.NDArray[np.floating]) -> Float32:
    """Return log probabilities among the children of each parent, for one level's scores (n_cells, n_labels).

    A score of -inf stays; a family of nothing else stays -inf.
    """
    parents = tree.parents[place] if place else np.zeros(scores.shape[1], dtype=np.int64)
    order = np.argsort(parents, kind="stable")
    starts = np.flatnonzero(np.diff(parents[order], prepend=-1))
    family = np.searchsorted(parents[order][starts], parents)
    grouped = np.asarray(scores, dtype=np.float64)[:, order]
    highest = np.maximum.reduceat(grouped, starts, axis=1)
    highest = np.where(np.isfinite(highest), highest, 0.0)
    shifted = np.asarray(scores, dtype=np.float64) - highest[:, family]
    total = np.add.reduceat(np.exp(shifted[:, order]), starts, axis=1)
    logs = np.log(np.where(total > 0, total, 1.0))
    return (shifted - logs[:, family]).astype(np.float32)


def _fit_family(features: Float32, labels: Int64, settings: LinearSettings) -> tuple[Float32, Float32]:
    """Return weights (n_features, n_labels) and intercepts for the labels that occur, sorted by code."""
    classes, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not features.shape[1]:  # nothing to tell them apart by
        return np.zeros((0, len(classes)), dtype=np.float32), np.zeros(len(classes), dtype=np.float32)
    importance = sizes.astype(np.float64) ** -settings.balance
    importance = importance[place]
    importance *= len(labels) / importance.sum()
    model = LogisticRegression(C=settings.penalty, max_iter=settings.max_iterations)
    model.fit(features, place, sample_weight=importance)
    weight, intercept = model.coef_.T, model.intercept_
    if len(classes) == 2:  # scikit-learn keeps the second class's score alone
        weight, intercept = np.hstack([-weight / 2, weight / 2]), np.array([-intercept[0] / 2, intercept[0] / 2])
    return weight.astype(np.float32), intercept.astype(np.float32)
