"""P-values from random draws, and their correction for many tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def empirical_p(observed: Float64, null: Float64) -> Float64:
    """Return the share of null values that are at least as great, counting the observed one among them.

    Parameters
    ----------
    observed
        (n,) statistics; NaN stays NaN.
    null
        (m,) statistics under the null hypothesis, shared by all tests; NaN is left out.

    Returns
    -------
    ndarray, (n,)
        ``(1 + number of null values >= observed) / (1 + m)``: never below ``1 / (1 + m)`` (Phipson & Smyth 2010).
    """
    values = np.sort(null[~np.isnan(null)])
    at_least = len(values) - np.searchsorted(values, observed, side="left")
    return np.where(np.isnan(observed), np.nan, (1 + at_least) / (1 + len(values)))


def benjamini_hochberg(p: Float64) -> Float64:
    """Return the false discovery rate at which each test would be called (Benjamini & Hochberg 1995).

    Parameters
    ----------
    p
        (n,) p-values; NaN (not tested) stays NaN and does not count.
    """
    out = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    raised = p[order] * len(order) / np.arange(1, len(order) + 1)
    out[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return out
