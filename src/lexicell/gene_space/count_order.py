"""Are the classes of counts in order? Geometry of their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CountOrder:
    """Order of count classes.

    Attributes
    ----------
    classes
        One row a class: `first` and `second` (principal coordinates), `step` (distance to the next class; NaN for the
        last), `nearest` (the nearest class among those seen), `in_order` (whether that is a neighbour among those
        seen); NaN and false for classes that were not seen.
    distances
        (n, n) Euclidean distances between all classes.
    spearman
        Rank correlation of the first coordinate with the count, over the classes that were seen.
    distance_spearman
        Rank correlation of the distance of two classes with the difference of their log counts, over pairs of classes
        that were seen.
    explained
        Share of the variance over the classes seen that the first coordinate explains.
    """

    classes: pd.DataFrame
    distances: Float64
    spearman: float
    distance_spearman: float
    explained: float

    @property
    def in_order(self) -> float:
        """Share of the classes seen whose nearest class is their neighbour."""
        known = self.classes["nearest"].notna()
        return float(self.classes.loc[known, "in_order"].mean()) if known.any() else float("nan")


def count_order(
    vectors: npt.NDArray[np.floating], counts: npt.NDArray[np.floating], seen: npt.NDArray[np.bool_]
) -> CountOrder:
    """Lay the embeddings of count classes along their principal coordinates.

    Parameters
    ----------
    vectors
        (n, width) embedding of each class, by ascending count.
    counts
        (n,) a class's count, such as the middle of its range.
    seen
        (n,) classes that training saw: the others still lie where they were drawn, and say nothing.
    """
    points = np.asarray(vectors, dtype=np.float64)
    known = np.flatnonzero(seen)
    distances = np.sqrt(np.maximum(((points[:, None] - points[None]) ** 2).sum(axis=-1), 0))
    nearest, in_order = np.full(len(points), np.nan), np.zeros(len(points), bool)
    if len(known) < 3:
        blank = np.full(len(points), np.nan)
        table = pd.DataFrame({"first": blank, "second": blank, "step": _steps(distances)})
        return CountOrder(
            table.assign(nearest=nearest, in_order=in_order), distances, float("nan"), float("nan"), float("nan")
        )
    middle = points[known].mean(axis=0)
    _, scale, axes = np.linalg.svd(points[known] - middle, full_matrices=False)
    coordinates = (points - middle) @ axes[:2].T
    rho = float(spearmanr(coordinates[known, 0], counts[known]).statistic)
    if rho < 0:
        coordinates[:, 0] *= -1
        rho = -rho
    among = distances[np.ix_(known, known)] + np.where(np.eye(len(known), dtype=bool), np.inf, 0)
    closest = among.argmin(axis=1)
    nearest[known] = known[closest]
    in_order[known] = np.abs(closest - np.arange(len(known))) == 1
    table = pd.DataFrame({"first": coordinates[:, 0], "second": coordinates[:, 1], "step": _steps(distances)})
    table = table.assign(nearest=nearest, in_order=in_order)
    one, other = np.triu_indices(len(known), k=1)
    logs = np.log1p(np.asarray(counts, dtype=np.float64)[known])
    apart = float(spearmanr(among[one, other], np.abs(logs[one] - logs[other])).statistic)
    return CountOrder(table, distances, rho, apart, float(scale[0] ** 2 / max(float((scale**2).sum()), 1e-300)))


def _steps(distances: Float64) -> Float64:
    return np.append(np.diagonal(distances, offset=1), np.nan)


def merged_from(share: npt.NDArray[np.floating], limit: float) -> int | None:
    """Return the first class from which no step is above `limit` any more, None where the last known step still is.

    Parameters
    ----------
    share
        (n,) size of the step from each class to the next, relative to something; NaN where it is not known.
    limit
        Steps up to it do not count.
    """
    known = np.flatnonzero(~np.isnan(share))
    above = known[share[known] > limit]
    first = known[known > (above[-1] if len(above) else -1)]
    return int(first[0]) if len(first) else None
