"""How far a gene's state is between groups of cells, in units of its spread from cell to cell within one group.

Noise in a mean of few cells would add to every distance; what is expected of it is taken away, so that groups which
do not differ are 0 apart on average, however few their cells.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

LEAST_STATES = 10  # of a gene in a group


def squared_distances(
    mean: npt.NDArray[np.floating], variance: npt.NDArray[np.floating], n: npt.NDArray[np.integer]
) -> Float64:
    """Return squared distances of genes' states between groups, (n_groups, n_groups, n_genes).

    Parameters
    ----------
    mean
        (n_groups, n_genes, width) mean state of each gene in each group.
    variance
        (n_groups, n_genes) variance of the state in the group, summed over its dimensions.
    n
        (n_groups, n_genes) states seen.

    Returns
    -------
    ndarray
        The squared distance of two groups' means, less what noise adds to it, over the gene's variance within groups
        (mean over the groups that saw it). May be below 0 where groups do not differ; NaN where a group saw fewer than
        `LEAST_STATES`, and on the diagonal.
    """
    seen = n >= LEAST_STATES
    noise = np.where(seen, variance / np.maximum(n, 1), np.nan)
    within = np.where(seen, variance, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    scale = np.where(within > 0, within, np.nan)
    out = np.full((len(n), len(n), n.shape[1]), np.nan)
    for a in range(len(n)):
        gap = ((mean - mean[a]).astype(np.float64) ** 2).sum(axis=2)
        out[a] = (gap - noise - noise[a]) / scale
        out[a, a] = np.nan
    return out


def group_distances(squared: Float64) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Return the distance of every two groups, and how many genes both saw, (n_groups, n_groups).

    The root of the mean over genes, which noise raises no more than it lowers; NaN where they share no gene.
    """
    distance, shared = np.full(squared.shape[:2], np.nan), np.zeros(squared.shape[:2], np.int64)
    for a, b in permutations(range(len(squared)), 2):
        own = squared[a, b][~np.isnan(squared[a, b])]
        shared[a, b] = len(own)
        if len(own):
            distance[a, b] = np.sqrt(max(float(own.mean()), 0.0))
    return distance, shared


def from_the_others(squared: Float64) -> Float64:
    """Return how far each gene is in each group from where it is in the others, (n_groups, n_genes).

    The root of the mean over the other groups that saw the gene; NaN where there is none.
    """
    known = ~np.isnan(squared)
    total, n = np.where(known, squared, 0).sum(axis=1), known.sum(axis=1)
    mean = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return np.asarray(np.sqrt(np.maximum(mean, 0)))


def spread(squared: Float64) -> Float64:
    """Return how far each gene is between groups, (n_genes,): the root of the mean over pairs that saw it."""
    known = ~np.isnan(squared)
    total, n = np.where(known, squared, 0).sum(axis=(0, 1)), known.sum(axis=(0, 1))
    mean = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return np.asarray(np.sqrt(np.maximum(mean, 0)))
