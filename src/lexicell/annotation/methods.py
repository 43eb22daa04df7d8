"""The ways to label cells, behind one interface: learn from labelled cells, then give probabilities down the tree.

A method sees a cell as `SeenCells`: its embedding, its counts, and what a label head says of it, by any model. Held-out
probabilities, which calibration and promises are built on, are made in one way for all methods: `cross_fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lexicell.annotation.calibration import log_conditionals
from lexicell.annotation.knn import KnnSettings, Voters
from lexicell.annotation.linear import Float32, Int64, LinearTree, fit_linear_tree
from lexicell.annotation.probe import GeneFeatures, Probe, ProbeSettings, multiply_experts
from lexicell.annotation.tree import Tables, consistent
from lexicell.labels import LabelTree
from lexicell.randomness import generator

MOST_FOLDS = 5


@dataclass(frozen=True, eq=False)
class SeenCells:
    """What a method may look at.

    Attributes
    ----------
    embedding
        (n_cells, width).
    counts
        Raw counts (n_cells, n_genes), CSR, over the genes that reference and query share; None where not asked for.
    head
        A label head's probabilities, one table (n_cells, n_labels) a level; None where there is no head.
    """

    embedding: Float32
    counts: sparse.csr_matrix | None = None
    head: Tables | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.embedding)

    def take(self, rows: Int64) -> SeenCells:
        """Return some of the cells."""
        return SeenCells(
            self.embedding[rows],
            None if self.counts is None else sparse.csr_matrix(self.counts[rows]),
            None if self.head is None else [table[rows] for table in self.head],
        )

    @classmethod
    def join(cls, parts: Sequence[SeenCells]) -> SeenCells:
        """Stack consecutive cells."""
        counts = [part.counts for part in parts]
        heads = [part.head for part in parts]
        return cls(
            np.concatenate([part.embedding for part in parts]),
            None if counts[0] is None else sparse.vstack(counts, format="csr"),
            None if heads[0] is None else [np.concatenate(level) for level in zip(*heads, strict=True)],
        )


class Labeller(Protocol):
    """A method that has learned."""

    def tables(self, cells: SeenCells) -> Tables:
        """Return consistent probabilities, one table (n_cells, n_labels) a level."""
        ...


class Method(Protocol):
    """A way to label cells.

    `uses_counts` and `uses_head` say what it looks at beside the embedding.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def uses_counts(self) -> bool: ...  # noqa: D102

    @property
    def uses_head(self) -> bool: ...  # noqa: D102

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> Labeller:
        """Learn from labelled cells; codes (n_cells, n_levels), -1 is missing."""
        ...


@dataclass(frozen=True)
class KnnMethod:
    """The nearest labelled cells vote."""

    settings: KnnSettings = field(default_factory=KnnSettings)
    name: str = "knn"
    uses_counts: bool = False
    uses_head: bool = False

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> Labeller:
        """Keep the labelled cells."""
        return _Voting(Voters(cells.embedding, codes, tree, self.settings))


@dataclass(frozen=True, eq=False)
class _Voting:
    voters: Voters

    def tables(self, cells: SeenCells) -> Tables:
        return self.voters.tables(cells.embedding)


@dataclass(frozen=True)
class HeadMethod:
    """A label head that was trained along with its model; it learns nothing more."""

    name: str = "head"
    uses_counts: bool = False
    uses_head: bool = True

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> Labeller:
        """Return the head."""
        return _Head(tree)


@dataclass(frozen=True, eq=False)
class _Head:
    tree: LabelTree

    def tables(self, cells: SeenCells) -> Tables:
        assert cells.head is not None
        return consistent(self.tree, cells.head)


@dataclass(frozen=True)
class ProbeMethod:
    """A linear tree on the embedding and one on the genes; see `lexicell.annotation.probe`."""

    settings: ProbeSettings = field(default_factory=ProbeSettings)
    name: str = "probe"
    uses_counts: bool = True
    uses_head: bool = False

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> Labeller:
        """Fit both."""
        assert cells.counts is not None
        return _Probing(Probe.fit(cells.embedding, cells.counts, codes, tree, self.settings))


@dataclass(frozen=True, eq=False)
class _Probing:
    probe: Probe

    def tables(self, cells: SeenCells) -> Tables:
        assert cells.counts is not None
        return self.probe.tables(cells.embedding, cells.counts)


@dataclass(frozen=True)
class FinetuneMethod:
    """The head of a model that was trained on, multiplied with a linear tree on the genes, as in the probe."""

    settings: ProbeSettings = field(default_factory=ProbeSettings)
    name: str = "finetune"
    uses_counts: bool = True
    uses_head: bool = True

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> Labeller:
        """Fit the linear tree; the head has learned already."""
        assert cells.counts is not None
        features = GeneFeatures.fit(cells.counts, self.settings.max_numbers)
        by_genes = fit_linear_tree(features(cells.counts), codes, tree, self.settings.genes)
        return _HeadAndGenes(tree, features, by_genes, self.settings.weight)


@dataclass(frozen=True, eq=False)
class _HeadAndGenes:
    tree: LabelTree
    features: GeneFeatures
    by_genes: LinearTree
    weight: float

    def tables(self, cells: SeenCells) -> Tables:
        assert cells.counts is not None
        assert cells.head is not None
        genes = self.by_genes.log_conditionals(self.features(cells.counts))
        head = [np.maximum(logs, -30).astype(np.float32) for logs in log_conditionals(self.tree, cells.head)]
        return multiply_experts(self.tree, genes, head, self.weight)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Reference cells that were labelled by a method that had not learned from their fold.

    Attributes
    ----------
    rows
        Which of the reference's cells, ascending (n,).
    tables
        Their probabilities.
    """

    rows: Int64
    tables: Tables


def reference_folds(donors: npt.NDArray[np.object_] | None, codes: Int64, seed: int = 0) -> tuple[list[Int64], bool]:
    """Return up to five groups of cells to hold out in turn, and whether they are whole donors.

    Donors are dealt to folds by size. Where fewer than two donors are known, labelled cells are dealt at random within
    each label: good enough for temperatures, but it says nothing of a new donor.
    """
    n_cells = len(codes)
    if donors is not None:
        names, place, sizes = np.unique(
            [donor if donor is not None else "" for donor in donors], return_inverse=True, return_counts=True
        )
        if len(names) > 1:
            n_folds = min(MOST_FOLDS, len(names))
            load, fold = np.zeros(n_folds), np.zeros(len(names), dtype=np.int64)
            for donor in np.argsort(-sizes, kind="stable"):
                fold[donor] = load.argmin()
                load[fold[donor]] += sizes[donor]
            return [np.flatnonzero(fold[place] == i) for i in range(n_folds)], True
    depth = (codes >= 0).cumprod(axis=1).sum(axis=1)
    deepest = codes[np.arange(n_cells), np.maximum(depth - 1, 0)]
    shuffled = generator(seed, "folds of the reference").permutation(n_cells)
    order = shuffled[np.lexsort((deepest[shuffled], depth[shuffled]))]
    return [np.sort(order[i::MOST_FOLDS]) for i in range(min(MOST_FOLDS, n_cells))], False


def cross_fit(
    method: Method,
    cells: SeenCells,
    codes: Int64,
    tree: LabelTree,
    folds: Sequence[Int64],
    learn_from: npt.NDArray[np.bool_] | None = None,
    judge: npt.NDArray[np.bool_] | None = None,
) -> HeldOut:
    """Label each fold's cells by the method, fitted on the cells of no fold or of other folds.

    Parameters
    ----------
    method, cells, codes, tree
        What is fitted on what.
    folds
        Rows to hold out in turn.
    learn_from, judge
        (n_cells,) cells that may be learned from, and that are labelled; all by default. A fold whose remaining cells
        bear no label is left out.
    """
    learnable = (np.ones(len(codes), bool) if learn_from is None else learn_from) & (codes[:, 0] >= 0)
    judged = np.ones(len(codes), bool) if judge is None else judge
    rows, tables = [], []
    for fold in folds:
        left = learnable.copy()
        left[fold] = False
        asked = fold[judged[fold]]
        if not left.any() or not len(asked):
            continue
        known = np.flatnonzero(left)
        labeller = method.fit(cells.take(known), codes[known], tree)
        rows.append(asked)
        tables.append(labeller.tables(cells.take(asked)))
    if not rows:
        return HeldOut(np.empty(0, np.int64), [np.empty((0, size), np.float32) for size in tree.sizes])
    joined = np.concatenate(rows)
    order = np.argsort(joined, kind="stable")
    return HeldOut(joined[order], [np.concatenate(level)[order] for level in zip(*tables, strict=True)])
