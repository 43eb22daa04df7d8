"""Competitors of the annotation benchmark: other tools, embeddings made elsewhere, and lexicell's own methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lexicell.annotation.depth import folds_of_copies
from lexicell.annotation.folds import reference_folds
from lexicell.annotation.held_out import HeldOutReport, final_calls, held_out_doubts, judge
from lexicell.annotation.linear import fit_linear_tree
from lexicell.annotation.methods import HeldOut, KnnMethod, Labeller, ProbeMethod, SeenCells, cross_fit_choosing
from lexicell.annotation.tree import Calls, call_labels
from lexicell.annotation.unknown import Novelty, doubt
from lexicell.errors import InputError, listing
from lexicell.evaluation.baselines import Prediction, logistic_regression, pca_knn
from lexicell.evaluation.centroid_mapping import MappingSettings, map_to_centroids
from lexicell.evaluation.linear_svm import linear_svm
from lexicell.evaluation.other_tools import celltypist, scanvi
from lexicell.evaluation.runner import Answer, Competitor, Problem
from lexicell.labels import LabelTree
from lexicell.workflows.benchmark_embeddings import EmbeddedSides, as_deep

Float32 = npt.NDArray[np.float32]

EXTRAS = ("celltypist", "scanvi")  # need packages beside lexicell's own


def _predicting(predict: Callable[[Problem, int], Prediction], *, seeded: bool = True) -> Competitor:
    def answer(problem: Problem, seed: int) -> Answer:
        began = time.perf_counter()
        found = predict(problem, seed)
        spent = time.perf_counter() - began
        return Answer(found.labels, found.probs.max(axis=1), (found.fit_seconds, spent - found.fit_seconds))

    return Competitor(answer, seeded)


def _centroid_mapping(problem: Problem, seed: int) -> Answer:
    began = time.perf_counter()
    found = map_to_centroids(problem.train_counts, problem.train_paths, problem.test_counts, seed)
    spent = time.perf_counter() - began
    return Answer(
        found.labels[problem.level].to_numpy(dtype=object),
        found.aggregate_probability[:, -1],
        (found.fit_seconds, spent - found.fit_seconds),
    )


TOOLS: Mapping[str, Competitor] = {
    "logistic_regression": _predicting(
        lambda p, _: logistic_regression(p.train_counts, p.train_labels, p.test_counts), seeded=False
    ),
    "pca_knn": _predicting(lambda p, _: pca_knn(p.train_counts, p.train_labels, p.test_counts), seeded=False),
    "linear_svm": _predicting(lambda p, seed: linear_svm(p.train_counts, p.train_labels, p.test_counts, seed)),
    "centroid_mapping": Competitor(_centroid_mapping, made_of=str(MappingSettings())),
    "celltypist": _predicting(lambda p, _: celltypist(p.train_counts, p.train_labels, p.test_counts), seeded=False),
    "scanvi": _predicting(lambda p, seed: scanvi(p.train_counts, p.train_labels, p.test_counts, p.train_groups, seed)),
}


def choose_tools(names: tuple[str, ...] | None) -> dict[str, Competitor]:
    """Return other tools by name; by default all that need nothing but lexicell's own dependencies.

    Raises
    ------
    InputError
        When there is no such competitor.
    """
    chosen = tuple(name for name in TOOLS if name not in EXTRAS) if names is None else names
    unknown = [name for name in chosen if name not in TOOLS]
    if unknown:
        raise InputError(f"competitors: no {listing(map(repr, unknown))}; there are {listing(TOOLS, 20)}.")
    return {name: TOOLS[name] for name in chosen}


def embedding_competitors(name: str, made_of: str = "", parts: tuple[int, ...] = ()) -> dict[str, Competitor]:
    """Return the methods that label by an embedding of the task: kNN, the same vote as everywhere, and a linear tree.

    Parameters
    ----------
    name
        The embedding's name among the task's.
    made_of
        What tells it from others of its name; see `Competitor`.
    parts
        Widths of the parts that it is made of, such as `CellModel.cell_parts`.
    """

    def linear(problem: Problem) -> Answer:
        began = time.perf_counter()
        tree, codes = _tree(problem)
        learned, asked = problem.train_embeddings[name], problem.test_embeddings[name]
        codes = np.tile(codes, (len(learned) // len(codes), 1))
        centre, spread = learned.mean(axis=0), np.maximum(learned.std(axis=0), 1e-6)
        model = fit_linear_tree((learned - centre) / spread, codes, tree)
        fitted = time.perf_counter()
        return _answer(problem, tree, call_labels(tree, model.tables((asked - centre) / spread)), began, fitted)

    voting = method_competitor(name, KnnMethod(), made_of, parts)
    return {f"{name}, knn": voting, f"{name}, linear": Competitor.without_seed(linear, made_of)}


def method_competitor(
    name: str | None, method: KnnMethod | ProbeMethod, made_of: str = "", parts: tuple[int, ...] = ()
) -> Competitor:
    """Return one of lexicell's methods on an embedding of the task, calibrated as `lexicell annotate` does it.

    Without a name there is no embedding, and the probe judges by counts alone.

    Parameters
    ----------
    name
        The embedding's name among the task's.
    method
        The method.
    made_of
        What tells the embedding from others of its name; see `Competitor`.
    parts
        Widths of the parts that it is made of.
    """

    def label(problem: Problem, seed: int) -> Answer:
        began = time.perf_counter()
        own = _fit(problem, name, method, parts, seed)
        fitted = time.perf_counter()
        return _answer(problem, own.tree, own.calls(), began, fitted)

    return Competitor(label, made_of=f"{made_of} {method} {parts}")


def novelty_competitor(
    name: str, method: KnnMethod | ProbeMethod, made_of: str = "", parts: tuple[int, ...] = ()
) -> Competitor:
    """Return the unknown score of one of lexicell's methods on an embedding of the task.

    It gives no labels, and 1 - score as confidence. Parameters are those of `method_competitor`.
    """

    def score(problem: Problem, seed: int) -> Answer:
        began = time.perf_counter()
        own = _fit(problem, name, method, parts, seed)
        doubts = held_out_doubts(own.tree, own.held_out, own.report, own.known.n_cells)
        novelty = Novelty.fit(own.known.embedding, own.folds, doubts, seed)
        fitted = time.perf_counter()
        known = 1 - novelty.score(own.asked.embedding, doubt(own.calls())).astype(np.float64)
        seconds = fitted - began, time.perf_counter() - fitted
        return Answer(np.full(len(known), None, dtype=object), known, seconds)

    return Competitor(score, made_of=f"{made_of} {method} {parts}")


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A method fitted on a problem, as `lexicell annotate` does it."""

    tree: LabelTree
    known: SeenCells
    asked: SeenCells
    folds: Sequence[npt.NDArray[np.int64]]
    held_out: HeldOut
    report: HeldOutReport
    labeller: Labeller

    def calls(self) -> Calls:
        """Label the test cells."""
        return final_calls(self.tree, self.labeller.tables(self.asked), self.report)


def _fit(
    problem: Problem, name: str | None, method: KnnMethod | ProbeMethod, parts: tuple[int, ...], seed: int
) -> _Fitted:
    tree, codes = _tree(problem)
    shown, n = as_deep(problem), len(codes)
    copies = len(shown.train) // n
    learned, met = (np.empty((len(rows), 0), dtype=np.float32) for rows in (shown.train, problem.test))
    if name is not None:
        learned, met = problem.train_embeddings[name], problem.test_embeddings[name]
    if len(learned) == n:  # an embedding made elsewhere was not thinned
        learned = np.tile(learned, (copies, 1))
    known = SeenCells(learned, shown.train_counts, parts=parts)
    asked = SeenCells(met, problem.test_counts, parts=parts)
    groups = problem.train_groups
    donors = None if groups is None else np.array([group or None for group in groups], dtype=object)
    folds, by_donor = reference_folds(donors, codes, seed)
    folds, codes, first = folds_of_copies(folds, n, copies), np.tile(codes, (copies, 1)), np.arange(n * copies) < n
    chosen, held_out = cross_fit_choosing(method, known, codes, tree, folds, judge=first)
    report = judge(tree, held_out, codes, donors, by_donor=by_donor)
    return _Fitted(tree, known, asked, folds, held_out, report, chosen.fit(known, codes, tree))


def with_embedding_time(answer: Answer, cells: EmbeddedSides) -> Answer:
    """Return an answer whose times also count the embedding of its cells, which was made beforehand."""
    if answer.seconds is None:
        return answer
    sides = len(cells.train), len(cells.test)
    fit, predict = (spent + n * cells.seconds_a_cell for spent, n in zip(answer.seconds, sides, strict=True))
    return replace(answer, seconds=(fit, predict))


def _answer(problem: Problem, tree: LabelTree, calls: Calls, began: float, fitted: float) -> Answer:
    place = tree.levels.index(problem.level)
    labels = tree.decode(calls.codes)[problem.level].to_numpy(dtype=object)
    return Answer(labels, calls.probs[:, place], (fitted - began, time.perf_counter() - fitted))


def _tree(problem: Problem) -> tuple[LabelTree, npt.NDArray[np.int64]]:
    tree = LabelTree.from_frame(problem.train_paths, tuple(map(str, problem.train_paths)), "training labels")
    return tree, tree.encode(problem.train_paths)
