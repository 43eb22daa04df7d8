"""Profiles of classes of cells, the genes that tell them apart, and how alike cells are to them.

Shared by the labelling of cells and by the benchmark's stand-in for MapMyCells.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_SCALE = 1e6  # counts per million, log2, as the Allen Institute's tools take them
_SMALL = 0.5  # doublings; a smaller difference is no marker, however sure
_SOME_SPREAD = 0.1  # added to every variance: few cells may be all alike by chance


def log2_cpm(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return log2(1 + counts per million), float32, sparse; a cell without counts stays empty."""
    values = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    depth = np.asarray(values.sum(axis=1)).ravel()
    values.data *= np.repeat(_SCALE / np.maximum(depth, 1.0), np.diff(values.indptr))
    np.log1p(values.data, out=values.data)
    values.data /= np.log(2)
    return values.astype(np.float32)


@dataclass(frozen=True, eq=False)
class ClassProfiles:
    """Mean and variance of the log2-CPM of each class's cells.

    Attributes
    ----------
    mean, variance
        (n_classes, n_genes).
    size
        Cells of each class (n_classes,); a class without cells has zeros.
    """

    mean: Float32
    variance: Float32
    size: Int64

    @classmethod
    def of(cls, expression: sparse.csr_matrix, codes: Int64, n_classes: int) -> Self:
        """Sum up cells, (n_cells, n_genes) log2-CPM, by their class (n_cells,)."""
        size = np.bincount(codes, minlength=n_classes)
        member = sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), (n_classes, len(codes)))
        per = np.maximum(size, 1)[:, None]
        mean = (member @ expression).toarray() / per
        square = (member @ expression.multiply(expression)).toarray() / per
        return cls(mean.astype(np.float32), np.maximum(square - mean**2, 0).astype(np.float32), size)

    def take(self, classes: Int64) -> ClassProfiles:
        """Return the profiles of some classes."""
        return ClassProfiles(self.mean[classes], self.variance[classes], self.size[classes])


def marker_genes(
    profiles: ClassProfiles,
    group: Int64,
    per_pair: int = 15,
    most_pairs: int = 1000,
    rng: np.random.Generator | None = None,
) -> Int64:
    """Return the genes that tell groups of classes apart: for each pair, the largest standardised differences.

    Parameters
    ----------
    profiles
        Classes, all with cells.
    group
        (n_classes,) the group of each class, such as its parent in a label tree.
    per_pair
        Genes in each direction for every pair of groups.
    most_pairs
        Pairs that are looked at, drawn at random where there are more.
    rng
        Draws them.
    """
    names = np.unique(group)
    middles, errors = [], []
    for name in names:
        own = profiles.take(np.flatnonzero(group == name))
        weight = (own.size / own.size.sum()).astype(np.float32)
        middle = weight @ own.mean
        middles.append(middle)
        errors.append((weight @ (own.variance + (own.mean - middle) ** 2) + _SOME_SPREAD) / own.size.sum())
    pairs = list(combinations(range(len(names)), 2))
    if len(pairs) > most_pairs:
        draws = (rng or np.random.default_rng(0)).choice(len(pairs), most_pairs, replace=False)
        pairs = [pairs[i] for i in draws]
    chosen: set[int] = set()
    n = min(per_pair, profiles.mean.shape[1])
    for a, b in pairs:
        difference = middles[a] - middles[b]
        score = difference / np.sqrt(errors[a] + errors[b])
        score[np.abs(difference) < _SMALL] *= 0.1
        order = np.argpartition(score, (n - 1, len(score) - n))
        chosen.update(order[:n].tolist(), order[-n:].tolist())
    return np.array(sorted(chosen), dtype=np.int64)


def correlations(cells: Float32, profiles: Float32) -> Float32:
    """Return Pearson correlations of rows: (n_cells, n_genes), (n_classes, n_genes) -> (n_cells, n_classes)."""
    found: Float32 = _standardised(cells) @ _standardised(profiles).T
    return found


def _standardised(values: Float32) -> Float32:
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    scaled: Float32 = centred / np.maximum(length, 1e-12)
    return scaled
