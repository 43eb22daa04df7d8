"""What a report shows of cells that a model never saw: scores beside baselines, confusion, a picture.

The baselines are computed in the same run, from the same cells: logistic regression on log-CPM, and PCA-kNN.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix, vstack
from sklearn.decomposition import PCA

from lexicell.annotation.calibration import reliability
from lexicell.annotation.coverage_curve import coverage_curve
from lexicell.annotation.folds import reference_folds
from lexicell.annotation.methods import KnnMethod, ProbeMethod, SeenCells, cross_fit_choosing
from lexicell.annotation.scores import accuracy, confusion, coverage, macro_f1
from lexicell.annotation.tree import Calls, call_labels, consistent
from lexicell.data.cells import CellCollection
from lexicell.data.query import Query, store_queries
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.evaluation.baselines import logistic_regression, pca_knn
from lexicell.inference.cell_model import CellModel
from lexicell.labels import LabelTree, clean_labels
from lexicell.model.checkpoint import WEIGHTS
from lexicell.randomness import generator
from lexicell.training.datamodule import CellDataModule
from lexicell.training.extension import run_cells
from lexicell.training.recipe import load_recipe
from lexicell.training.run_folder import RECIPE, RUN, read_json, write_json

FOLDER = "report"
MADE_OF = "made_of.json"
SCORES, CONFUSION, EMBEDDING, CELLS = "annotation_scores", "confusion", "embedding", "held_out"
RELIABILITY, CURVE = "annotation_reliability", "annotation_coverage"
MAX_REFERENCE = 5_000  # training cells to learn labels from: enough for a fair comparison, and minutes on a laptop
_FEWEST_FOR_UMAP = 100

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Cells:
    """Some cells and what is known of them."""

    parts: tuple[Query, ...]
    """The cells, one part after the other; each part was measured over one set of genes."""
    obs: pd.DataFrame
    """(n_cells, ...) their labels as text, in the same order; missing is NaN."""

    @classmethod
    def of(cls, query: Query, levels: Sequence[str]) -> Self:
        """Return a query's cells with their labels."""
        obs = pd.DataFrame({level: clean_labels(query.obs[level]) for level in levels}, index=query.obs.index)
        return cls((query,), obs)


@dataclass(frozen=True, eq=False)
class HeldOutTables:
    """Tidy tables on held-out cells."""

    embedding: pd.DataFrame
    """x, y, label, split, method: a picture of reference and held-out cells."""
    scores: pd.DataFrame | None = None
    """method, level, accuracy, macro_f1, coverage; None without labels."""
    confusion: pd.DataFrame | None = None
    """method, level, truth, predicted, n; None without labels."""
    cells: pd.DataFrame | None = None
    """what, value: which cells these are, in words."""
    reliability: pd.DataFrame | None = None
    """method, level, low, high, n_cells, confidence, accuracy: bins of lexicell's own probabilities, not calibrated."""
    curve: pd.DataFrame | None = None
    """method, level, threshold, coverage, error: what is left of error when the least sure calls are."""

    def write(self, run: Path) -> None:
        """Put the tables where `report` finds them."""
        folder = run / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        # The picture comes last: where it lies, the others do.
        named = {SCORES: self.scores, CONFUSION: self.confusion, CELLS: self.cells, RELIABILITY: self.reliability}
        named |= {CURVE: self.curve, EMBEDDING: self.embedding}
        for name, table in named.items():
            if table is not None:
                part = folder / f".{name}.csv.part"
                table.to_csv(part, index=False)
                part.replace(folder / f"{name}.csv")
        if (run / WEIGHTS).is_file():
            write_json(folder / MADE_OF, {"model_sha256": _checksum(run)})

    def by_method(self, level: str) -> dict[str, dict[str, float]]:
        """Return accuracy and macro-F1 of each method on a level."""
        if self.scores is None:
            return {}
        rows = self.scores[self.scores["level"] == level].set_index("method")[["accuracy", "macro_f1"]]
        return {str(method): {str(k): float(v) for k, v in row.items()} for method, row in rows.iterrows()}


def compare(
    model: CellModel, reference: Cells, query: Cells, tree: LabelTree, *, progress: bool = False
) -> HeldOutTables:
    """Annotate held-out cells with the model and with the baselines.

    The baselines see the genes that all of these cells were measured over; where that is one set of genes, also
    those that the model does not know.

    Parameters
    ----------
    model
        A trained model.
    reference
        Labelled cells that may be learned from.
    query
        Held-out cells with the truth.
    tree
        The labels to compare on; a held-out cell may bear others.
    progress
        Show progress bars.

    Raises
    ------
    InputError
        When no gene was measured in all cells, or the model knows none of them.
    """
    counts = _shared_counts(reference, query)
    codes = tree.encode(reference.obs)
    known = _embed(model, reference, progress=progress)
    outputs = [model.run(part, progress=progress) for part in query.parts]
    asked = np.concatenate([out.embedding for out in outputs])
    seen, asked_cells = (SeenCells(*own, parts=model.cell_parts) for own in zip((known, asked), counts, strict=True))
    voting = KnnMethod().fit(seen, codes, tree)
    pooled, _ = cross_fit_choosing(ProbeMethod(), seen, codes, tree, reference_folds(None, codes)[0])
    probe = pooled.fit(seen, codes, tree)
    own_calls = [
        ("probe", tree, call_labels(tree, probe.tables(asked_cells))),
        ("knn", tree, call_labels(tree, voting.tables(asked_cells))),
    ]
    own = model.label_tree
    if own is not None and set(tree.levels) <= set(own.levels) and outputs[0].probabilities:
        tables = [np.concatenate(level) for level in zip(*(out.probabilities for out in outputs), strict=True)]
        own_calls.append(("label_head", own, call_labels(own, consistent(own, tables))))
    calls = [(method, labels.decode(called.codes)) for method, labels, called in own_calls]
    bins, curve = _confidence(own_calls, query.obs, tree.levels)
    calls += list(_baselines(*counts, tree.decode(codes)))
    scores, confusions = [], []
    for method, labels in calls:
        for level in tree.levels:
            pair = query.obs[level], labels[level]
            scores.append((method, level, accuracy(*pair), macro_f1(*pair), coverage(*pair)))
            confusions.append(confusion(*pair).assign(method=method, level=level))
    columns = ["method", "level", "accuracy", "macro_f1", "coverage"]
    finest = tree.levels[-1]
    return HeldOutTables(
        picture(known, asked, reference.obs[finest], query.obs[finest]),
        pd.DataFrame(scores, columns=columns),
        pd.concat(confusions, ignore_index=True)[["method", "level", "truth", "predicted", "n"]],
        reliability=bins,
        curve=curve,
    )


def _confidence(
    own_calls: Sequence[tuple[str, LabelTree, Calls]], truth: pd.DataFrame, levels: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how probabilities compare with accuracy, and error against coverage, by method and level."""
    bins, curves = [], []
    for method, tree, called in own_calls:
        labels = tree.decode(called.codes)
        for level in levels:
            known = truth[level].notna().to_numpy()
            right = (labels[level].astype(object).to_numpy() == truth[level].astype(object).to_numpy())[known]
            probs = called.probs[known, tree.levels.index(level)]
            bins.append(reliability(probs, right).assign(method=method, level=level))
            curves.append(coverage_curve(probs, right).assign(method=method, level=level))
    return pd.concat(bins, ignore_index=True), pd.concat(curves, ignore_index=True)


def outdated(run: Path) -> bool:
    """Return whether tables on held-out cells were made of another model than the run has now: it was trained on."""
    made_of = run / FOLDER / MADE_OF
    if not made_of.is_file() or not (run / WEIGHTS).is_file():
        return False
    return bool(read_json(made_of)["model_sha256"] != _checksum(run))


def _checksum(run: Path) -> str:
    with (run / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _embed(model: CellModel, cells: Cells, *, progress: bool) -> Float32:
    return np.concatenate([model.embed(part, progress=progress) for part in cells.parts])


def _shared_counts(reference: Cells, query: Cells) -> tuple[csr_matrix, csr_matrix]:
    """Return the counts of both over the genes that all of their cells were measured over."""
    parts = [*reference.parts, *query.parts]
    if all(np.array_equal(part.gene_index, parts[0].gene_index) for part in parts):
        counts = [part.counts for part in parts]
    else:
        shared: Int64 = reduce(np.intersect1d, (part.gene_index[part.gene_index >= 0] for part in parts))
        if not len(shared):
            raise InputError("no gene was measured in all of these cells, so there is nothing to compare on.")
        counts = []
        for part in parts:
            order = np.argsort(part.gene_index)
            counts.append(part.counts[:, order[np.searchsorted(part.gene_index, shared, sorter=order)]])
    n_reference = len(reference.parts)
    return vstack(counts[:n_reference], format="csr"), vstack(counts[n_reference:], format="csr")


def _baselines(reference: csr_matrix, query: csr_matrix, labels: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Predict each level on its own."""
    for name, method in (("logistic_regression", logistic_regression), ("pca_knn", pca_knn)):
        yield name, pd.DataFrame({str(level): method(reference, labels[level], query).labels for level in labels})


def picture(reference: Float32, query: Float32, known: pd.Series, truth: pd.Series) -> pd.DataFrame:
    """Return coordinates of reference and held-out cells in the plane: UMAP where it is installed, else PCA."""
    both = np.concatenate([reference, query])
    method, points = plane(both)
    labels = np.concatenate([np.asarray(known, dtype=object), np.asarray(truth, dtype=object)])
    split = np.repeat(["reference", "held out"], [len(reference), len(query)])
    return pd.DataFrame({"x": points[:, 0], "y": points[:, 1], "label": labels, "split": split, "method": method})


def plane(embedding: Float32) -> tuple[str, Float32]:
    """Return how an embedding was laid into the plane, UMAP where it is installed, else PCA, and the points (n, 2)."""
    if len(embedding) >= _FEWEST_FOR_UMAP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else could be installed beside umap-learn
            try:
                from umap import UMAP
            except ImportError:
                pass
            else:
                # One thread: UMAP with a seed has no use for more, and says so in a warning.
                return "UMAP", UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(embedding)
    return "PCA", PCA(2, random_state=0).fit_transform(embedding)


def compare_run(run: Path, *, progress: bool = False) -> HeldOutTables:
    """Compare on the cells that a run held out, split as in training: same recipe, same stores, same seed.

    Taken are the held-out cells of the species that has most of them (labelled ones, where there are labels), and at
    most 5,000 training cells of that species as the reference. Without labels there is but a picture, coloured by
    tissue or source.

    Parameters
    ----------
    run
        Run folder.
    progress
        Show progress bars.

    Raises
    ------
    InputError
        When the run has no model yet, or a store is gone or another one.
    """
    model = CellModel.load(run)
    data = split_of(run)
    chosen = _choose(data)
    asked, learned = (read_cells(data.collection, cells, chosen.tree) for cells in (chosen.held_out, chosen.reference))
    if chosen.tree is not None:
        tables = compare(model, learned, asked, chosen.tree, progress=progress)
    else:
        known, new = (_embed(model, cells, progress=progress) for cells in (learned, asked))
        tables = HeldOutTables(picture(known, new, learned.obs["kind"], asked.obs["kind"]))
    return replace(tables, cells=pd.DataFrame(chosen.said, columns=["what", "value"]))


@dataclass(frozen=True, eq=False)
class _Choice:
    """Which cells of a run are compared, and on which labels."""

    reference: Int64
    held_out: Int64
    tree: LabelTree | None
    said: list[tuple[str, str]]


def _choose(data: CellDataModule) -> _Choice:
    """Choose the species with most held-out cells, labelled ones if there are any, and some of its training cells."""
    cells, tree = data.collection, data.label_tree
    usable = cells.labels[:, 0] >= 0 if tree is not None else np.zeros(cells.n_cells, bool)
    if not usable[data.validation_cells].any():
        usable, tree = np.ones(cells.n_cells, bool), None
    species = np.array([data.lexicon.table["species"].iloc[panel[0]] for panel in cells.panels])[cells.panel]
    names, n_held_out = np.unique(species[data.validation_cells[usable[data.validation_cells]]], return_counts=True)
    most = str(names[n_held_out.argmax()])
    usable &= species == most
    held_out, known = (part[usable[part]] for part in (data.validation_cells, data.training_cells))
    if not len(known):
        raise InputError(f"no training cell of {most} {'bears a label' if tree else 'is left'} to compare with.")
    drawn = generator(data.seed, "report reference").permutation(len(known))[:MAX_REFERENCE]
    said = [
        ("species", most),
        ("held-out cells", f"{len(held_out):,} (held out: {data.held_out})"),
        ("reference", f"{len(drawn):,} of {len(known):,} training cells, drawn at random"),
    ]
    return _Choice(np.sort(known[drawn]), held_out, tree, said)


def split_of(run: Path) -> CellDataModule:
    """Open a run's stores and split their cells as the run did."""
    recipe = load_recipe(run / RECIPE)
    stores = []
    for entry in read_json(run / RUN)["stores"]:
        store = Store.open(entry["path"])
        if store.fingerprint != entry["fingerprint"]:
            raise InputError(
                f"{store.path}: this is not the store that the run was trained on (its fingerprint is "
                f"{store.fingerprint[:12]}, the run's {entry['fingerprint'][:12]})."
            )
        stores.append(store)
    return run_cells(run, recipe, stores)


def read_cells(collection: CellCollection, cells: Int64, tree: LabelTree | None) -> Cells:
    """Read cells (ascending) with their labels; without a tree, with their tissue, or else source, as ``kind``."""
    parts: list[Query] = []
    start = 0
    for store in collection.stores:
        own = cells[(cells >= start) & (cells < start + store.n_cells)] - start
        if len(own):
            parts += store_queries(store, own, collection.lexicon)
        start += store.n_cells
    if tree is not None:
        return Cells(tuple(parts), tree.decode(collection.labels[cells].astype(np.int64)))
    tissue = collection.column("tissue")
    kind = tissue if len(set(tissue) - {None}) > 1 else collection.column("source")
    return Cells(tuple(parts), pd.DataFrame({"kind": kind[cells]}))
