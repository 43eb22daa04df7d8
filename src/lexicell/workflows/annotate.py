"""Annotate cells: labels from a reference's nearest cells, or from the model's label head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData, read_h5ad

from lexicell.annotation.knn import KnnSettings, transfer_labels
from lexicell.annotation.result import Annotation
from lexicell.annotation.tree import Calls, call_labels, consistent
from lexicell.data.query import Query, read_query, store_queries
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.inference.cell_model import CellModel
from lexicell.labels import LabelTree
from lexicell.reporting.text import Table

Reference: TypeAlias = AnnData | Store | str | Path
Method = Literal["knn", "head"]

_LABELS_SHOWN = 12


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


@dataclass(frozen=True)
class AnnotateResult:
    """Annotated cells."""

    annotation: Annotation
    """Labels, confidence and runner-up per level."""
    query: Query
    """How the query was read: species, counts, matched genes."""
    scores: dict[str, dict[str, float]]
    """Accuracy, macro-F1 and coverage of the levels whose truth the query holds."""
    adata: AnnData | None
    """The query with the new columns; None where the query was not AnnData and no h5ad was asked for."""
    written: tuple[Path, ...]
    """Files written."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs; ``levels`` holds those whose truth the query carries."""
        return {
            "cells": self.query.n_cells,
            "method": self.annotation.settings["method"],
            "levels": self.scores,
            "genes": self.query.report.figures(),
            "out": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows: list[tuple[object, ...]] = [
            ("cells", self.query.n_cells),
            *((key, _text(value)) for key, value in self.annotation.settings.items()),
            *self.query.report.rows(),
            *(("written", str(path)) for path in self.written),
        ]
        tables = [Table("Annotation", ("", ""), tuple(rows))]
        tables += [_label_table(self.annotation, level) for level in self.annotation.levels]
        if self.scores:
            scored = tuple((level, s["accuracy"], s["macro_f1"], s["coverage"]) for level, s in self.scores.items())
            columns = ("level", "accuracy", "macro-F1", "coverage")
            tables.append(Table("Against the truth that the query holds", columns, scored))
        return tables


def annotate(
    model: AnnotatingModel | str | Path,
    query: AnnData | str | Path,
    reference: Reference | None = None,
    levels: Sequence[str] | str | None = None,
    *,
    method: Method = "knn",
    species: str | None = None,
    reference_species: str | None = None,
    counts: str | None = None,
    out: str | Path | None = None,
    k: int | None = None,
    samples: int | None = None,
    progress: bool = True,
) -> AnnotateResult:
    """Label cells.

    Parameters
    ----------
    model
        A model, or a run folder.
    query
        Cells with raw counts, as AnnData or a file. AnnData given is not changed.
    reference
        Labelled cells for ``knn``: a store, AnnData or a file. ``head`` needs none.
    levels
        Label columns from coarse to fine, as a sequence or with commas between. Default: those of the store
        or of the model.
    method
        ``knn``: the nearest reference cells vote. ``head``: the label head that the model was trained with.
    species, reference_species
        Species of the query and of the reference; not needed where they say it themselves.
    counts
        Where the query's raw counts are: ``X``, ``layers/NAME`` or ``raw``. Default: what holds them.
    out
        File to write: an h5ad with the new obs columns (and a CSV of the same name beside it), or a CSV alone.
    k
        Neighbours that vote, for ``knn``.
    samples
        At most so many gene samples a cell: faster, but not every expressed gene is seen.
    progress
        Show progress bars.

    Raises
    ------
    InputError
        When model, query, reference or levels cannot be used.
    """
    if method not in ("knn", "head"):
        raise InputError(f"method: expected 'knn' or 'head', got {method!r}.")
    if k is not None and k < 1:
        raise InputError(f"k: expected at least 1 neighbour, got {k}.")
    if method == "knn" and reference is None:
        raise InputError("method knn needs a reference: labelled cells as a store, an h5ad file or AnnData.")
    path = _checked_out(out, query)
    wanted = [part.strip() for part in levels.split(",")] if isinstance(levels, str) else levels
    name = str(model) if isinstance(model, str | Path) else type(model).__name__
    loaded: AnnotatingModel = CellModel.load(model) if isinstance(model, str | Path) else model
    read = read_query(query, loaded.lexicon, species=species, counts=counts)
    settings: dict[str, Any] = {"method": method, "model": name, "species": read.species}
    if method == "knn":
        assert reference is not None
        cells = _read_reference(loaded, reference, wanted, reference_species)
        voting = KnnSettings() if k is None else KnnSettings(k=k)
        tree, calls = cells.tree, _call_by_knn(loaded, read, cells, voting, samples, progress=progress)
        settings |= {"k": voting.k, "reference": cells.name, "reference_cells": len(cells.codes)}
    else:
        tree, calls = _call_by_head(loaded, read, samples, progress=progress)
    settings |= {"levels": list(wanted or tree.levels)} | ({} if samples is None else {"samples": samples})
    annotation = Annotation.from_calls(read.obs.index, tree, calls, wanted, settings)
    adata = _annotated(query, annotation, path)
    return AnnotateResult(annotation, read, annotation.scores(read.obs), adata, _write(annotation, adata, path))


@dataclass(frozen=True)
class _LabelledCells:
    """A reference: its labelled cells in parts that fit into memory, and their codes (n_cells, n_levels)."""

    name: str
    tree: LabelTree
    codes: npt.NDArray[np.int64]
    parts: Iterator[Query]


def _call_by_knn(
    model: AnnotatingModel,
    query: Query,
    cells: _LabelledCells,
    settings: KnnSettings,
    samples: int | None,
    *,
    progress: bool,
) -> Calls:
    learned = np.concatenate([model.embed(part, samples=samples, progress=progress) for part in cells.parts])
    asked = model.embed(query, samples=samples, progress=progress)
    return transfer_labels(learned, cells.codes, asked, cells.tree, settings)


def _call_by_head(
    model: AnnotatingModel, query: Query, samples: int | None, *, progress: bool
) -> tuple[LabelTree, Calls]:
    tree = model.label_tree
    if tree is None:
        raise InputError(
            "this model has no label head (it was trained without labels); use method knn with a reference."
        )
    tables = model.predict_labels(query, samples=samples, progress=progress)
    return tree, call_labels(tree, consistent(tree, tables))


def _read_reference(
    model: AnnotatingModel, reference: Reference, levels: Sequence[str] | None, species: str | None
) -> _LabelledCells:
    if isinstance(reference, str | Path) and Path(reference).is_dir():
        reference = Store.open(reference)
    if isinstance(reference, Store):
        levels = _levels(levels, reference.label_levels, f"the store {reference.path}")
        obs = reference.obs
        tree = LabelTree.from_frame(obs, levels, f"the store {reference.path}")
        codes = tree.encode(obs)
        labelled = np.flatnonzero(codes[:, 0] >= 0)
        parts = store_queries(reference, labelled, model.lexicon)
        return _LabelledCells(str(reference.path), tree, codes[labelled], parts)
    name = "the reference AnnData" if isinstance(reference, AnnData) else str(reference)
    own = model.label_tree.levels if model.label_tree is not None else ()
    read = read_query(reference, model.lexicon, species=species)
    usual = own if set(own) <= set(read.obs.columns) else ()
    tree = LabelTree.from_frame(read.obs, _levels(levels, usual, name), name)
    return _LabelledCells(name, tree, tree.encode(read.obs), iter([read]))


def _levels(levels: Sequence[str] | None, usual: Sequence[str], name: str) -> Sequence[str]:
    if levels or usual:
        return levels or usual
    raise InputError(f"{name}: which columns hold its labels? Name them coarse to fine (--levels, levels=...).")


def _checked_out(out: str | Path | None, query: AnnData | str | Path) -> Path | None:
    if out is None:
        return None
    path = Path(out)
    if path.suffix not in (".h5ad", ".csv"):
        raise InputError(f"{path}: the output is an h5ad or a csv file; end its name in .h5ad or .csv.")
    if path.suffix == ".h5ad" and not isinstance(query, AnnData) and Path(query).suffix != ".h5ad":
        raise InputError(f"{path}: the query is not an h5ad file; write a csv, or convert the query to h5ad first.")
    return path


def _annotated(query: AnnData | str | Path, annotation: Annotation, out: Path | None) -> AnnData | None:
    if isinstance(query, AnnData):
        adata = query.copy()
    elif out is not None and out.suffix == ".h5ad":
        adata = read_h5ad(query)
    else:
        return None
    annotation.write_obs(adata)
    return adata


def _write(annotation: Annotation, adata: AnnData | None, out: Path | None) -> tuple[Path, ...]:
    if out is None:
        return ()
    out.parent.mkdir(parents=True, exist_ok=True)
    written = []
    if out.suffix == ".h5ad":
        assert adata is not None
        part = out.with_name(f".{out.name}.part")
        adata.write_h5ad(part, compression="gzip")
        part.replace(out)
        written.append(out)
    table = out.with_suffix(".csv")
    part = table.with_name(f".{table.name}.part")
    annotation.to_csv(part)
    part.replace(table)
    return (*written, table)


def _label_table(annotation: Annotation, level: str) -> Table:
    called = pd.DataFrame({"label": annotation.labels(level), "prob": annotation.confidence(level)})
    by_label = called.groupby("label", observed=True)["prob"].agg(["size", "median"])
    by_label = by_label.sort_values("size", ascending=False, kind="stable")
    rows: list[tuple[object, ...]] = [
        (str(label), int(n), float(prob)) for label, n, prob in by_label.head(_LABELS_SHOWN).itertuples()
    ]
    rest = by_label["size"].iloc[_LABELS_SHOWN:]
    if len(rest):
        rows.append((f"and {len(rest)} more", int(rest.sum()), None))
    if called["label"].isna().any():
        rows.append(("(no label)", int(called["label"].isna().sum()), None))
    return Table(f"Labels called: {level}", ("label", "cells", "median probability"), tuple(rows))


def _text(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
