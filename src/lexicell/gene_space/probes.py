"""Supervised probes: can a logistic regression read a class of genes from their embedding?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from lexicell.randomness import generator

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MOST_COLUMNS = 256  # wider embeddings are reduced to so many principal components
FOLDS = 5
DRAWS = 500  # of genes, for intervals
_AT_ONCE = 256  # positives, beside all negatives


@dataclass(frozen=True)
class ProbeScore:
    """How well a class was read.

    Parameters
    ----------
    auroc
        Over all genes asked about, each scored by a fold that it was not in.
    matched
        Over pairs of genes of one expression bin.
    positives, negatives
        Genes of the class, and the others.
    low, high
        95% interval of `auroc`, resampling genes; the fits stay as they are.
    """

    auroc: float
    matched: float
    positives: int
    negatives: int
    low: float
    high: float


def probe(points: npt.NDArray[np.floating], classes: npt.NDArray[np.integer], bins: Int64, seed: int = 0) -> ProbeScore:
    """Fit a logistic regression on four fifths of the genes and score the rest, five times.

    Parameters
    ----------
    points
        (n_genes, width) embedding; columns are scaled to unit variance on the fitted genes.
    classes
        (n_genes,) 1 for the class, 0 for the others, -1 for genes that are not asked about.
    bins
        (n_genes,) bin of each gene's expression.
    seed
        Of the folds, and of the reduction where it is needed.

    Returns
    -------
    ProbeScore
        NaN where a class has fewer genes than there are folds.
    """
    asked = np.flatnonzero(classes >= 0)
    truth = classes[asked] == 1
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < FOLDS:
        return ProbeScore(np.nan, np.nan, positives, negatives, np.nan, np.nan)
    score = held_out_scores(points, classes, seed)[asked]
    everywhere = np.zeros(len(asked), np.int64)
    drawn = resampled_aurocs(score, truth, everywhere, generator(seed, "genes resampled"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    auroc, matched = (stratified_auroc(score, truth, strata) for strata in (everywhere, bins[asked]))
    return ProbeScore(auroc, matched, positives, negatives, float(low), float(high))


def held_out_scores(points: npt.NDArray[np.floating], classes: npt.NDArray[np.integer], seed: int = 0) -> Float64:
    """Return each gene's score by the fold that it was not in, (n_genes,); see `probe` for the parameters.

    Scores are ranks within a fold, so that folds are on one scale; NaN for genes that are not asked about.
    """
    asked = np.flatnonzero(classes >= 0)
    truth = classes[asked] == 1
    x = np.asarray(points, dtype=np.float64)
    if x.shape[1] > MOST_COLUMNS:
        x = PCA(MOST_COLUMNS, svd_solver="randomized", random_state=seed).fit_transform(x)
    x = x[asked]
    score = np.full(len(classes), np.nan)
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, truth):
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
        model.fit(scaler.transform(x[train]), truth[train])
        score[asked[test]] = rankdata(model.decision_function(scaler.transform(x[test]))) / len(test)
    return score


def stratified_auroc(score: Float64, truth: Flags, strata: Int64) -> float:
    """Return the share of (positive, negative) pairs of one stratum that are in order, ties as halves.

    Parameters
    ----------
    score, truth, strata
        (n,) score, whether positive, and stratum.
    """
    won, pairs = 0.0, 0
    for stratum in np.unique(strata):
        own = strata == stratum
        n_pos = int(truth[own].sum())
        n_neg = int(own.sum()) - n_pos
        if n_pos and n_neg:
            ranks = rankdata(score[own])
            won += float(ranks[truth[own]].sum()) - n_pos * (n_pos + 1) / 2
            pairs += n_pos * n_neg
    return won / pairs if pairs else float("nan")


def resampled_aurocs(
    score: Float64, truth: Flags, strata: Int64, rng: np.random.Generator, draws: int = DRAWS
) -> Float64:
    """Return `stratified_auroc` of as many positives and negatives drawn with replacement, (draws,).

    A generator in the same state draws the same genes, so that the draws of two embeddings can be subtracted.
    """
    positive, negative = np.flatnonzero(truth), np.flatnonzero(~truth)
    weights = [rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws) for own in (positive, negative)]
    w_positive, w_negative = (w.astype(np.float32) for w in weights)
    won, pairs = np.zeros(draws), np.zeros(draws)
    for start in range(0, len(positive), _AT_ONCE):
        part = positive[start : start + _AT_ONCE]
        meets = strata[part][:, None] == strata[negative][None]
        beats = np.sign(score[part][:, None] - score[negative][None]) / 2 + 0.5
        w = w_positive[:, start : start + _AT_ONCE]
        won += np.einsum("dn,dn->d", w @ (meets * beats).astype(np.float32), w_negative)
        pairs += np.einsum("dn,dn->d", w @ meets.astype(np.float32), w_negative)
    return np.asarray(np.divide(won, pairs, out=np.full(draws, np.nan), where=pairs > 0))
