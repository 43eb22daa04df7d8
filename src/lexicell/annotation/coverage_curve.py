"""How many cells can be called at which error, when the least sure ones are left out?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

POINTS = 100


def coverage_curve(
    probs: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], points: int = POINTS
) -> pd.DataFrame:
    """Return share called and error among those called, for falling limits of confidence.

    Parameters
    ----------
    probs
        (n_cells,) confidence of the calls; 0 where nothing was called.
    correct
        (n_cells,) whether they are right.
    points
        Limits at most, spread evenly over the cells. Cells of equal confidence are called together.

    Returns
    -------
    DataFrame
        threshold, coverage (share of the cells with at least that confidence), error (share of those that are wrong).
    """
    order = np.argsort(-np.asarray(probs, dtype=np.float64), kind="stable")
    sure, wrong = np.asarray(probs, dtype=np.float64)[order], ~np.asarray(correct, dtype=bool)[order]
    last = np.append(sure[1:] != sure[:-1], True) & (sure > 0) if len(sure) else np.zeros(0, bool)
    ends = np.flatnonzero(last)
    if len(ends) > points:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, points).astype(int))]
    n_called = ends + 1
    error = np.cumsum(wrong)[ends] / n_called
    return pd.DataFrame({"threshold": sure[ends], "coverage": n_called / max(len(sure), 1), "error": error})
