"""Is an effect greater than that of genes expressed alike? Matched controls, and what to expect of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from scipy.stats import rankdata

from lexicell.gene_space.multiple_testing import empirical_p

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

FEWEST = 5  # controls with which a spread can be told


def nearest_controls(features: npt.NDArray[np.floating], asked: Int64, k: int) -> Int64:
    """Return for each gene asked about the k genes that are most like it, none of which is asked about.

    Parameters
    ----------
    features
        (n_genes, f) what genes are to be alike in, such as mean and detection; compared by rank.
    asked
        (m,) genes.
    k
        Controls of each.

    Returns
    -------
    ndarray, (m, k)
        Fewer columns where there are fewer other genes.
    """
    ranks = rankdata(np.asarray(features, dtype=np.float64), axis=0) / max(len(features), 1)
    others = np.setdiff1d(np.arange(len(features)), asked)
    k = min(k, len(others))
    _, near = KDTree(ranks[others]).query(ranks[asked], k=k)
    return np.asarray(others[np.asarray(near).reshape(len(asked), k)], dtype=np.int64)


def against_controls(observed: Float64, controls: Float64, *, two_sided: bool) -> tuple[Float64, Float64]:
    """Standardise effects by those of their controls, and say how often a control is as far out.

    Each control is standardised by its fellow controls alone; these pooled values are the null distribution. It is that
    of a gene that is one more draw among its controls, and supposes that after standardising, effects vary alike.

    Parameters
    ----------
    observed
        (m,) effects; NaN stays NaN.
    controls
        (m, k) effects of the controls of each; NaN is left out.
    two_sided
        Whether small effects count as well as great ones.

    Returns
    -------
    z, p : ndarray, (m,)
        Distance from the controls' mean in standard deviations (of a new draw); NaN with fewer than 5 controls.
    """
    known = ~np.isnan(controls)
    n = known.sum(axis=1)
    z = _standardised(observed, controls, n)
    null = np.full(controls.shape, np.nan)
    for j in range(controls.shape[1]):
        rest = controls.copy()
        rest[:, j] = np.nan
        null[:, j] = _standardised(controls[:, j], rest, n - known[:, j])
    far, null_far = (np.abs(z), np.abs(null)) if two_sided else (z, null)
    return z, empirical_p(far, null_far.ravel())


def _standardised(values: Float64, controls: Float64, n: Int64) -> Float64:
    known = ~np.isnan(controls)
    total = np.where(known, controls, 0)
    centre = total.sum(axis=1) / np.maximum(n, 1)
    square = np.where(known, (controls - centre[:, None]) ** 2, 0).sum(axis=1) / np.maximum(n - 1, 1)
    scale = np.sqrt(square * (1 + 1 / np.maximum(n, 1)))
    use = (n >= FEWEST) & (scale > 0)
    return np.asarray(np.where(use, (values - centre) / np.where(use, scale, 1), np.nan))
