"""Which cells to learn from and which to judge on: by donor, or in stratified folds. Keyed, so repeatable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError, listing
from lexicell.randomness import generator


@dataclass(frozen=True, eq=False)
class Fold:
    """One split.

    Attributes
    ----------
    name
        Its name.
    train, test
        Rows to learn labels from and rows to test on, sorted.
    pool
        Rows that may be learned from without their labels, sorted: those of `train` unless given, and never a tested
        one.
    """

    name: str
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    pool: npt.NDArray[np.int64] | None = None

    @property
    def unlabelled(self) -> npt.NDArray[np.int64]:
        """Rows that may be learned from without their labels."""
        return self.train if self.pool is None else self.pool


def leave_group_out(groups: npt.ArrayLike | pd.Series) -> list[Fold]:
    """Return one fold a group (a donor, a batch): its cells are the test, all other groups' the training.

    Cells whose group is missing (NaN, None or empty) are in no fold.
    """
    column = _text(groups)
    names = sorted(set(column) - {""})
    if len(names) < 2:
        raise InputError(f"groups: expected at least two to hold one out, found {listing(names) or 'none'}.")
    return [_fold(name, (column != name) & (column != ""), column == name) for name in names]


def hold_out(groups: npt.ArrayLike | pd.Series, test: Iterable[str]) -> Fold:
    """Return the fold that tests on the named groups and trains on the others (missing: in neither)."""
    column, wanted = _text(groups), sorted(set(test))
    absent = sorted(set(wanted) - set(column))
    if absent or not wanted:
        raise InputError(
            f"test groups: {listing(map(repr, absent)) or 'none'} not found among "
            f"{listing((repr(str(name)) for name in sorted(set(column) - {''})), 20)}."
        )
    held = np.isin(column, wanted)
    if not (~held & (column != "")).any():
        raise InputError(f"test groups: holding out {listing(wanted)} leaves nothing to train on.")
    return _fold("+".join(wanted), ~held & (column != ""), held)


def stratified_folds(labels: npt.ArrayLike | pd.Series, n_folds: int, seed: int) -> list[Fold]:
    """Deal each label's cells over the folds as evenly as they go; every cell is tested once.

    A label with fewer cells than folds is tested in some folds only, and cells without a label are dealt as
    if that were one more label. The deal depends on ``(seed, label)`` and the cells' order alone.
    """
    column = _text(labels)
    if not 2 <= n_folds <= len(column):
        raise InputError(f"n_folds: expected 2 to {len(column)} (the cells there are), got {n_folds}.")
    place = np.empty(len(column), dtype=np.int64)
    offset = 0  # so that leftovers of small labels do not all fall into the first folds
    for label in sorted(set(column)):
        cells = np.flatnonzero(column == label)
        place[generator(seed, "stratified folds", label).permutation(cells)] = (
            offset + np.arange(len(cells))
        ) % n_folds
        offset += len(cells)
    return [_fold(f"fold {fold + 1}", place != fold, place == fold) for fold in range(n_folds)]


def _fold(name: str, train: npt.NDArray[np.bool_], test: npt.NDArray[np.bool_]) -> Fold:
    return Fold(name, np.flatnonzero(train), np.flatnonzero(test))


def _text(values: npt.ArrayLike | pd.Series) -> npt.NDArray[np.str_]:
    column = np.asarray(values).astype(object)
    column[pd.isna(column)] = ""
    return column.astype(str)
