"""An annotation to take home: labels, confidence and runner-up per level, as obs columns or a CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData

from lexicell.annotation.mapmycells import write_csv, write_json
from lexicell.annotation.scores import accuracy, coverage, macro_f1
from lexicell.annotation.tree import Calls
from lexicell.errors import InputError, listing
from lexicell.labels import LabelTree, clean_labels

PREFIX = "lexicell_"


def check_level_names(levels: Sequence[str]) -> None:
    """Raise InputError where what is written for a level would be taken for something else."""
    for level in levels:
        others = {f"{other}{end}" for other in levels for end in ("_prob", "_runner_up")}
        if level in {"unknown", "cell_id"} | others:
            raise InputError(
                f"levels: {level!r} cannot be the name of a label level, since other output has that name; rename the "
                "column."
            )


@dataclass(frozen=True, eq=False)
class Annotation:
    """Labels given to cells.

    Attributes
    ----------
    cells
        Cell names (n_cells,).
    tree
        The reference's label tree.
    levels
        The levels reported, coarse to fine: some or all of the tree's.
    calls
        What was called on each of `levels`.
    settings
        How it was made (method, model, reference, ...): strings, numbers, booleans and lists of them.
    unknown
        How unlike the reference each cell is, from 0 to 1 (n_cells,); None without a reference.
    """

    cells: pd.Index
    tree: LabelTree
    levels: tuple[str, ...]
    calls: Calls
    settings: Mapping[str, Any] = field(default_factory=dict)
    unknown: npt.NDArray[np.float32] | None = None

    @classmethod
    def from_calls(
        cls,
        cells: pd.Index,
        tree: LabelTree,
        calls: Calls,
        levels: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        unknown: npt.NDArray[np.float32] | None = None,
    ) -> Annotation:
        """Report `levels` (all by default) of calls that were made on the whole tree.

        Raises
        ------
        InputError
            When a level is not one of the tree's.
        """
        chosen = tree.levels if levels is None else tuple(level for level in tree.levels if level in levels)
        absent = [level for level in levels or () if level not in tree.levels]
        if absent:
            raise InputError(
                f"levels: the reference has no {listing(map(repr, absent))}; its levels are "
                f"{listing(map(repr, tree.levels), 20)} (coarse to fine)."
            )
        places = [tree.levels.index(level) for level in chosen]
        return cls(pd.Index(cells), tree, chosen, calls.take_levels(places), dict(settings or {}), unknown)

    def labels(self, level: str) -> pd.Series:
        """Return a level's called labels, categorical, NaN where none was called; index = cells."""
        return self._names(level, self.calls.codes)

    def runners_up(self, level: str) -> pd.Series:
        """Return a level's second most probable labels, categorical, NaN where there is none."""
        return self._names(level, self.calls.runners_up)

    def confidence(self, level: str) -> pd.Series:
        """Return the probabilities of a level's called labels, float32."""
        return pd.Series(self.calls.probs[:, self.levels.index(level)], index=self.cells)

    def frame(self) -> pd.DataFrame:
        """Return the obs columns: for each level its label, ``_prob`` and ``_runner_up``; and ``lexicell_unknown``."""
        columns: dict[str, pd.Series] = {}
        for level in self.levels:
            columns[f"{PREFIX}{level}"] = self.labels(level)
            columns[f"{PREFIX}{level}_prob"] = self.confidence(level)
            columns[f"{PREFIX}{level}_runner_up"] = self.runners_up(level)
        if self.unknown is not None:
            columns[f"{PREFIX}unknown"] = pd.Series(self.unknown, index=self.cells)
        return pd.DataFrame(columns, index=self.cells)

    def write_obs(self, adata: AnnData) -> None:
        """Add the columns of `frame` to ``adata.obs``, and the settings to ``adata.uns["lexicell"]``.

        The settings lie under ``annotate`` there. Columns of the same names are replaced. The cells must be
        those of `adata`, in its order.
        """
        if not self.cells.equals(pd.Index(adata.obs_names)):
            raise ValueError("The AnnData does not hold the annotated cells in their order.")
        for name, column in self.frame().items():
            adata.obs[name] = column.to_numpy() if column.dtype == np.float32 else column.array
        adata.uns["lexicell"] = {**adata.uns.get("lexicell", {}), "annotate": dict(self.settings)}

    def to_csv(self, path: str | Path, extended: str = "none") -> None:
        """Write the table that MapMyCells writes; see `lexicell.annotation.mapmycells`.

        Read it back with ``pandas.read_csv(path, comment="#")``. `extended` is the name of the JSON beside it.
        """
        names = {level: self.tree.names[self.tree.levels.index(level)] for level in self.levels}
        write_csv(Path(path), self.cells, names, self.calls, self.unknown, self.settings, extended)

    def to_json(self, path: str | Path) -> None:
        """Write the extended results as MapMyCells does; see `lexicell.annotation.mapmycells`."""
        write_json(Path(path), self.cells, self.tree, self.levels, self.calls, self.unknown, self.settings)

    def scores(self, truth: pd.DataFrame) -> dict[str, dict[str, float]]:
        """Return accuracy, macro_f1 and coverage of each level that `truth` (one row a cell) has as a column.

        Levels whose column holds no label at all are left out.
        """
        if len(truth) != len(self.cells):
            raise ValueError(f"truth: {len(truth)} rows for {len(self.cells)} annotated cells.")
        found = {}
        for level in self.levels:
            actual = clean_labels(truth[level]) if level in truth.columns else None
            if actual is None or not len(actual.categories):
                continue
            called = self.labels(level)
            found[level] = {
                "accuracy": accuracy(actual, called),
                "macro_f1": macro_f1(actual, called),
                "coverage": coverage(actual, called),
            }
        return found

    def _names(self, level: str, codes: npt.NDArray[np.int64]) -> pd.Series:
        names = self.tree.names[self.tree.levels.index(level)]
        values = pd.Categorical.from_codes(codes[:, self.levels.index(level)], categories=pd.Index(names))
        return pd.Series(values.remove_unused_categories(), index=self.cells)
