"""Whitening: the leading directions of an embedding, each given nearly the same say.

A few directions hold most of an embedding's variance, such as tissue and class: neighbours are cells that agree on
these. What tells types apart within a class is in the others. Variances are not made equal but for a quarter, as the
last directions hold more noise; the figures are in LOG.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

COMPONENTS = 64
STRENGTH = 0.75  # 0 leaves directions their standard deviations, 1 makes all equal
_LEAST = 1e-9  # of the first component's variance: below it lies noise of the arithmetic

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Whitening:
    """Centre and directions of an embedding.

    Attributes
    ----------
    centre
        (width,) mean.
    directions
        (width, n_components) principal components, each divided by its standard deviation to the power `STRENGTH`.
    """

    centre: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, embedding: npt.NDArray[np.floating], most: int = COMPONENTS) -> Self:
        """Learn from cells (n_cells, width), at most a component for ten of them: in as many whitened components as
        there are cells, all cells would lie equally far apart. Cells that are few or all alike stay as they are.
        """
        points = np.asarray(embedding, dtype=np.float64)
        centre = points.mean(axis=0)
        values, vectors = np.linalg.eigh((points - centre).T @ (points - centre) / max(len(points), 1))
        most = min(most, len(points) // 10)
        if values[-1] <= 0 or most < 2:
            return cls(np.zeros_like(centre), np.eye(len(centre)))
        kept = np.flatnonzero(values > _LEAST * values[-1])[-most:]
        return cls(centre, vectors[:, kept] / values[kept] ** (STRENGTH / 2))

    def __call__(self, embedding: npt.NDArray[np.floating]) -> Float32:
        """Return the components of cells, (n_cells, width) -> (n_cells, n_components)."""
        whitened: Float32 = ((embedding - self.centre) @ self.directions).astype(np.float32)
        return whitened
