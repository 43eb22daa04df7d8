"""Whitening: the leading directions of an embedding, each given nearly the same say; its parts apart.

A few directions hold most of an embedding's variance, such as tissue and class: neighbours are cells that agree on
these. What tells types apart within a class is in the others. Variances are not made equal but for a quarter, as the
last directions hold more noise. Of an embedding made of parts, each is whitened for itself and brought to unit length,
so that a cosine is the mean of theirs: what training did to CLS cannot drown what the bag of genes says, nor the other
way round. The figures are in LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

COMPONENTS = 64
STRENGTH = 0.75  # 0 leaves directions their standard deviations, 1 makes all equal
_LEAST = 1e-9  # of the first component's variance: below it lies noise of the arithmetic

_SHORT = 1e-12  # a length below it is none

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


@dataclass(frozen=True, eq=False)
class WhitenedParts:
    """The parts of an embedding, each whitened for itself.

    Attributes
    ----------
    starts
        Where each part but the first begins.
    spaces
        One a part.
    """

    starts: tuple[int, ...]
    spaces: tuple[Whitening, ...]

    @classmethod
    def fit(cls, embedding: npt.NDArray[np.floating], parts: Sequence[int] = ()) -> Self:
        """Learn from cells (n_cells, width); `parts` are widths that add up to it, or one whole where not given."""
        starts = tuple(int(start) for start in np.cumsum(parts)[:-1])
        return cls(starts, tuple(Whitening.fit(part) for part in np.split(embedding, starts, axis=1)))

    def __call__(self, embedding: npt.NDArray[np.floating]) -> Float32:
        """Return cells' components, every part of unit length: (n_cells, width) -> (n_cells, n_components)."""
        parts = np.split(embedding, self.starts, axis=1)
        whitened = [space(part) for space, part in zip(self.spaces, parts, strict=True)]
        lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in whitened]
        return np.hstack([part / np.maximum(n, _SHORT) for part, n in zip(whitened, lengths, strict=True)])
