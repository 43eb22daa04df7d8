"""The probe: four experts on a cell, a linear tree on its genes, its counts' likelihood in each type, its likeness to
each type's profile, and a linear tree on its embedding.

A narrow embedding made from samples of genes may hide a marker that a linear model sees at once; a linear model on
genes knows nothing of what pretraining learned, and overfits where cells are few or shallow, where likelihood and
likeness do well. So all judge, and their opinions are averaged (`lexicell.annotation.opinions`). One regression over
all features side by side ("wide and deep", Cheng et al. 2016) was no better than genes alone; the figures are in
LOG.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lexicell.annotation.centroids import CentroidTree
from lexicell.annotation.likelihood import LikelihoodTree
from lexicell.annotation.linear import Float32, Int64, LinearSettings, LinearTree, fit_linear_tree
from lexicell.annotation.opinions import OpinionPool, shares_beside
from lexicell.annotation.tree import Tables
from lexicell.errors import InputError
from lexicell.labels import LabelTree


@dataclass(frozen=True)
class ProbeSettings:
    """How the probe is fitted.

    Attributes
    ----------
    genes
        The linear tree on gene counts: log(1 + counts, scaled to the reference's median depth), centred.
    embedding
        The linear tree on the standardised embedding.
    shares
        Of genes, likelihood and profiles in the average, in what the embedding leaves; they add up to 1.
    embedding_share
        Of the embedding; None chooses it on held-out cells, see `OpinionPool.fit`.
    max_numbers
        Cells x genes that may be held dense (4 bytes each); with more, the most variable genes that fit are used.
    """

    genes: LinearSettings = field(default_factory=LinearSettings)
    embedding: LinearSettings = field(default_factory=lambda: LinearSettings(penalty=0.1))
    shares: tuple[float, float, float] = (0.45, 0.275, 0.275)
    embedding_share: float | None = None
    max_numbers: int = 200_000_000

    def pool(self, tree: LabelTree) -> OpinionPool:
        """Return how opinions are averaged where no cell was held out: the embedding is not listened to."""
        return OpinionPool.unfitted(shares_beside(self.shares, self.embedding_share or 0.0), tree)


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
        InputError
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
            raise InputError(
                f"counts: no gene varies, of {counts.shape[1]:,}, between the reference's {counts.shape[0]:,} cells: "
                "nothing can be told by them; give a reference that expresses the query's genes."
            )
        return cls(columns, mean[columns].astype(np.float32), depth)

    def __call__(self, counts: sparse.csr_matrix) -> Float32:
        """Return the features of cells, dense (n_cells, n_used), from counts with the reference's columns."""
        dense: Float32 = log_scaled(counts, self.depth)[:, self.columns].toarray()
        dense -= self.mean
        return dense


@dataclass(frozen=True, eq=False)
class CountExperts:
    """The three experts that look at a cell's counts.

    Attributes
    ----------
    features
        What the linear tree reads.
    by_genes, by_likelihood, by_profiles
        The experts.
    """

    features: GeneFeatures
    by_genes: LinearTree
    by_likelihood: LikelihoodTree
    by_profiles: CentroidTree

    @classmethod
    def fit(cls, counts: sparse.csr_matrix, codes: Int64, tree: LabelTree, settings: ProbeSettings) -> Self:
        """Fit on labelled cells; parameters and errors as of `Probe.fit`."""
        features = GeneFeatures.fit(counts, settings.max_numbers)
        by_genes = fit_linear_tree(features(counts), codes, tree, settings.genes)
        likelihood, profiles = LikelihoodTree.fit(counts, codes, tree), CentroidTree.fit(counts, codes, tree)
        return cls(features, by_genes, likelihood, profiles)

    def opinions(self, counts: sparse.csr_matrix) -> list[list[Float32]]:
        """Return log P(label | parent) by genes, likelihood and profiles, per level (n_cells, n_labels)."""
        return [
            self.by_genes.log_conditionals(self.features(counts)),
            self.by_likelihood.log_conditionals(counts),
            self.by_profiles.log_conditionals(counts),
        ]


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe."""

    tree: LabelTree
    pool: OpinionPool
    by_counts: CountExperts
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
        pool: OpinionPool | None = None,
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
        pool
            How opinions are averaged, as held-out cells told (`lexicell.annotation.methods.cross_fit_choosing`);
            without it, by `ProbeSettings.pool`.

        Raises
        ------
        ValueError
            Where the arrays do not fit together, no cell is labelled, or no gene varies.
        """
        settings = settings or ProbeSettings()
        if counts.shape[0] != len(embedding):
            raise ValueError(f"counts: {counts.shape[0]} cells, but the embedding has {len(embedding)}.")
        labelled = np.asarray(codes)[:, 0] >= 0
        embedding, counts, codes = embedding[labelled], sparse.csr_matrix(counts)[labelled], np.asarray(codes)[labelled]
        by_counts = CountExperts.fit(counts, codes, tree, settings)
        centre, spread = embedding.mean(axis=0), embedding.std(axis=0)
        unit = np.where(spread > 0, spread, 1).astype(np.float32)
        by_embedding = fit_linear_tree((embedding - centre) / unit, codes, tree, settings.embedding)
        return cls(tree, pool or settings.pool(tree), by_counts, centre, unit, by_embedding)

    def tables(self, embedding: Float32, counts: sparse.csr_matrix) -> Tables:
        """Return consistent probabilities, one table (n_cells, n_labels) a level."""
        return self.pool.tables(self.tree, self.experts(embedding, counts))

    def experts(self, embedding: Float32, counts: sparse.csr_matrix) -> list[list[Float32]]:
        """Return log P(label | parent) by genes, likelihood, profiles and embedding, per level (n_cells, n_labels)."""
        own = self.by_embedding.log_conditionals((embedding - self.centre) / self.unit)
        return [*self.by_counts.opinions(counts), own]


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
