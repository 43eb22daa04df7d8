"""Are orthologs each other's neighbours? Scores of gene embeddings against a table that the model never saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 24  # similarities at a time


@dataclass(frozen=True)
class Retrieval:
    """How well orthologs find each other among all pairs' genes, mean of both directions."""

    auc: float
    """For each gene, the share of the other species' genes that are less similar to it than its own ortholog (ties
    count half), averaged; 0.5 is chance."""
    top10: float
    """Share of genes whose ortholog is among the 10 most similar of the other species' genes."""
    pairs: int
    """Pairs scored."""


def ortholog_retrieval(
    first: npt.NDArray[np.floating], second: npt.NDArray[np.floating], *, top: int = 10
) -> Retrieval:
    """Score the embeddings of one-to-one orthologs by cosine.

    Parameters
    ----------
    first, second
        (n_pairs, width) embeddings; row ``i`` of both is a pair.
    top
        How many most similar genes count as found.

    Raises
    ------
    ValueError
        When the shapes differ or there are fewer than two pairs.
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        raise ValueError(f"expected two arrays (pairs, width) of two pairs or more, got {first.shape}, {second.shape}.")
    a, b = _unit(first), _unit(second)
    shares, found = [], []
    for asked, others in ((a, b), (b, a)):
        for start in range(0, len(asked), max(1, _BLOCK // len(asked))):
            part = slice(start, start + max(1, _BLOCK // len(asked)))
            similarity = asked[part] @ others.T
            place = np.arange(len(similarity))
            own = similarity[place, place + start][:, None]
            less, more = ((similarity < own).sum(axis=1), (similarity > own).sum(axis=1))
            same = len(others) - 1 - less - more
            shares.append((less + same / 2) / (len(others) - 1))
            found.append(more < top)
    return Retrieval(float(np.concatenate(shares).mean()), float(np.concatenate(found).mean()), len(first))


def _unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    values = np.asarray(rows, dtype=np.float64)
    unit: npt.NDArray[np.float32] = (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)).astype(
        np.float32
    )
    return unit
