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
from lexicell.annotation.linear import Float32, Int64
from lexicell.annotation.opinions import OpinionPool
from lexicell.annotation.probe import CountExperts, Probe, ProbeSettings
from lexicell.annotation.tree import Tables, consistent
from lexicell.annotation.whitening import WhitenedParts
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
    parts
        Widths of the parts that the embedding is made of; () for one whole.
    """

    embedding: Float32
    counts: sparse.csr_matrix | None = None
    head: Tables | None = None
    parts: tuple[int, ...] = ()

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
            self.parts,
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
            parts[0].parts,
        )


class Labeller(Protocol):
    """A method that has learned."""

    def tables(self, cells: SeenCells) -> Tables:
        """Return consistent probabilities, one table (n_cells, n_labels) a level."""
        ...


class ExpertLabeller(Labeller, Protocol):
    """A labeller that averages the opinions of experts."""

    def experts(self, cells: SeenCells) -> list[list[Float32]]:
        """Return each expert's log P(label | parent), per level (n_cells, n_labels)."""
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
    """The nearest labelled cells vote, in the reference's whitened embedding."""

    settings: KnnSettings = field(default_factory=KnnSettings)
    name: str = "knn"
    uses_counts: bool = False
    uses_head: bool = False

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> Labeller:
        """Keep the labelled cells."""
        space = WhitenedParts.fit(cells.embedding, cells.parts)
        return _Voting(space, Voters(space(cells.embedding), codes, tree, self.settings))


@dataclass(frozen=True, eq=False)
class _Voting:
    space: WhitenedParts
    voters: Voters

    def tables(self, cells: SeenCells) -> Tables:
        return self.voters.tables(self.space(cells.embedding))


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
    """A linear tree on the genes, likelihood, likeness, and the embedding; see `lexicell.annotation.probe`.

    `pool` averages their opinions; `cross_fit_choosing` fits it on held-out cells.
    """

    settings: ProbeSettings = field(default_factory=ProbeSettings)
    pool: OpinionPool | None = None
    name: str = "probe"
    uses_counts: bool = True
    uses_head: bool = False

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> ExpertLabeller:
        """Fit all of them."""
        assert cells.counts is not None
        return _Probing(Probe.fit(cells.embedding, cells.counts, codes, tree, self.settings, self.pool))


@dataclass(frozen=True, eq=False)
class _Probing:
    probe: Probe

    def tables(self, cells: SeenCells) -> Tables:
        assert cells.counts is not None
        return self.probe.tables(cells.embedding, cells.counts)

    def experts(self, cells: SeenCells) -> list[list[Float32]]:
        assert cells.counts is not None
        return self.probe.experts(cells.embedding, cells.counts)


@dataclass(frozen=True)
class FinetuneMethod:
    """The head of a model that was trained on, in the place of the embedding in the probe."""

    settings: ProbeSettings = field(default_factory=ProbeSettings)
    pool: OpinionPool | None = None
    name: str = "finetune"
    uses_counts: bool = True
    uses_head: bool = True

    def fit(self, cells: SeenCells, codes: Int64, tree: LabelTree) -> ExpertLabeller:
        """Fit what reads counts; the head has learned already."""
        assert cells.counts is not None
        by_counts = CountExperts.fit(cells.counts, codes, tree, self.settings)
        return _HeadAndCounts(tree, by_counts, self.pool or self.settings.pool(tree))


@dataclass(frozen=True, eq=False)
class _HeadAndCounts:
    tree: LabelTree
    by_counts: CountExperts
    pool: OpinionPool

    def tables(self, cells: SeenCells) -> Tables:
        return self.pool.tables(self.tree, self.experts(cells))

    def experts(self, cells: SeenCells) -> list[list[Float32]]:
        assert cells.counts is not None
        assert cells.head is not None
        head = [np.maximum(logs, -30).astype(np.float32) for logs in log_conditionals(self.tree, cells.head)]
        return [*self.by_counts.opinions(cells.counts), head]


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
        (n_cells,) cells that may be learned from, and that are labelled; all by default. A fold that leaves
        fewer than two labelled cells is left out.
    """
    learnable = (np.ones(len(codes), bool) if learn_from is None else learn_from) & (codes[:, 0] >= 0)
    judged = np.ones(len(codes), bool) if judge is None else judge
    rows, tables = [], []
    for fold in folds:
        left = learnable.copy()
        left[fold] = False
        asked = fold[judged[fold]]
        if left.sum() < 2 or not len(asked):
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


def cross_fit_choosing(
    method: Method,
    cells: SeenCells,
    codes: Int64,
    tree: LabelTree,
    folds: Sequence[Int64],
    learn_from: npt.NDArray[np.bool_] | None = None,
    judge: npt.NDArray[np.bool_] | None = None,
) -> tuple[Method, HeldOut]:
    """Cross-fit a method; of one with several experts, also fit on the held-out cells how their opinions are averaged.

    Parameters are those of `cross_fit`. A share and a few temperatures are fitted, so that the held-out probabilities,
    which are made with them, flatter but little.
    """
    if not isinstance(method, ProbeMethod | FinetuneMethod):
        return method, cross_fit(method, cells, codes, tree, folds, learn_from, judge)
    held_out = cross_fit(_Opinions(method), cells, codes, tree, folds, learn_from, judge)
    n_levels = len(tree.levels)
    experts = [held_out.tables[start : start + n_levels] for start in range(0, len(held_out.tables), n_levels)]
    shares, own = method.settings.shares, method.settings.embedding_share
    pool = OpinionPool.fit(tree, experts, codes[held_out.rows], shares, own)
    return replace(method, pool=pool), HeldOut(held_out.rows, pool.tables(tree, experts))


@dataclass(frozen=True)
class _Opinions:
    """Gives the experts' opinions one behind the other, in place of their average."""

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
        return [table for expert in self.labeller.experts(cells) for table in expert]
