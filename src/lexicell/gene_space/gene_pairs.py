"""Does a score between genes find known pairs? Gene by gene, also among partners of alike expression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def symmetric(scores: npt.NDArray[np.floating]) -> Float64:
    """Return the mean of both directions (n, n); NaN where either is missing."""
    values = np.asarray(scores, dtype=np.float64)
    return (values + values.T) / 2


def product_corrected(scores: npt.NDArray[np.floating]) -> Float64:
    """Return a symmetric matrix less what each gene's mean score explains: the average product correction.

    A score that is the product of how much two genes attract attention at all becomes zero (Dunn, Wahl & Gloor 2008;
    Rao et al. 2021 use it for attention of protein models). Missing values and the diagonal do not count.
    """
    values = np.asarray(scores, dtype=np.float64).copy()
    np.fill_diagonal(values, np.nan)
    known = ~np.isnan(values)
    total = np.where(known, values, 0)
    row = total.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    mean = total.sum() / max(int(known.sum()), 1)
    return np.asarray(values - np.outer(row, row) / mean) if mean else values


def partner_auroc(scores: npt.NDArray[np.floating], partners: Flags, asked: Flags, bins: Int64) -> pd.DataFrame:
    """Score, for each gene, how far up its known partners come among all genes asked about.

    Parameters
    ----------
    scores
        (n, n) score of the row's gene with the column's; NaN counts as not asked.
    partners
        (n, n) known partners.
    asked
        (n, n) pairs that count, as partners or as others.
    bins
        (n,) bin of each gene's expression.

    Returns
    -------
    DataFrame
        One row a gene: partners, others, auroc (the share of pairs of a partner and another gene that are in order),
        and auroc_matched (such pairs of one bin). NaN where there is none.
    """
    values = np.asarray(scores, dtype=np.float64)
    use = asked & ~np.isnan(values) & ~np.eye(len(values), dtype=bool)
    rows = []
    for gene in range(len(values)):
        at = np.flatnonzero(use[gene])
        truth = partners[gene, at]
        n_partners = int(truth.sum())
        row = {"partners": n_partners, "others": len(at) - n_partners, "auroc": np.nan, "auroc_matched": np.nan}
        if 0 < n_partners < len(at):
            score, bin_of = values[gene, at], bins[at]
            row["auroc"] = _auroc(score, truth)
            won = [
                (_auroc(score[own], truth[own]), int(truth[own].sum()) * int((~truth[own]).sum()))
                for own in (bin_of == b for b in np.unique(bin_of[truth]))
                if not truth[own].all()
            ]
            if won:
                row["auroc_matched"] = sum(a * n for a, n in won) / sum(n for _, n in won)
        rows.append(row)
    return pd.DataFrame(rows)


def _auroc(score: Float64, truth: Flags) -> float:
    n_true = int(truth.sum())
    ranks = rankdata(score)
    return float((ranks[truth].sum() - n_true * (n_true + 1) / 2) / (n_true * (len(truth) - n_true)))


def mean_interval(values: Float64, rng: np.random.Generator, resamples: int = 1000) -> tuple[float, float, float]:
    """Return the mean and its 95% bootstrap interval; NaN values are left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    draws = known[rng.integers(len(known), size=(resamples, len(known)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(known.mean()), float(low), float(high)


def top_partners(scores: npt.NDArray[np.floating], k: int) -> tuple[Int64, Int64]:
    """Return the rows and columns of each row's k greatest scores, greatest first; NaN and the diagonal left out."""
    values = np.asarray(scores, dtype=np.float64).copy()
    np.fill_diagonal(values, np.nan)
    filled = np.where(np.isnan(values), -np.inf, values)
    order = np.argsort(-filled, axis=1, kind="stable")[:, :k]
    rows = np.repeat(np.arange(len(values)), order.shape[1])
    columns = order.ravel()
    keep = np.isfinite(filled[rows, columns])
    return rows[keep], columns[keep]
