"""From a labelled reference to a fitted labeller that knows its errors, and its use on cells in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from rich.progress import track
from scipy import sparse

from lexicell.annotation.depth import DepthMatch, depths_of, folds_of_copies
from lexicell.annotation.folds import MOST_FOLDS, reference_folds
from lexicell.annotation.held_out import HeldOutReport, final_calls, held_out_doubts, judge
from lexicell.annotation.methods import (
    Labeller,
    Method,
    SeenCells,
    cross_fit_choosing,
)
from lexicell.annotation.panels import FEWEST_GENES, Overlap, PanelLoss, compare_panels
from lexicell.annotation.probe import balanced_subset
from lexicell.annotation.tree import Calls
from lexicell.annotation.unknown import Novelty, doubt
from lexicell.data.query import Query, QueryCells
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.inference.cell_model import CellModel
from lexicell.labels import LabelTree
from lexicell.randomness import generator
from lexicell.training.finetune import FinetuneConfig, Finetuned, finetune
from lexicell.workflows.label_reference import LabelledReference

CELLS_AT_ONCE = 1024  # cells that are read, embedded and labelled together
LEARN_FROM = 50_000  # cells that a fit learns from, common labels cut first
JUDGED = 20_000  # held-out cells that calibration looks at
_DEPTHS = 10_000  # cells whose depths are compared
_DEPTH_PART = 256
_PANEL_CELLS = 3_000
_HELD_OUT_SHARE = (0.1, 0.4)  # of the cells: whole donors that are held out of fine-tuning
_PANEL_SHARE = 0.9  # with fewer of the reference's genes shared, the loss is measured before the run
Int64 = npt.NDArray[np.int64]
T = TypeVar("T")


class AnnotatingModel(Protocol):
    """What annotation needs of a model; `CellModel` has it."""

    @property
    def lexicon(self) -> Lexicon:
        """The genes it knows."""

    @property
    def label_tree(self) -> LabelTree | None:
        """Labels of its label head, if it has one."""

    def embed(self, query: Query, *, samples: int | None = None, progress: bool = False) -> npt.NDArray[np.float32]:
        """Return cell embeddings (n_cells, width)."""

    def predict_labels(
        self, query: Query, *, samples: int | None = None, progress: bool = False
    ) -> list[npt.NDArray[np.float32]]:
        """Return the label head's probabilities, one array (n_cells, n_labels) a level."""


@dataclass(frozen=True, eq=False)
class Labelling:
    """A fitted method, with what is known of its errors.

    Attributes
    ----------
    tree
        The label tree.
    method, labeller
        The method, and what it learned.
    genes
        The lexicon's genes that cells are read over; None for all of theirs.
    samples
        Gene samples a cell at most.
    report
        How it did on held-out reference cells; None without a reference.
    novelty
        What is usual for the reference; None without a reference.
    fewest_counts
        Total counts of the shallowest held-out cell: below it no bound holds.
    """

    tree: LabelTree
    method: Method
    labeller: Labeller
    genes: Int64 | None
    samples: int | None
    report: HeldOutReport | None = None
    novelty: Novelty | None = None
    fewest_counts: int = 0

    def __call__(
        self, model: AnnotatingModel, cells: QueryCells, *, progress: bool = False
    ) -> tuple[Calls, npt.NDArray[np.float32] | None]:
        """Label cells part by part; return calls and unknown scores.

        Nothing is known of a cell without a single count. Where errors are bounded, a cell that is shallower than all
        that the bound was measured on gets no label.
        """
        calls, unknown = [], []
        for part in _parts(cells.parts(CELLS_AT_ONCE), cells.n_cells, "labelling the query", progress=progress):
            here = part if self.genes is None else part.over(self.genes)
            seen = see(model, here, self.method, self.samples, embed=self.novelty is not None)
            called = final_calls(self.tree, self.labeller.tables(seen), self.report)
            depth = depths_of(here.counts)
            called = called.unknown_of(depth == 0)
            if self.report is not None and self.report.rules is not None:
                called = called.withheld(depth < self.fewest_counts)
            calls.append(called)
            if self.novelty is not None:
                unknown.append(self.novelty.score(seen.embedding, doubt(called)))
        return Calls.join(calls), np.concatenate(unknown) if unknown else None


@dataclass(frozen=True, eq=False)
class Ground:
    """What reference and query are both read over, so that counts mean the same in both.

    Attributes
    ----------
    genes
        The lexicon's genes, ascending.
    depth
        How the reference is thinned; None for not at all.
    """

    genes: Int64
    depth: DepthMatch | None = None

    def copies(self, n_cells: int) -> int:
        """Return how often as many cells of the reference are read."""
        return 1 if self.depth is None else self.depth.copies(n_cells)

    def read(self, reference: LabelledReference, rows: Int64, seed: int, copies: int = 1) -> Iterator[Query]:
        """Yield cells of the reference (ascending rows) in parts; with copies all of them, and then again."""
        for copy in range(copies):
            rng = generator(seed, "thinned reference", copy)
            for part in _some(reference, rows):
                here = part.over(self.genes)
                yield here if self.depth is None else replace(here, counts=self.depth.thin(here.counts, rng))


@dataclass(frozen=True, eq=False)
class Apart:
    """Cells of a reference (n_cells,) that a model was not trained on, and whether they are whole donors."""

    cells: npt.NDArray[np.bool_]
    by_donor: bool


def see(model: AnnotatingModel, part: Query, method: Method, samples: int | None, *, embed: bool = True) -> SeenCells:
    """Return what a method may look at of some cells."""
    counts = part.counts if method.uses_counts else None
    if isinstance(model, CellModel):  # one pass gives both
        out = model.run(part, samples=samples)
        return SeenCells(out.embedding, counts, list(out.probabilities) if method.uses_head else None, model.cell_parts)
    nothing = np.empty((part.n_cells, 0), dtype=np.float32)
    needed = embed or not method.uses_head
    return SeenCells(
        model.embed(part, samples=samples, progress=False) if needed else nothing,
        counts,
        model.predict_labels(part, samples=samples, progress=False) if method.uses_head else None,
    )


def across_species(lexicon: Lexicon, reference: LabelledReference, query: QueryCells) -> bool:
    """Return whether the query is of a species that the reference holds no cells of."""
    owners = lexicon.table["species"].to_numpy()[reference.genes]
    return query.species not in set(owners)


def check_across(method: Method, max_error: float | None, species: str) -> None:
    """Refuse what cannot be done where the reference is of another species than the query."""
    if method.uses_counts:
        raise InputError(
            f"method {method.name} looks at the genes that reference and query share, but the reference holds no cells "
            f"of {species}: across species use method knn, which looks at the embedding alone, or head."
        )
    if max_error is not None:
        raise InputError(
            "max_error: the bound holds for new donors of the reference's own species; it says nothing of another "
            "species. Leave it out, and look at the probabilities and unknown scores."
        )


def overlap_of(reference: LabelledReference, query: QueryCells) -> tuple[Overlap, Int64]:
    """Return how many genes are shared, and which.

    Raises
    ------
    InputError
        When so few are shared that nothing can be promised.
    """
    shared = np.intersect1d(reference.genes, query.genes)
    overlap = Overlap(len(shared), reference.n_measured, len(query.gene_index))
    if len(shared) < FEWEST_GENES:
        raise InputError(
            f"{overlap.said()} (genes that the model knows and both measured). With fewer than {FEWEST_GENES} nothing "
            "can be promised of any label: give a reference that measured the query's genes."
        )
    return overlap, shared


def common_ground(reference: LabelledReference, query: QueryCells, shared: Int64, seed: int = 0) -> Ground:
    """Return the shared genes, and how a reference that is deeper over them is thinned to the query's depth."""
    n_parts = -(-query.n_cells // _DEPTH_PART)
    every = max(1, n_parts * _DEPTH_PART // _DEPTHS)
    asked = [depths_of(part.over(shared).counts) for part in query.parts(_DEPTH_PART, every)]
    rows = np.sort(generator(seed, "depths").permutation(reference.n_cells)[:_DEPTHS])
    known = [depths_of(part.over(shared).counts) for part in _some(reference, rows)]
    return Ground(shared, DepthMatch.fit(np.concatenate(known), np.concatenate(asked)))


def panel_loss(reference: LabelledReference, shared: Int64, seed: int = 0) -> PanelLoss | None:
    """Measure what the shared genes can tell, beside all of the reference's; None where nearly all are shared.

    By linear trees on gene counts of at most 3,000 reference cells, held out in turn; no model takes part, so that it
    takes seconds.

    Raises
    ------
    InputError
        When the shared genes do not tell even the coarsest labels apart better than guessing.
    """
    if len(shared) >= _PANEL_SHARE * len(reference.genes):
        return None
    rows = balanced_subset(reference.codes, _PANEL_CELLS, generator(seed, "panel"))
    parts = [part.over(reference.genes).counts for part in _some(reference, rows)]
    donors = None if reference.donors is None else reference.donors[rows]
    columns = np.searchsorted(reference.genes, shared)
    loss = compare_panels(parts, reference.codes[rows], donors, reference.tree, columns)
    if not loss.better_than_guessing:
        raise InputError(
            f"with the {len(shared):,} genes that reference and query share, held-out reference cells get their "
            f"'{reference.tree.levels[0]}' right no better than by guessing (mean recall {loss.recall:.2f}), so "
            "nothing can be promised of the query: give a reference that measured the query's genes."
        )
    return loss


def learn(
    model: AnnotatingModel,
    reference: LabelledReference,
    ground: Ground,
    method: Method,
    *,
    apart: Apart | None = None,
    max_error: float | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Labelling:
    """Fit a method on a reference, and find out on held-out cells of it how far it can be trusted.

    Parameters
    ----------
    model
        Embeds the cells.
    reference
        Labelled cells.
    ground
        What they are read over.
    method
        How labels are given.
    apart
        Cells that the model itself was not trained on: they alone are judged. Default: all of them, held out in turn.
    max_error
        Share of wrong calls that is allowed; None for no abstention.
    samples
        Gene samples a cell at most.
    seed
        Draws which cells are looked at where there are more than needed.
    progress
        Show a progress bar.
    """
    codes, rng = reference.codes, generator(seed, "reference cells")
    everything = np.arange(reference.n_cells)
    most = rng.permutation(everything if apart is None else np.flatnonzero(apart.cells))[:JUDGED]
    learned = balanced_subset(codes, LEARN_FROM, rng) if method.uses_counts else everything
    rows = np.union1d(learned, most)
    seen, depths = [], []
    n, copies = len(rows), ground.copies(len(rows))
    shown = ground.read(reference, rows, seed, copies)
    for part in _parts(shown, copies * reference.n_cells, "reading the reference", progress=progress):
        seen.append(see(model, part, method, samples))
        depths.append(depths_of(part.counts))
    cells, depth = SeenCells.join(seen), np.concatenate(depths)
    codes, learn_from, judged = codes[rows], np.isin(rows, learned), np.isin(rows, most)
    judged = np.concatenate([judged, np.zeros(n * (copies - 1), bool)])
    donors = None if reference.donors is None else reference.donors[rows]
    if apart is None:
        folds, by_donor = reference_folds(donors, codes, seed)
    else:
        folds, by_donor = [np.flatnonzero(apart.cells[rows])], apart.by_donor
    # Copies are learned from like the first ones, are held out with them, and are not judged.
    folds, codes = folds_of_copies(folds, n, copies), np.tile(codes, (copies, 1))
    learn_from, donors = np.tile(learn_from, copies), None if donors is None else np.tile(donors, copies)
    method, held_out = cross_fit_choosing(method, cells, codes, reference.tree, folds, learn_from, judged)
    report = judge(reference.tree, held_out, codes, donors, by_donor=by_donor, max_error=max_error)
    known = np.flatnonzero(learn_from)
    labeller = method.fit(cells.take(known), codes[known], reference.tree)
    doubts = held_out_doubts(reference.tree, held_out, report, cells.n_cells)
    novelty = Novelty.fit(cells.embedding, folds, doubts, seed)
    fewest = int(depth[held_out.rows].min())
    return Labelling(reference.tree, method, labeller, ground.genes, samples, report, novelty, fewest)


def finetuned(
    model: AnnotatingModel,
    reference: LabelledReference,
    ground: Ground,
    config: FinetuneConfig | None = None,
    *,
    seed: int = 0,
    said: Callable[[str], None] | None = None,
) -> tuple[Finetuned, Apart]:
    """Fine-tune a model on a reference; return it, and the reference's cells that it did not learn from.

    These are whole donors, a fifth of the cells as nearly as can be; where donors are so few or so unequal that it
    would be less than a tenth or more than two fifths, a fifth of the cells at random.

    Raises
    ------
    InputError
        When the model is no `CellModel`, or the reference too small.
    """
    if not isinstance(model, CellModel):
        raise InputError(f"method finetune trains a lexicell model; it cannot train a {type(model).__name__}.")
    folds, by_donor = reference_folds(reference.donors, reference.codes, seed)
    few, many = (share * reference.n_cells for share in _HELD_OUT_SHARE)
    if by_donor and not (folds := [fold for fold in folds if few <= len(fold) <= many]):
        folds, by_donor = reference_folds(None, reference.codes, seed)
    held_out = np.zeros(reference.n_cells, dtype=bool)
    held_out[min(folds, key=lambda fold: abs(len(fold) - reference.n_cells / MOST_FOLDS))] = True
    rows = balanced_subset(reference.codes, LEARN_FROM, generator(seed, "finetune cells"))
    counts = sparse.vstack([part.counts for part in ground.read(reference, rows, seed)], format="csr")
    codes = reference.codes[rows]
    tuned = finetune(model, counts, ground.genes, codes, reference.tree, held_out[rows], config, seed=seed, said=said)
    return tuned, Apart(held_out, by_donor)


def _some(reference: LabelledReference, rows: Int64) -> Iterable[Query]:
    """Yield the reference's cells `rows` (ascending) in parts."""
    at = 0
    for part in reference.parts(CELLS_AT_ONCE):
        here = rows[(rows >= at) & (rows < at + part.n_cells)] - at
        at += part.n_cells
        if len(here):
            yield part if len(here) == part.n_cells else part.take(here)


def _parts(parts: Iterable[T], n_cells: int, words: str, *, progress: bool) -> Iterable[T]:
    total = -(-n_cells // CELLS_AT_ONCE)
    return track(parts, description=words, total=total, disable=not progress, transient=True)
