"""k nearest neighbours by faiss, shared by genes and cells: arrays in, a small frozen table out.

Candidates come from a faiss index; their distances are then computed again in float64, one pair at a time,
and sorted with ties broken by place. faiss alone multiplies whole matrices, whose last digits depend on how
many queries share the call: the second look makes a query's answer its own, whatever was asked beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

Metric = Literal["cosine", "euclidean"]
Method = Literal["auto", "exact", "ivf"]

EXACT_UP_TO = 200_000  # rows of reference that "auto" still searches exactly
_SPARE = 16  # candidates beyond k, so that the second look can mend the order at the rim
_BLOCK = 1 << 22  # numbers gathered at a time in the second look
_IVF_PROBED = 0.05  # share of the inverted lists that a query looks into
_NEAREST = 1e-6  # a copy of a reference row counts as this near, so that its vote stays finite


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The k nearest rows of a reference, for each query.

    Attributes
    ----------
    indices
        Rows of the reference (n_queries, k), nearest first, int64; -1 where an approximate index found
        fewer.
    distances
        Their distances (n_queries, k), float32: Euclidean, or one minus the cosine; inf where there is none.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]


def find_neighbors(
    reference: npt.NDArray[np.floating],
    query: npt.NDArray[np.floating] | None = None,
    *,
    k: int = 15,
    metric: Metric = "cosine",
    method: Method = "exact",
) -> Neighbors:
    """Find each query's `k` nearest reference rows.

    Parameters
    ----------
    reference
        Points to search among (n_reference, width).
    query
        Points to search for (n_queries, width). None: the reference searches itself, and no row is its own
        neighbour.
    k
        Number of neighbours, at most the rows there are to find.
    metric
        ``cosine`` (one minus the cosine; a row of zeros is at distance 1 from everything) or ``euclidean``.
    method
        ``exact`` (default), ``ivf`` (inverted lists), or ``auto``: exact up to `EXACT_UP_TO` reference rows and
        ``ivf`` above. On 60,000 clustered points, 96 wide, ``ivf`` found all of the 15 nearest, and a navigable graph
        (HNSW), which is not offered, 98% of them; where there are no clusters ``ivf`` misses many.

    Returns
    -------
    Neighbors
        The same for a query whatever other queries are asked beside it.

    Raises
    ------
    ValueError
        Where the shapes do not fit, a value is not finite, or `k` is out of range.
    """
    base = NeighborIndex(reference, metric=metric, method=method)
    return base.search_within(k) if query is None else base.search(query, k)


class NeighborIndex:
    """Points to search among, indexed once and asked many times; see `find_neighbors`.

    Parameters
    ----------
    reference
        Points (n_reference, width).
    metric, method
        As of `find_neighbors`.
    """

    def __init__(
        self, reference: npt.NDArray[np.floating], *, metric: Metric = "cosine", method: Method = "exact"
    ) -> None:
        self._metric, self._method = metric, method
        self._base = _points(reference, "reference", metric)
        if method == "auto":
            self._method = "exact" if len(self._base) <= EXACT_UP_TO else "ivf"
        self._index: Any = None

    def __len__(self) -> int:
        return len(self._base)

    def search(self, query: npt.NDArray[np.floating], k: int) -> Neighbors:
        """Return each query's `k` nearest rows."""
        asked = _points(query, "query", self._metric)
        if asked.shape[1] != self._base.shape[1]:
            raise ValueError(f"query: {asked.shape[1]} columns, but the reference has {self._base.shape[1]}.")
        return self._search(asked, k, within=False)

    def search_within(self, k: int) -> Neighbors:
        """Return each row's `k` nearest other rows."""
        return self._search(self._base, k, within=True)

    def _search(self, asked: npt.NDArray[np.float32], k: int, *, within: bool) -> Neighbors:
        findable = len(self._base) - within
        if not 1 <= k <= findable:
            raise ValueError(f"k: {k} neighbours asked for; expected 1 to {findable} (the rows there are).")
        if not len(asked):
            return Neighbors(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
        if self._index is None:
            self._index = _build_index(self._base, self._method)
        wanted = min(k + within + _SPARE, len(self._base))
        candidates: npt.NDArray[np.int64] = self._index.search(asked, wanted)[1]
        if within:
            candidates[candidates == np.arange(len(self._base))[:, None]] = -1
        return _ranked(self._base, asked, candidates, k, self._metric)


def vote_weights(
    found: Neighbors, classes: npt.NDArray[np.int64], *, power: float = 2.0, balance: float = 0.5
) -> npt.NDArray[np.float64]:
    """Return how much each neighbour's vote weighs when neighbours decide a class.

    A vote weighs ``distance ** -power``, divided by ``(cells of its class in the reference) ** balance``, so that
    a rare class is not outvoted by a common one that merely surrounds it.

    Parameters
    ----------
    found
        The neighbours of n_queries cells.
    classes
        The reference's classes (n_reference,), whole numbers from 0.
    power
        0 lets near and far neighbours count alike.
    balance
        0 lets common classes dominate, 1 lets all classes weigh the same.

    Returns
    -------
    array
        Weights (n_queries, k), meaningful relative to one another within a row; 0 where none was found.
    """
    near = np.maximum(found.distances.astype(np.float64), _NEAREST)
    with np.errstate(invalid="ignore"):  # inf / inf, where an approximate index found no neighbour at all
        weights = (near / near[:, :1]) ** -power  # divided by the nearest, which keeps them in range
    size = np.bincount(classes)[classes].astype(np.float64)
    return np.where(found.indices >= 0, weights * size[found.indices] ** -balance, 0.0)


def _points(values: npt.NDArray[np.floating], name: str, metric: Metric) -> npt.NDArray[np.float32]:
    points = np.ascontiguousarray(values, dtype=np.float32)
    if points.ndim != 2 or not points.shape[1]:
        raise ValueError(f"{name}: expected an array (rows, columns), got the shape {points.shape}.")
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise ValueError(f"{name}: row {row} holds a value that is not finite (NaN or infinite).")
    if metric == "euclidean":
        return points
    if metric != "cosine":
        raise ValueError(f"metric: expected 'cosine' or 'euclidean', got {metric!r}.")
    norms = np.sqrt(np.einsum("ij,ij->i", points, points, dtype=np.float64))[:, None]
    scaled: npt.NDArray[np.float32] = np.divide(points, np.where(norms > 0, norms, 1)).astype(np.float32)
    return scaled


def _build_index(base: npt.NDArray[np.float32], method: Method) -> Any:
    # On rows of unit length the Euclidean order is the cosine order: one kind of index serves both metrics.
    width = base.shape[1]
    index: Any
    if method == "exact":
        index = faiss.IndexFlatL2(width)
    elif method == "ivf":
        lists = max(1, int(np.sqrt(len(base))))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, lists)
        index.nprobe = max(8, int(np.ceil(lists * _IVF_PROBED)))
        index.cp.min_points_per_centroid = 1  # faiss else prints a warning on small references
        index.train(base)
    else:
        raise ValueError(f"method: expected 'auto', 'exact' or 'ivf', got {method!r}.")
    index.add(base)
    return index


def _ranked(
    base: npt.NDArray[np.float32],
    asked: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.int64],
    k: int,
    metric: Metric,
) -> Neighbors:
    """Measure the candidates again, pair by pair in float64, and keep the k nearest."""
    # Sorted by place first, so that the stable sort by distance breaks ties the same way every time.
    candidates = np.sort(candidates, axis=1)
    indices = np.empty((len(asked), k), dtype=np.int64)
    distances = np.empty((len(asked), k), dtype=np.float32)
    step = max(1, _BLOCK // (candidates.shape[1] * base.shape[1]))
    for start in range(0, len(asked), step):
        rows = slice(start, start + step)
        here = candidates[rows]
        points, found = asked[rows, None, :].astype(np.float64), base[here].astype(np.float64)
        if metric == "cosine":
            far = 1.0 - np.einsum("qcd,qcd->qc", np.broadcast_to(points, found.shape), found)
            far = np.clip(far, 0.0, 2.0)
        else:
            gap = found - points
            far = np.sqrt(np.einsum("qcd,qcd->qc", gap, gap))
        far[here < 0] = np.inf
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        indices[rows] = np.take_along_axis(here, order, axis=1)
        distances[rows] = np.take_along_axis(far, order, axis=1)
    return Neighbors(indices, distances)
