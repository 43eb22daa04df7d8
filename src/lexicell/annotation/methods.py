"""The ways to label cells, behind one interface: learn from labelled cells, then give probabilities down the tree.

A method sees a cell as `SeenCells`: its embedding, its counts, and what a label head says of it, by any model. Held-out
probabilities, which calibration and promises are built on, are made in one way for all methods: `cross_fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lexicell.annotation.calibration import log_conditionals
from lexicell.annotation.knn import KnnSettings, Voters
from lexicell.annotation.linear import Float32, Int64, LinearTree, fit_linear_tree
from lexicell.annotation.probe import WEIGHTS, GeneFeatures, Probe, ProbeSettings, choose_weight, multiply_experts
from lexicell.annotation.tree import Tables, consistent
from lexicell.labels import LabelTree


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


class ExpertLabeller(Labeller, Protocol):
    """A labeller that multiplies the opinions of two experts, the second one raised to a weight."""

    def experts(self, cells: SeenCells) -> tuple[list[Float32], list[Float32]]:
        """Return both experts' log P(label | parent), per level (n_cells, n_labels)."""
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

    def weighing(self, weight: float) -> ProbeMethod:
        """Return the method with a fixed weight of the embedding's opinion."""
        return replace(self, settings=replace(self.settings, weight=weight))

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> ExpertLabeller:
        """Fit both."""
        assert cells.counts is not None
        return _Probing(Probe.fit(cells.embedding, cells.counts, codes, tree, self.settings))


@dataclass(frozen=True, eq=False)
class _Probing:
    probe: Probe

    def tables(self, cells: SeenCells) -> Tables:
        assert cells.counts is not None
        return self.probe.tables(cells.embedding, cells.counts)

    def experts(self, cells: SeenCells) -> tuple[list[Float32], list[Float32]]:
        assert cells.counts is not None
        return self.probe.experts(cells.embedding, cells.counts)


@dataclass(frozen=True)
class FinetuneMethod:
    """The head of a model that was trained on, multiplied with a linear tree on the genes, as in the probe."""

    settings: ProbeSettings = field(default_factory=ProbeSettings)
    name: str = "finetune"
    uses_counts: bool = True
    uses_head: bool = True

    def weighing(self, weight: float) -> FinetuneMethod:
        """Return the method with a fixed weight of the head's opinion."""
        return replace(self, settings=replace(self.settings, weight=weight))

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> ExpertLabeller:
        """Fit the linear tree; the head has learned already."""
        assert cells.counts is not None
        features = GeneFeatures.fit(cells.counts, self.settings.max_numbers)
        by_genes = fit_linear_tree(features(cells.counts), codes, tree, self.settings.genes)
        weight = WEIGHTS[-1] if self.settings.weight is None else self.settings.weight
        return _HeadAndGenes(tree, features, by_genes, weight)


@dataclass(frozen=True, eq=False)
class _HeadAndGenes:
    tree: LabelTree
    features: GeneFeatures
    by_genes: LinearTree
    weight: float

    def tables(self, cells: SeenCells) -> Tables:
        return multiply_experts(self.tree, *self.experts(cells), self.weight)

    def experts(self, cells: SeenCells) -> tuple[list[Float32], list[Float32]]:
        assert cells.counts is not None
        assert cells.head is not None
        genes = self.by_genes.log_conditionals(self.features(cells.counts))
        return genes, [np.maximum(logs, -30).astype(np.float32) for logs in log_conditionals(self.tree, cells.head)]


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
        raise ValueError("folds: no fold leaves labelled cells to learn from and cells to judge.")
    joined = np.concatenate(rows)
    order = np.argsort(joined, kind="stable")
    return HeldOut(joined[order], [np.concatenate(level)[order] for level in zip(*tables, strict=True)])


def cross_fit_weighing(
    method: ProbeMethod | FinetuneMethod,
    cells: SeenCells,
    codes: Int64,
    tree: LabelTree,
    folds: Sequence[Int64],
    learn_from: npt.NDArray[np.bool_] | None = None,
    judge: npt.NDArray[np.bool_] | None = None,
) -> tuple[ProbeMethod | FinetuneMethod, HeldOut]:
    """Cross-fit a method of two experts, and choose the second one's weight on the held-out cells.

    Parameters are those of `cross_fit`. One number is chosen, so that the held-out probabilities, which are made with
    it, flatter but little.
    """
    held_out = cross_fit(_Opinions(method.weighing(1.0)), cells, codes, tree, folds, learn_from, judge)
    n_levels = len(tree.levels)
    first, second = held_out.tables[:n_levels], held_out.tables[n_levels:]
    weight = method.settings.weight
    if weight is None:
        weight = choose_weight(tree, first, second, codes[held_out.rows])
    return method.weighing(weight), HeldOut(held_out.rows, multiply_experts(tree, first, second, weight))


@dataclass(frozen=True)
class _Opinions:
    """Gives the two experts' opinions one behind the other, in place of their product."""

    method: ProbeMethod | FinetuneMethod
    name: str = "opinions"
    uses_counts: bool = True
    uses_head: bool = True

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> Labeller:
        return _Opinionated(self.method.fit(cells, codes, tree))


@dataclass(frozen=True, eq=False)
class _Opinionated:
    labeller: ExpertLabeller

    def tables(self, cells: SeenCells) -> Tables:
        first, second = self.labeller.experts(cells)
        return [*first, *second]
