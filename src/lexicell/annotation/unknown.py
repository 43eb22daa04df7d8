"""The unknown score: how unlike the reference a cell is, on the scale of the reference's own held-out cells.

Measured is the mean cosine distance to the ten nearest reference cells in the embedding. With whole types left out of
the reference, that told their cells apart better than one minus the highest probability, its entropy, energy, and
Mahalanobis distances in principal components; the figures are in docs/annotation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from lexicell.neighbors import NeighborIndex
from lexicell.randomness import generator

NEIGHBOURS = 10
_USUAL = 5_000  # held-out cells that say what is usual
_POINTS = 50_000  # reference cells that are looked at

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Novelty:
    """Knows how far reference cells lie from each other.

    Attributes
    ----------
    index
        The reference's cells.
    usual
        Ascending distances of held-out reference cells to the others (n,).
    """

    index: NeighborIndex
    usual: npt.NDArray[np.float64]

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
        far = []
        for fold in folds:
            left = np.ones(n_cells, dtype=bool)
            left[fold] = False
            others = points[left[points]]
            asked = fold if judged is None else fold[judged[fold]]
            asked = rng.permutation(asked)[: max(1, _USUAL // len(folds))]
            if len(others) and len(asked):
                far.append(_mean_distance(NeighborIndex(embedding[others]), embedding[asked]))
        usual = np.sort(np.concatenate(far)) if far else np.zeros(1)
        return cls(NeighborIndex(embedding[points]), usual)

    def score(self, embedding: Float32) -> Float32:
        """Return scores (n_cells,) from 0 to 1: the share of held-out reference cells that lie nearer than a cell.

        .99 means farther out than 99 of 100 reference cells of donors that were held out. Beyond the farthest of them
        the score goes on rising towards 1, so that cells can still be ranked.
        """
        distance = _mean_distance(self.index, embedding)
        n = len(self.usual)
        rank = np.searchsorted(self.usual, distance, side="left")
        tail = 1 - np.divide(self.usual[-1], distance, out=np.ones_like(distance), where=distance > self.usual[-1])
        score: Float32 = ((rank + np.where(rank == n, tail, 0)) / (n + 1)).astype(np.float32)
        return score


def _mean_distance(index: NeighborIndex, points: Float32) -> npt.NDArray[np.float64]:
    found = index.search(points, min(NEIGHBOURS, len(index)))
    mean: npt.NDArray[np.float64] = found.distances.mean(axis=1, dtype=np.float64)
    return mean
