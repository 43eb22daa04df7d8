"""The unknown score: how unlike the reference a cell is, on the scale of the reference's own held-out cells.

Measured is the mean cosine distance to the ten nearest reference cells, in the embedding and in its whitened
components, each in standard deviations of the reference's held-out cells, summed. Distances in the embedding as it is
tell best where the model learned labels, whitened ones where it did not; their sum comes near the better of both.
The figures beside those of probabilities are in docs/benchmarks.md, beside those of entropy, energy and Mahalanobis
distances in LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from lexicell.annotation.whitening import Whitening
from lexicell.neighbors import NeighborIndex
from lexicell.randomness import generator

NEIGHBOURS = 10
_USUAL = 5_000  # held-out cells that say what is usual
_POINTS = 50_000  # reference cells that are looked at

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Novelty:
    """Knows how far reference cells lie from each other.

    Attributes
    ----------
    whitening
        Of the reference.
    indexes
        The reference's cells, as they are and whitened.
    centre, spread
        (2,) mean and standard deviation of held-out reference cells' distances, as they are and whitened.
    usual
        Ascending sums of both distances, standardised, of held-out reference cells to the others (n,).
    """

    whitening: Whitening
    indexes: tuple[NeighborIndex, NeighborIndex]
    centre: Float64
    spread: Float64
    usual: Float64

    @classmethod
    def fit(
        cls, embedding: Float32, folds: Sequence[Int64], judged: npt.NDArray[np.bool_] | None = None, seed: int = 0
    ) -> Self:
        """Learn what is usual: each fold's cells are measured against the cells of no fold or of other folds.

        Parameters
        ----------
        embedding
            (n_cells, width) of the reference.
        folds
            Rows that are held out together: a donor's cells are nearer to each other than to another donor's.
        judged
            (n_cells,) cells that may be measured; all by default.
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
            asked = fold if judged is None else fold[judged[fold]]
            asked = rng.permutation(asked)[: max(1, _USUAL // len(folds))]
            if len(others) and len(asked):
                far.append(_distances(_indexes(embedding[others], whitening), embedding[asked], whitening))
        distances = np.concatenate(far) if far else np.zeros((1, 2))
        centre, spread = distances.mean(axis=0), distances.std(axis=0)
        spread[spread == 0] = 1
        usual = np.sort(((distances - centre) / spread).sum(axis=1))
        return cls(whitening, _indexes(embedding[points], whitening), centre, spread, usual)

    def score(self, embedding: Float32) -> Float32:
        """Return scores (n_cells,) from 0 to 1: the share of held-out reference cells that lie nearer than a cell.

        .99 means farther out than 99 of 100 reference cells of donors that were held out. Beyond the farthest of them
        the score goes on rising towards 1, so that cells can still be ranked.
        """
        distances = _distances(self.indexes, embedding, self.whitening)
        distance = ((distances - self.centre) / self.spread).sum(axis=1)
        n = len(self.usual)
        rank = np.searchsorted(self.usual, distance, side="left")
        beyond = np.maximum(distance - self.usual[-1], 0)
        score: Float32 = ((rank + beyond / (1 + beyond)) / (n + 1)).astype(np.float32)
        return score


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
