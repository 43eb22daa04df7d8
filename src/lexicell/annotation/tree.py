"""Probabilities on a label tree: one table a level, consistent from coarse to fine.

Consistent means that a label's probability never exceeds its parent's. The children's add up to the parent's,
unless nothing is known about them there (no neighbour had a finer label): then all of theirs are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lexicell.labels import LabelTree

Tables = list[npt.NDArray[np.float32]]

SIBLINGS = 5  # that are kept beside a called label, as MapMyCells does


@dataclass(frozen=True, eq=False)
class Calls:
    """The label called for each cell on each level; all arrays are (n_cells, n_levels), siblings' (..., `SIBLINGS`).

    Attributes
    ----------
    codes
        Called labels: a path down the tree; -1 from the level on where nothing is known or sure enough.
    probs
        Their probabilities, never rising from coarse to fine; 0 where nothing is known. A label that was taken back for
        not being sure enough leaves its probability here.
    runners_up
        The next most probable label of the same level, under any parent; -1 where no other had a chance.
    runner_up_probs
        Its probability.
    siblings
        The most probable labels under the called label's parent, but for itself, best first; -1 where no other had a
        chance.
    sibling_probs
        Their probabilities.
    """

    codes: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float32]
    runners_up: npt.NDArray[np.int64]
    runner_up_probs: npt.NDArray[np.float32]
    siblings: npt.NDArray[np.int32]
    sibling_probs: npt.NDArray[np.float32]

    @classmethod
    def join(cls, parts: Sequence[Calls]) -> Calls:
        """Stack the calls of consecutive blocks of cells."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*(part._arrays() for part in parts), strict=True)))

    def withheld(self, cells: npt.NDArray[np.bool_]) -> Calls:
        """Return the calls without the labels of some cells (n_cells,); their probabilities stay."""
        return replace(self, codes=np.where(cells[:, None], -1, self.codes))

    def unknown_of(self, cells: npt.NDArray[np.bool_]) -> Calls:
        """Return the calls with nothing known of some cells (n_cells,)."""
        arrays = [array.copy() for array in self._arrays()]
        for array in arrays:
            array[cells] = -1 if np.issubdtype(array.dtype, np.integer) else 0
        return Calls(*arrays)

    def take_levels(self, places: Sequence[int]) -> Calls:
        """Return the calls on some levels only, by their places."""
        return Calls(*(array[:, list(places)] for array in self._arrays()))

    def _arrays(self) -> list[npt.NDArray[Any]]:
        return [getattr(self, each.name) for each in fields(self)]


def consistent(tree: LabelTree, tables: Sequence[npt.NDArray[np.floating]]) -> Tables:
    """Make per-level weights agree with the tree: P(child) = P(parent) * share among its siblings.

    Parameters
    ----------
    tree
        The label tree.
    tables
        One array (n_cells, n_labels) a level, coarse to fine, of non-negative weights on any scale: votes, or
        a head's probabilities. Tables that are consistent already come back unchanged, but for rounding.

    Returns
    -------
    list of arrays
        Probabilities, float32, one array a level. The coarsest level adds up to 1 (to 0 without any weight).
    """
    check_tables(tree, tables)
    top = np.asarray(tables[0], dtype=np.float64)
    probs = [_share(top, top.sum(axis=1, keepdims=True))]
    for place in range(1, len(tree.levels)):
        parents = tree.parents[place]
        weights = np.asarray(tables[place], dtype=np.float64)
        family = _sum_under_parents(weights, parents, tree.sizes[place - 1])
        probs.append(probs[-1][:, parents] * _share(weights, family[:, parents]))
    return [table.astype(np.float32) for table in probs]


def from_leaves(tree: LabelTree, leaves: npt.NDArray[np.floating]) -> Tables:
    """Sum the finest level's probabilities (n_cells, n_leaves) upwards; one float32 table a level."""
    tables = [np.asarray(leaves, dtype=np.float64)]
    for place in range(len(tree.levels) - 1, 0, -1):
        tables.insert(0, _sum_under_parents(tables[0], tree.parents[place], tree.sizes[place - 1]))
    check_tables(tree, tables)
    return [table.astype(np.float32) for table in tables]


def call_labels(tree: LabelTree, tables: Sequence[npt.NDArray[np.floating]]) -> Calls:
    """Call one path down the tree for each cell, and who else had a chance on each level.

    The best label of the coarsest level is taken, then the best among its children, and so on: the path never
    jumps to another branch, and it ends where no child has any probability.

    Parameters
    ----------
    tree
        The label tree.
    tables
        Consistent probabilities (`consistent`), one array (n_cells, n_labels) a level.
    """
    check_tables(tree, tables)
    n_cells, n_levels = len(tables[0]), len(tree.levels)
    codes, runners = np.full((2, n_cells, n_levels), -1, dtype=np.int64)
    probs, runner_probs = np.zeros((2, n_cells, n_levels), dtype=np.float32)
    siblings = np.full((n_cells, n_levels, SIBLINGS), -1, dtype=np.int32)
    sibling_probs = np.zeros((n_cells, n_levels, SIBLINGS), dtype=np.float32)
    cells = np.arange(n_cells)
    for place, table in enumerate(tables):
        rest = np.array(table, dtype=np.float32)
        under = rest.copy()
        if place:
            under = np.where(tree.parents[place] == codes[:, place - 1 : place], rest, 0)
        best = under.argmax(axis=1)
        probs[:, place] = under[cells, best]
        called = probs[:, place] > 0
        codes[called, place] = best[called]
        rest[cells[called], best[called]] = under[cells, best] = 0
        n = min(SIBLINGS, under.shape[1])
        others = _highest(under, n)
        sibling_probs[:, place, :n] = np.take_along_axis(under, others, axis=1)
        siblings[:, place, :n] = np.where(sibling_probs[:, place, :n] > 0, others, -1)
        second = rest.argmax(axis=1)
        runner_probs[:, place] = rest[cells, second]
        runners[:, place] = np.where(runner_probs[:, place] > 0, second, -1)
    return Calls(codes, probs, runners, runner_probs, siblings, sibling_probs)


def _highest(table: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.int64]:
    """Return the columns of each row's n highest values, highest first."""
    some = np.argpartition(-table, n - 1, axis=1)[:, :n]
    order = np.argsort(-np.take_along_axis(table, some, axis=1), axis=1, kind="stable")
    found: npt.NDArray[np.int64] = np.take_along_axis(some, order, axis=1)
    return found


def check_tables(tree: LabelTree, tables: Sequence[npt.NDArray[np.floating]]) -> None:
    """Raise ValueError unless there is one table (n_cells, n_labels) for each level of the tree."""
    shapes = [np.shape(table) for table in tables]
    expected = [(shapes[0][0] if shapes and shapes[0] else 0, size) for size in tree.sizes]
    if shapes != expected:
        raise ValueError(f"tables: expected the shapes {expected} (cells, labels of a level), got {shapes}.")


def _share(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _sum_under_parents(
    table: npt.NDArray[np.float64], parents: npt.NDArray[np.int64], n_parents: int
) -> npt.NDArray[np.float64]:
    """Add a level's columns (n_cells, n_labels) into their parents' columns (n_cells, n_parents)."""
    ones = np.ones(len(parents))
    join = sparse.csr_matrix((ones, (parents, np.arange(len(parents)))), shape=(n_parents, len(parents)))
    total: npt.NDArray[np.float64] = np.asarray(join @ table.T).T
    return total
