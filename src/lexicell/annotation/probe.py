"""The probe: four experts on a cell, a linear tree on its genes, its counts' likelihood in each type, its likeness to
each type's profile, and its embedding.

A narrow embedding made from samples of genes may hide a marker that a linear model sees at once; a linear model on
genes knows nothing of what pretraining learned, and overfits where cells are few or shallow, where likelihood and
likeness do well. So all judge, and their opinions are multiplied (a product of experts, Hinton 2002): among the
children of each parent, log P is the genes' plus a weight times each other's, normalised. The weights are chosen on
held-out cells. One regression over all features side by side ("wide and deep", Cheng et al. 2016) was no better than
genes alone; the figures are in LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lexicell.annotation.centroids import CentroidTree
from lexicell.annotation.folds import reference_folds
from lexicell.annotation.likelihood import LikelihoodTree
from lexicell.annotation.linear import (
    Float32,
    Int64,
    LinearSettings,
    LinearTree,
    along_paths,
    fit_linear_tree,
    log_softmax_among_siblings,
)
from lexicell.annotation.tree import Tables
from lexicell.labels import LabelTree

Opinion = Sequence[Float32]  # log P(label | parent), one table (n_cells, n_labels) a level
# Of likelihood, profiles, embedding. The first two always have a say: held-out cells of the same study may see no need
# of them where a new donor or study does.
WEIGHTS = ((0.5, 1.0, 2.0), (0.25, 0.5, 1.0, 2.0), (0.0, 0.25, 0.5, 1.0))
EQUAL = (1.0, 1.0, 1.0)  # weights before they are chosen
_FOLDS = 3  # in which a weight is chosen
_HEATS = np.geomspace(0.25, 8, 11).astype(np.float32)
_UNLIKELY = -12.0


@dataclass(frozen=True)
class ProbeSettings:
    """How the probe is fitted.

    Attributes
    ----------
    genes
        The linear tree on gene counts: log(1 + counts, scaled to the reference's median depth), centred.
    embedding
        The linear tree on the standardised embedding.
    weights
        Weights of the opinions of likelihood, profiles and embedding beside that of the genes, which has 1; 0 leaves
        one out. None chooses each among its `WEIGHTS` on held-out cells: the embedding of a model that knows little of
        such cells should have little to say.
    max_numbers
        Cells x genes that may be held dense (4 bytes each); with more, the most variable genes that fit are used.
    """

    genes: LinearSettings = field(default_factory=LinearSettings)
    embedding: LinearSettings = field(default_factory=lambda: LinearSettings(penalty=0.1))
    weights: tuple[float, ...] | None = None
    max_numbers: int = 200_000_000


@dataclass(frozen=True, eq=False)
class GeneFeatures:
    """Which genes are read, and what is usual for them.

    Attributes
    ----------
    columns
        Columns of the counts that are used (n_used,).
    mean
        Their mean in the reference (n_used,).
    depth
        Counts that each cell is scaled to before the logarithm: the reference's median. Scaling a shallow cell up to
        10,000 makes one molecule look like strong expression (Ahlmann-Eltze & Huber 2023).
    """

    columns: Int64
    mean: Float32
    depth: float

    @classmethod
    def fit(cls, counts: sparse.csr_matrix, max_numbers: int) -> Self:
        """Choose the genes that vary: all, or the most variable ones that fit into `max_numbers`.

        Raises
        ------
        ValueError
            When no gene varies.
        """
        depths = np.asarray(counts.sum(axis=1)).ravel()
        depth = float(max(np.median(depths), 1.0))
        logs = log_scaled(counts, depth)
        mean = np.asarray(logs.mean(axis=0, dtype=np.float64)).ravel()
        square = np.asarray(logs.multiply(logs).mean(axis=0, dtype=np.float64)).ravel()
        variance = square - mean**2
        variance[variance < 1e-6 * square] = 0.0  # what float32 squares leave of a constant gene
        most = max(1, max_numbers // max(counts.shape[0], 1))
        columns = np.sort(np.argsort(-variance, kind="stable")[: min(most, int((variance > 0).sum()))])
        if not len(columns):
            raise ValueError("counts: no gene varies between the reference's cells.")
        return cls(columns, mean[columns].astype(np.float32), depth)

    def __call__(self, counts: sparse.csr_matrix) -> Float32:
        """Return the features of cells, dense (n_cells, n_used), from counts with the reference's columns."""
        dense: Float32 = log_scaled(counts, self.depth)[:, self.columns].toarray()
        dense -= self.mean
        return dense


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe."""

    tree: LabelTree
    weights: tuple[float, ...]
    features: GeneFeatures
    by_genes: LinearTree
    by_likelihood: LikelihoodTree
    by_profiles: CentroidTree
    centre: Float32
    unit: Float32
    by_embedding: LinearTree

    @classmethod
    def fit(
        cls,
        embedding: Float32,
        counts: sparse.csr_matrix,
        codes: Int64,
        tree: LabelTree,
        settings: ProbeSettings | None = None,
        donors: npt.NDArray[np.object_] | None = None,
    ) -> Self:
        """Fit on labelled cells.

        Parameters
        ----------
        embedding
            (n_cells, width), by any model.
        counts
            Raw counts (n_cells, n_genes), CSR.
        codes
            Labels (n_cells, n_levels), as `LabelTree.encode` gives them; -1 is missing.
        tree
            The label tree.
        settings
            How it is fitted.
        donors
            (n_cells,) donors, which are held out whole where weights are chosen.

        Raises
        ------
        ValueError
            Where the arrays do not fit together, no cell is labelled, or no gene varies.
        """
        settings = settings or ProbeSettings()
        if settings.weights is None:
            return cls._fit_weighing(embedding, sparse.csr_matrix(counts), np.asarray(codes), tree, settings, donors)
        if counts.shape[0] != len(embedding):
            raise ValueError(f"counts: {counts.shape[0]} cells, but the embedding has {len(embedding)}.")
        labelled = np.asarray(codes)[:, 0] >= 0
        embedding, counts, codes = embedding[labelled], sparse.csr_matrix(counts)[labelled], np.asarray(codes)[labelled]
        features = GeneFeatures.fit(counts, settings.max_numbers)
        by_genes = fit_linear_tree(features(counts), codes, tree, settings.genes)
        centre, spread = embedding.mean(axis=0), embedding.std(axis=0)
        unit = np.where(spread > 0, spread, 1).astype(np.float32)
        by_embedding = fit_linear_tree((embedding - centre) / unit, codes, tree, settings.embedding)
        likelihood, profiles = LikelihoodTree.fit(counts, codes, tree), CentroidTree.fit(counts, codes, tree)
        return cls(tree, settings.weights, features, by_genes, likelihood, profiles, centre, unit, by_embedding)

    @classmethod
    def _fit_weighing(
        cls,
        embedding: Float32,
        counts: sparse.csr_matrix,
        codes: Int64,
        tree: LabelTree,
        settings: ProbeSettings,
        donors: npt.NDArray[np.object_] | None,
    ) -> Self:
        """Fit with the weights that do best on held-out cells."""
        fixed = replace(settings, weights=EQUAL)
        whole = cls.fit(embedding, counts, codes, tree, fixed)
        rows, opinions = [], []
        for fold in reference_folds(donors, codes, most=_FOLDS)[0]:
            left = np.setdiff1d(np.flatnonzero(codes[:, 0] >= 0), fold)
            if len(left) and len(fold):
                probe = cls.fit(embedding[left], counts[left], codes[left], tree, fixed)
                rows.append(fold)
                opinions.append(probe.experts(embedding[fold], counts[fold]))
        if not rows:
            return whole
        experts = [
            [np.concatenate(level) for level in zip(*expert, strict=True)] for expert in zip(*opinions, strict=True)
        ]
        return replace(whole, weights=choose_weights(tree, experts, codes[np.concatenate(rows)]))

    def tables(self, embedding: Float32, counts: sparse.csr_matrix) -> Tables:
        """Return consistent probabilities, one table (n_cells, n_labels) a level."""
        return multiply_experts(self.tree, self.experts(embedding, counts), self.weights)

    def experts(self, embedding: Float32, counts: sparse.csr_matrix) -> list[list[Float32]]:
        """Return log P(label | parent) by genes, likelihood, profiles and embedding, per level (n_cells, n_labels)."""
        return [
            self.by_genes.log_conditionals(self.features(counts)),
            self.by_likelihood.log_conditionals(counts),
            self.by_profiles.log_conditionals(counts),
            self.by_embedding.log_conditionals((embedding - self.centre) / self.unit),
        ]


def multiply_experts(tree: LabelTree, experts: Sequence[Opinion], weights: Sequence[float]) -> Tables:
    """Multiply experts' P(label | parent), all but the first one raised to a weight; return probabilities per level."""
    product = experts[0]
    for expert, weight in zip(experts[1:], weights, strict=True):
        product = _product(tree, product, expert, weight)
    return along_paths(tree, product)


def _product(tree: LabelTree, first: Opinion, second: Opinion, weight: float) -> list[Float32]:
    if weight == 0:
        return list(first)
    both = [a + np.float32(weight) * b for a, b in zip(first, second, strict=True)]
    return [log_softmax_among_siblings(tree, place, logs) for place, logs in enumerate(both)]


def choose_weights(tree: LabelTree, experts: Sequence[Opinion], codes: Int64) -> tuple[float, ...]:
    """Return the weight of each expert after the first: one after the other, given those before.

    Of an expert's `WEIGHTS`, the smallest one whose product explains held-out labels as well as the best one does, but
    for one standard error over labels (Breiman et al. 1984): cells held out of the donors that were learned from say
    too much good of an opinion that does not carry over to new donors. Judged by the log likelihood of the true child,
    all labels counting alike, at the temperature that suits each product best: macro-F1 moves by single cells of rare
    labels, and chose badly where the embedding was poor.

    Parameters
    ----------
    tree
        The label tree.
    experts
        Their log P(label | parent) of held-out cells, each per level: genes, likelihood, profiles, embedding.
    codes
        The cells' labels (n_cells, n_levels).
    """
    product, chosen = experts[0], []
    for expert, weights in zip(experts[1:], WEIGHTS, strict=True):
        products = [_product(tree, product, expert, weight) for weight in weights]
        misfits = [_misfits(tree, one, codes) for one in products]
        best = int(np.argmin([misfit.mean() for misfit in misfits]))
        behind = [misfit - misfits[best] for misfit in misfits]
        enough = [gap.mean() <= gap.std(ddof=min(1, len(gap) - 1)) / np.sqrt(len(gap)) for gap in behind]
        place = enough.index(True)
        chosen.append(weights[place])
        product = products[place]
    return tuple(chosen)


def _misfits(tree: LabelTree, opinion: Opinion, codes: Int64) -> npt.NDArray[np.float64]:
    """Return how badly an opinion explains the held-out cells of each label, each level at its best temperature."""
    misfits = []
    for place, logs in enumerate(opinion):
        known = (codes[:, place] >= 0) & np.isfinite(logs).any(axis=1)
        losses = [_losses(tree, place, logs[known] / heat, codes[known, place]) for heat in _HEATS]
        misfits.append(min(losses, key=np.mean))
    return np.concatenate(misfits)


def _losses(tree: LabelTree, place: int, logs: Float32, truth: Int64) -> npt.NDArray[np.float64]:
    """Return the mean cross-entropy of each label's cells; one that could not be learned counts as very unlikely."""
    likely = np.maximum(log_softmax_among_siblings(tree, place, logs)[np.arange(len(truth)), truth], _UNLIKELY)
    sizes = np.bincount(truth, minlength=tree.sizes[place])
    sums = np.bincount(truth, weights=-likely.astype(np.float64), minlength=tree.sizes[place])
    losses: npt.NDArray[np.float64] = sums[sizes > 0] / sizes[sizes > 0]
    return losses


def log_scaled(counts: sparse.csr_matrix, target: float) -> sparse.csr_matrix:
    """Return log(1 + counts per `target`), float32, sparse; a cell without counts stays empty."""
    values = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    depth = np.asarray(values.sum(axis=1)).ravel()
    values.data *= np.repeat(target / np.maximum(depth, 1.0), np.diff(values.indptr))
    np.log1p(values.data, out=values.data)
    return values.astype(np.float32)


def balanced_subset(codes: Int64, most: int, rng: np.random.Generator) -> Int64:
    """Return rows (ascending), at most `most`, that leave out cells of common labels first.

    Every deepest label keeps all its cells up to one limit, the same for all, and loses a random choice beyond it.

    Parameters
    ----------
    codes
        Labels (n_cells, n_levels); -1 is missing. Cells without any label are left out.
    most
        Rows to return at most (one a label at least).
    rng
        Draws which cells stay.
    """
    depth = (codes >= 0).cumprod(axis=1).sum(axis=1)
    rows = np.flatnonzero(depth > 0)
    if len(rows) <= most:
        return rows
    deepest = np.stack([depth[rows], codes[rows, depth[rows] - 1]], axis=1)
    label, sizes = np.unique(deepest, axis=0, return_inverse=True, return_counts=True)[1:]
    ordered = np.sort(sizes)
    # With a limit between the (i-1)th and the ith size, the smaller ones stay whole and the rest get the limit.
    kept = np.concatenate([[0], np.cumsum(ordered)])
    limits = (most - kept[:-1]) // np.arange(len(ordered), 0, -1)
    limit = max(1, int(limits[limits <= ordered][0])) if (limits <= ordered).any() else int(ordered[-1])
    shuffled = rng.permutation(len(rows))
    by_label = shuffled[np.argsort(label.reshape(-1)[shuffled], kind="stable")]
    place = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen: npt.NDArray[np.int64] = np.sort(rows[by_label[place < limit]])
    return chosen
