"""Which gene of another species is this one? Nearest rows of two species, and how far a match can be trusted.

Nearest neighbours in many dimensions have hubs: a few genes that are near to everything. Ranked is therefore by CSLS
(Conneau et al. 2018, arXiv:1710.04087), which takes from twice a pair's cosine the mean cosine of each to its own
nearest neighbours in the other species; it was made for matching the words of two languages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from lexicell.neighbors import find_neighbors
from lexicell.randomness import generator

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

LOCAL = 10  # neighbours that say how crowded it is around a gene
_CANDIDATES = 50  # nearest by cosine that are ranked anew
_FEWEST = 20  # known orthologs with which a confidence can be fitted and checked
_FEWEST_JUDGED = 5  # right and wrong matches below which an AUROC says nothing
_BINS = 5


@dataclass(frozen=True, eq=False)
class Matches:
    """The most similar genes of another species, for each gene of one.

    Attributes
    ----------
    indices
        (n_first, k) rows of the other species, best first.
    cosine, csls
        (n_first, k) similarity, plain and corrected for hubs.
    mutual
        (n_first, k) whether the gene is in turn the other gene's best match.
    """

    indices: Int64
    cosine: Float64
    csls: Float64
    mutual: Bool

    @property
    def margin(self) -> Float64:
        """By how much a match is better than the best other candidate (n_first, k); negative but for the best."""
        if self.csls.shape[1] == 1:
            return np.zeros_like(self.csls)
        best, second = self.csls[:, :1], self.csls[:, 1:2]
        return np.where(np.arange(self.csls.shape[1]) == 0, self.csls - second, self.csls - best)


def match_genes(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating], k: int = 5) -> Matches:
    """Find each gene's most similar genes in another species.

    Parameters
    ----------
    first, second
        (n_first, width) and (n_second, width) gene embeddings.
    k
        Matches a gene; at most as many as the other species has genes.
    """
    k = min(k, len(second))
    one, other = _ranked(first, second, k), _ranked(second, first, 1)
    mutual = other[0][one[0], 0] == np.arange(len(first))[:, None]
    return Matches(*one, mutual)


def _ranked(
    first: npt.NDArray[np.floating], second: npt.NDArray[np.floating], k: int
) -> tuple[Int64, Float64, Float64]:
    found = find_neighbors(second, first, k=min(max(k, _CANDIDATES), len(second)), metric="cosine")
    back = find_neighbors(first, second, k=min(LOCAL, len(first)), metric="cosine")
    cosine = 1 - found.distances.astype(np.float64)
    crowd_first = cosine[:, :LOCAL].mean(axis=1, keepdims=True)
    crowd_second = (1 - back.distances.astype(np.float64)).mean(axis=1)
    csls = 2 * cosine - crowd_first - crowd_second[found.indices]
    order = np.argsort(-csls, axis=1, kind="stable")[:, :k]
    take = tuple(np.take_along_axis(values, order, axis=1) for values in (found.indices, cosine, csls))
    return take[0], take[1], take[2]


@dataclass(frozen=True)
class ConfidenceCheck:
    """How a confidence did on genes with a known ortholog that it was not fitted on."""

    genes: int
    """Genes checked."""
    right: float
    """Share of them whose best match is the ortholog."""
    expected: float
    """The same as the confidences foretold it: their mean."""
    calibration_error: float
    """Expected calibration error in bins of equally many genes."""
    auroc: float
    """How well confidence tells right best matches from wrong ones; NaN where fewer than 5 are right, or wrong."""


@dataclass(frozen=True, eq=False)
class MatchConfidence:
    """The chance that a match is the one-to-one ortholog, given that the gene has one."""

    model: LogisticRegression

    @classmethod
    def fit(cls, matches: Matches, ortholog: Int64, seed: int = 0) -> tuple[Self, ConfidenceCheck] | None:
        """Fit on half of the genes with a known ortholog, and check on the other half.

        Parameters
        ----------
        matches
            Matches of all genes.
        ortholog
            (n_first,) row of each gene's ortholog in the other species, -1 where none is known.
        seed
            Draws the halves.

        Returns
        -------
        None where fewer than 20 orthologs are known, or none (or all) of the candidates on the first half are right.
        """
        known = np.flatnonzero(ortholog >= 0)
        if len(known) < _FEWEST:
            return None
        drawn = generator(seed, "match confidence").permutation(known)
        learned, asked = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
        right = matches.indices == ortholog[:, None]
        target = right[learned].ravel()
        if target.all() or not target.any():
            return None
        features = _features(matches)
        width = features.shape[-1]
        model = LogisticRegression(C=1.0, max_iter=1000).fit(features[learned].reshape(-1, width), target)
        fitted = cls(model)
        confidence = fitted.of(matches)[asked, 0]
        return fitted, _check(confidence, right[asked, 0])

    def of(self, matches: Matches) -> Float64:
        """Return the confidence of every match (n_first, k)."""
        features = _features(matches)
        chance: Float64 = self.model.predict_proba(features.reshape(-1, features.shape[-1]))[:, 1]
        return chance.reshape(matches.indices.shape)


def _features(matches: Matches) -> Float64:
    rank = np.broadcast_to(np.arange(matches.indices.shape[1]) == 0, matches.indices.shape)
    return np.stack([matches.csls, matches.margin, matches.cosine, matches.mutual, rank], axis=-1).astype(np.float64)


def _check(confidence: Float64, right: Bool) -> ConfidenceCheck:
    order = np.argsort(confidence, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if len(part)]
    error = sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in bins) / len(right)
    hits, misses = confidence[right], confidence[~right]
    auroc = float("nan")
    if min(len(hits), len(misses)) >= _FEWEST_JUDGED:
        less = np.searchsorted(np.sort(misses), hits, side="left")
        same = np.searchsorted(np.sort(misses), hits, side="right") - less
        auroc = float((less + same / 2).mean() / len(misses))
    return ConfidenceCheck(len(right), float(right.mean()), float(confidence.mean()), float(error), auroc)
