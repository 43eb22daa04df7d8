"""Ranked genes: differential expression as the plain way to rank, and how far up known markers come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix
from scipy.stats import rankdata

Float64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def welch_t(expression: csc_matrix, own: Flags) -> tuple[Float64, Float64]:
    """Return Welch's t statistic of each gene, some cells against the others, and the difference of the means.

    Parameters
    ----------
    expression
        (n_cells, n_genes) log(1 + counts per 10,000).
    own
        (n_cells,) the cells in question; two or more of either kind.
    """
    parts = []
    for which in (own, ~own):
        cells = expression[np.flatnonzero(which)]
        n = cells.shape[0]
        mean = np.asarray(cells.mean(axis=0)).ravel()
        square = np.asarray(cells.multiply(cells).mean(axis=0)).ravel()
        parts.append((mean, np.maximum(square - mean**2, 0) / max(n - 1, 1)))
    (mean, error), (other, other_error) = parts
    difference = np.asarray(mean - other, dtype=np.float64)
    scale = np.sqrt(error + other_error)
    t = np.divide(difference, scale, out=np.zeros_like(difference), where=scale > 1e-12)
    return np.asarray(t), difference


@dataclass(frozen=True)
class MarkerScore:
    """How far up known markers come in a ranking.

    Parameters
    ----------
    markers
        Known markers among the genes ranked.
    hits
        Of them among the first k.
    recall
        Hits as a share of what could be: of k, or of the markers where those are fewer.
    auroc
        Share of pairs of a marker and another gene that are in order.
    """

    markers: int
    hits: int
    recall: float
    auroc: float


def marker_score(score: npt.NDArray[np.floating], markers: Flags, k: int = 20) -> MarkerScore:
    """Score a ranking of genes by known markers; ties at the k-th place are broken against the markers.

    Parameters
    ----------
    score
        (n,) higher is better.
    markers
        (n,) which genes are known markers.
    k
        Length of the list that is looked at.
    """
    n = int(markers.sum())
    if not n or n == len(markers):
        return MarkerScore(n, 0, float("nan"), float("nan"))
    order = np.lexsort((markers, -np.asarray(score, dtype=np.float64)))
    hits = int(markers[order[:k]].sum())
    ranks = rankdata(score)
    auroc = (ranks[markers].sum() - n * (n + 1) / 2) / (n * (len(markers) - n))
    return MarkerScore(n, hits, hits / min(k, n), float(auroc))
