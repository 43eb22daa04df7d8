"""A reference as shallow as the query: its cells keep a share of their molecules, before anything is learned of them.

What is learned of deep cells does not hold for shallow ones: scaled to a common depth, one molecule looks like strong
expression, and a linear model follows it. Nor do probabilities that were calibrated on deep cells. Binomially thinned
to the query's depths, the reference shows what its cells would have looked like there; held-out cells are thinned as
well, so that all that is said of errors is said of such cells. A small reference is thinned several times over, as one
draw uses but a part of what its cells know. Figures are in LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

_POINTS = 201  # quantiles by which depths are compared
_ALIKE = 0.8  # where half of the cells would keep more than that, nothing is thinned
_COPIES, _COPIED = 3, 10_000  # draws of a cell at most, and cells that are learned from at most because of them


@dataclass(frozen=True, eq=False)
class DepthMatch:
    """Which share of its molecules a reference cell keeps: as many as the query's cell of its rank has.

    Attributes
    ----------
    reference, query
        Quantiles of the total counts of either's cells, ascending.
    share
        What the middle one of the reference's cells keeps.
    """

    reference: npt.NDArray[np.float64]
    query: npt.NDArray[np.float64]
    share: float

    @classmethod
    def fit(cls, reference: npt.NDArray[np.integer], query: npt.NDArray[np.integer]) -> Self | None:
        """Return how the depths (n_cells,) of a reference become those of a query; None where they are much alike.

        Cells without a count do not take part. A query that is deeper than the reference changes nothing.
        """
        steps = np.linspace(0, 1, _POINTS)
        deep, shallow = (depths[depths > 0] for depths in (reference, query))
        if not len(deep) or not len(shallow):
            return None
        match = cls(np.quantile(deep, steps), np.quantile(shallow, steps), 1.0)
        match = replace(match, share=float(np.median(match.shares(deep))))
        return match if match.share < _ALIKE else None

    @property
    def medians(self) -> tuple[int, int]:
        """Median total counts of a cell, reference and query."""
        middle = _POINTS // 2
        return round(self.reference[middle]), round(self.query[middle])

    def said(self) -> str:
        """Return it in words."""
        deep, shallow = self.medians
        return (
            f"the query is shallower than the reference (a median of {shallow:,} counts a cell in these genes, and of "
            f"{deep:,}): the reference is thinned to its depth"
        )

    def shares(self, depths: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Return the share of molecules that cells of these depths (n_cells,) keep, from 0 to 1."""
        wanted = np.interp(depths, self.reference, self.query)
        shares: npt.NDArray[np.float64] = np.minimum(1.0, wanted / np.maximum(depths, 1))
        return shares

    def copies(self, n_cells: int) -> int:
        """Return how often as many cells are thinned: one over what they keep, three times at most."""
        return max(1, min(_COPIES, round(1 / max(self.share, 1e-9)), _COPIED // max(n_cells, 1)))

    def thin(self, counts: sparse.csr_matrix, rng: np.random.Generator) -> sparse.csr_matrix:
        """Return raw counts (n_cells, n_genes) of which every molecule was kept with its cell's share."""
        thinned = sparse.csr_matrix(counts, copy=True)
        shares = np.repeat(self.shares(depths_of(thinned)), np.diff(thinned.indptr))
        thinned.data = rng.binomial(thinned.data.astype(np.int64), shares).astype(counts.dtype)
        thinned.eliminate_zeros()
        return thinned


def depths_of(counts: sparse.csr_matrix) -> npt.NDArray[np.int64]:
    """Return the total counts (n_cells,) of cells."""
    depths: npt.NDArray[np.int64] = np.asarray(counts.sum(axis=1)).ravel().astype(np.int64)
    return depths


def folds_of_copies(folds: Sequence[npt.NDArray[np.int64]], n_cells: int, copies: int) -> list[npt.NDArray[np.int64]]:
    """Return folds of cells that follow each other several times over: all copies of a cell lie in its fold."""
    return [np.concatenate([fold + n_cells * i for i in range(copies)]) for fold in folds]
