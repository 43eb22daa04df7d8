"""The unknown score: how unlike the reference a cell is, on the scale of the reference's own held-out cells.

Measured are the mean cosine distance to the ten nearest reference cells, in the embedding and in its whitened
components, and the labeller's doubt. How rare each is among held-out reference cells makes three p-values, which are
combined as Fisher (1932) does, doubt counting as much as both distances. Distances in the embedding as it is tell best
where the model learned labels, whitened ones where it did not. Doubt finds cells that lie between types, distance those
that lie apart from all. The figures are in docs/benchmarks.md, those of entropy, energy, Mahalanobis distances and
other sums in LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from lexicell.annotation.tree import Calls
from lexicell.annotation.whitening import Whitening
from lexicell.neighbors import NeighborIndex
from lexicell.randomness import generator

NEIGHBOURS = 10
_USUAL = 5_000  # held-out cells that say what is usual
_POINTS = 50_000  # reference cells that are looked at
_SAY = np.array([0.5, 0.5, 1.0])  # of the two distances and of doubt
_FLAT = 1e-9  # a standard deviation below it is none

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Novelty:
    """Knows how far reference cells lie from each other, and how much a labeller doubts of them.

    Attributes
    ----------
    whitening
        Of the reference.
    indexes
        The reference's cells, as they are and whitened.
    measured
        Both distances and doubts of held-out reference cells, each ascending for itself (n, 3).
    usual
        How surprising these cells are, ascending (n,).
    """

    whitening: Whitening
    indexes: tuple[NeighborIndex, NeighborIndex]
    measured: Float64
    usual: Float64

    @classmethod
    def fit(cls, embedding: Float32, folds: Sequence[Int64], doubts: npt.NDArray[np.floating], seed: int = 0) -> Self:
        """Learn what is usual: each fold's cells are measured against the cells of no fold or of other folds.

        Parameters
        ----------
        embedding
            (n_cells, width) of the reference.
        folds
            Rows that are held out together: a donor's cells are nearer to each other than to another donor's.
        doubts
            (n_cells,) `doubt` of a labeller that had not learned from the cell's fold; NaN of cells that are not to be
            measured.
        seed
            Draws which cells stand for a large reference.
        """
        rng = generator(seed, "unknown")
        n_cells = len(embedding)
        points = np.sort(rng.permutation(n_cells)[:_POINTS])
        whitening = Whitening.fit(embedding[points])
        far = []
        for fold in folds:
            left = np.ones(n_cells, dtype=bool)
            left[fold] = False
            others = points[left[points]]
            asked = fold[np.isfinite(doubts[fold])]
            asked = rng.permutation(asked)[: max(1, _USUAL // len(folds))]
            if len(others) and len(asked):
                distances = _distances(_indexes(embedding[others], whitening), embedding[asked], whitening)
                far.append(np.column_stack([distances, doubts[asked]]))
        measured = np.concatenate(far) if far else np.zeros((1, 3))
        ascending = np.sort(measured, axis=0)
        usual = np.sort(_surprise(measured, ascending))
        return cls(whitening, _indexes(embedding[points], whitening), ascending, usual)

    def score(self, embedding: Float32, doubts: npt.NDArray[np.floating]) -> Float32:
        """Return scores (n_cells,) from 0 to 1: the share of held-out reference cells that are more usual than a cell.

        .99 means farther out than 99 of 100 reference cells of donors that were held out. Beyond the farthest of them
        the score goes on rising towards 1, so that cells can still be ranked.

        Parameters
        ----------
        embedding
            (n_cells, width).
        doubts
            (n_cells,) `doubt` of what was called.
        """
        measured = np.column_stack([_distances(self.indexes, embedding, self.whitening), doubts])
        unlike = _surprise(measured, self.measured)
        n = len(self.usual)
        rank = np.searchsorted(self.usual, unlike, side="left")
        beyond = np.maximum(unlike - self.usual[-1], 0)
        score: Float32 = ((rank + beyond / (1 + beyond)) / (n + 1)).astype(np.float32)
        return score


def doubt(calls: Calls) -> Float32:
    """Return how much was doubted of each cell's labels (n_cells,): 1 - probability, averaged over levels."""
    doubts: Float32 = 1 - calls.probs.mean(axis=1, dtype=np.float32)
    return doubts


def _surprise(measured: Float64, usual: Float64) -> Float64:
    """Return the sum of -log p (n_cells,) of what was measured (n_cells, 3), beside usual values (n, 3), ascending.

    Beyond the greatest usual value it goes on rising, by how many standard deviations of these a value lies beyond.
    """
    n = len(usual)
    total = np.zeros(len(measured))
    for say, values, known in zip(_SAY, measured.T, usual.T, strict=True):
        rarer = n - np.searchsorted(known, values, side="left")
        beyond = np.maximum(values - known[-1], 0) / max(known.std(), _FLAT)
        total += say * (np.log1p(beyond) - np.log((rarer + 1) / (n + 1)))
    return total


def _indexes(embedding: Float32, whitening: Whitening) -> tuple[NeighborIndex, NeighborIndex]:
    return NeighborIndex(embedding), NeighborIndex(whitening(embedding))


def _distances(indexes: tuple[NeighborIndex, NeighborIndex], embedding: Float32, whitening: Whitening) -> Float64:
    """Return the mean distances to the nearest cells, as they are and whitened, (n_cells, 2)."""
    means = []
    for index, points in zip(indexes, (embedding, whitening(embedding)), strict=True):
        found = index.search(points, min(NEIGHBOURS, len(index)))
        means.append(found.distances.mean(axis=1, dtype=np.float64))
    distances: Float64 = np.stack(means, axis=1)
    return distances
