"""Annotate cells: labels carried over from a reference, with what is known of their errors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import pandas as pd
from anndata import AnnData
from rich.console import Console

from lexicell.annotation.knn import KnnSettings
from lexicell.annotation.methods import FinetuneMethod, HeadMethod, KnnMethod, Method, ProbeMethod, SeenCells
from lexicell.annotation.panels import Overlap, PanelLoss
from lexicell.annotation.result import Annotation, check_level_names
from lexicell.data.query import QueryCells, open_query
from lexicell.errors import InputError, listing
from lexicell.genes.annotations import MatchReport
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import Table
from lexicell.training.finetune import FinetuneConfig
from lexicell.training.recipe import parse_config
from lexicell.workflows.label_output import annotated, checked_out, write
from lexicell.workflows.label_reference import Reference, open_reference
from lexicell.workflows.labelling import (
    AnnotatingModel,
    Ground,
    Labelling,
    across_species,
    check_across,
    common_ground,
    finetuned,
    learn,
    overlap_of,
    panel_loss,
)

MethodName = Literal["probe", "finetune", "knn", "head"]
METHODS: tuple[MethodName, ...] = ("probe", "finetune", "knn", "head")

_LABELS_SHOWN = 12


class AnnotateOptions(TypedDict, total=False):
    """Options of `annotate` that are less often needed."""

    taxonomy: str | Path | pd.DataFrame | None
    """Table of the label tree, with the columns child and parent. Default: the tree is read off the cells."""
    reference_species: str | None
    """Species of the reference, where it does not say it itself."""
    donor: str | None
    """obs column of the reference's donors. Default: ``donor``, ``donor_id`` or ``donor_label``."""
    counts: str | None
    """Where the query's raw counts are: ``X``, ``layers/NAME`` or ``raw``. Default: what holds them."""
    k: int | None
    """Neighbours that vote, for ``knn``."""
    samples: int | None
    """At most so many gene samples a cell: faster, but not every expressed gene is seen."""
    overrides: Mapping[str, object] | None
    """Dotted field of `AnnotateRecipe` to value, such as ``{"finetune.lr": 3e-4}``."""


@dataclass(frozen=True)
class AnnotateRecipe:
    """What of `annotate` can be overridden by dotted fields."""

    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """How the model is trained on, for method finetune."""


@dataclass(frozen=True)
class AnnotateResult:
    """Annotated cells."""

    annotation: Annotation
    """Labels, confidence and runner-up per level, and the unknown score."""
    genes: MatchReport
    """How many of the query's genes, and which share of its counts, the model knows."""
    labelling: Labelling
    """The fitted method, and how it did on held-out reference cells."""
    overlap: Overlap | None
    """Genes that reference and query share; None without a reference."""
    loss: PanelLoss | None
    """What the shared genes can tell, beside all of the reference's; None where nearly all are shared."""
    scores: dict[str, dict[str, float]]
    """Accuracy, macro-F1 and coverage of the levels whose truth the query holds."""
    adata: AnnData | None
    """The query with the new columns; None where the query was a file, which need not fit into memory."""
    seconds: dict[str, float]
    """Time to learn from the reference, and to read, embed and label the query."""
    written: tuple[Path, ...]
    """Files written."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs; ``levels`` holds those whose truth the query carries."""
        n_cells, report = len(self.annotation.cells), self.labelling.report
        return {
            "cells": n_cells,
            "cells_per_second": n_cells / self.seconds["query"],
            "seconds": self.seconds,
            "method": self.annotation.settings["method"],
            "levels": self.scores,
            "held_out_reference": None if report is None else report.figures(),
            "genes": self.genes.figures(),
            "overlap": None if self.overlap is None else self.overlap.figures(),
            "panel_loss": None if self.loss is None else self.loss.levels.to_dict("records"),
            "out": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows: list[tuple[object, ...]] = [
            ("cells", len(self.annotation.cells)),
            ("cells a second", len(self.annotation.cells) / self.seconds["query"]),
            *((key, _text(value)) for key, value in self.annotation.settings.items()),
            *self.genes.rows(),
            *(() if self.overlap is None else (("reference and query", self.overlap.said()),)),
            *(("written", str(path)) for path in self.written),
        ]
        tables = [Table("Annotation", ("", ""), tuple(rows))]
        if self.labelling.report is not None:
            tables += _held_out_tables(self.labelling)
        if self.loss is not None:
            tables.append(_loss_table(self.loss))
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
    method: MethodName | Method = "probe",
    max_error: float | None = None,
    species: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Unpack[AnnotateOptions],
) -> AnnotateResult:
    """Label cells.

    Parameters
    ----------
    model
        A model, or a run folder.
    query
        Cells with raw counts, as AnnData or a file. AnnData given is not changed.
    reference
        Labelled cells: a store, AnnData or a file. ``head`` needs none.
    levels
        Label columns from coarse to fine, as a sequence or with commas between. Default: those of the store
        or of the model.
    method
        ``probe``: a linear tree on gene counts, likelihood in and likeness to each type, and a linear tree on the
        embedding. ``finetune``: the same, with the model trained on before; it takes minutes, or hours without a GPU.
        ``knn``: the nearest reference cells vote.
        ``head``: the label head that the model was trained with. Or a method of your own
        (`lexicell.annotation.methods.Method`).
    max_error
        Largest share of wrong calls: labels that are not sure enough are left out, so that the upper bound of the error
        on held-out donors of the reference stays below it. Default: every cell gets a label.
    species
        Species of the query; not needed where it says it itself.
    out
        File to write: an h5ad with the new obs columns, or a CSV; beside it a CSV and a JSON in the layout of
        MapMyCells, and the reliability plot.
    seed
        Draws reference cells where there are more than needed.
    progress
        Say what is being done, and show progress bars.
    options
        Less often needed; see `AnnotateOptions`.

    Raises
    ------
    InputError
        When model, query, reference or levels cannot be used.
    """
    unknown_options = sorted(set(options) - set(AnnotateOptions.__annotations__))
    if unknown_options:
        raise TypeError(
            f"annotate: no option {listing(unknown_options)}; there are {listing(AnnotateOptions.__annotations__, 20)}."
        )
    overrides = options.get("overrides") or {}
    recipe = annotate_recipe(overrides, method if isinstance(method, str) else method.name)
    way = _method(method, reference, max_error, options)
    path = checked_out(out, query)
    wanted = [part.strip() for part in levels.split(",")] if isinstance(levels, str) else levels
    name = str(model) if isinstance(model, str | Path) else type(model).__name__
    loaded: AnnotatingModel = CellModel.load(model) if isinstance(model, str | Path) else model
    began = time.perf_counter()
    with open_query(query, loaded.lexicon, species, options.get("counts")) as cells:
        if reference is None:
            learned = _Learned(loaded, _by_head(loaded, way, wanted, options.get("samples")))
        else:
            asked = _Asked(way, wanted, max_error, seed, progress, options, recipe)
            learned = _learn_from(reference, loaded, cells, asked)
        between = time.perf_counter()
        calls, unknown = learned.labelling(learned.model, cells, progress=progress)
        seconds = {"reference": between - began, "query": time.perf_counter() - between}
        genes, obs = cells.counted(), cells.obs
        settings: dict[str, Any] = {"method": way.name, "model": name, "species": cells.species} | learned.settings
    tree = learned.labelling.tree
    settings |= {"levels": list(wanted or tree.levels), "seed": seed}
    given = {"samples": options.get("samples"), "k": options.get("k"), "max_error": max_error}
    settings |= {key: value for key, value in given.items() if value} | dict(overrides)
    annotation = Annotation.from_calls(obs.index, tree, calls, wanted, settings, unknown)
    adata = annotated(query, annotation) if isinstance(query, AnnData) else None
    written = write(annotation, query if adata is None else adata, learned.labelling.report, path)
    scores = annotation.scores(obs)
    return AnnotateResult(
        annotation, genes, learned.labelling, learned.overlap, learned.loss, scores, adata, seconds, written
    )


@dataclass(frozen=True)
class _Asked:
    """What the user asked for."""

    method: Method
    levels: Sequence[str] | None
    max_error: float | None
    seed: int
    progress: bool
    options: AnnotateOptions
    recipe: AnnotateRecipe


@dataclass(frozen=True)
class _Learned:
    """A fitted method, and the model that it looks through: the user's, or a fine-tuned one."""

    model: AnnotatingModel
    labelling: Labelling
    overlap: Overlap | None = None
    loss: PanelLoss | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def _learn_from(reference: Reference, model: AnnotatingModel, cells: QueryCells, asked: _Asked) -> _Learned:
    """Fit a method on a reference, over the genes that it shares with the query."""
    console = Console(quiet=not asked.progress, stderr=True)
    overlap, loss, apart = None, None, None
    known = open_reference(
        reference,
        model.lexicon,
        asked.levels,
        taxonomy=asked.options.get("taxonomy"),
        usual_levels=model.label_tree.levels if model.label_tree is not None else (),
        species=asked.options.get("reference_species"),
        donor=asked.options.get("donor"),
    )
    check_level_names(known.tree.levels)
    settings: dict[str, Any] = {}
    across = across_species(model.lexicon, known, cells)
    if across:  # no gene can be shared: each is read over its own, and they meet in the embedding
        check_across(asked.method, asked.max_error, cells.species)
        ground = Ground(known.genes)
        settings |= {"across_species": True}
    else:
        overlap, shared = overlap_of(known, cells)
        console.print(overlap.said())
        loss = panel_loss(known, shared, asked.seed)
        if loss is not None:
            console.print(loss.said())
        ground = common_ground(known, cells, shared, asked.seed)
        if ground.depth is not None:
            console.print(ground.depth.said())
            settings |= dict(zip(("reference_depth", "thinned_to_depth"), ground.depth.medians, strict=True))
    if asked.method.name == "finetune":
        tuned, apart = finetuned(model, known, ground, asked.recipe.finetune, seed=asked.seed, said=console.print)
        model = tuned.model
        settings |= {"finetune_steps": tuned.steps}
    labelling = learn(
        model,
        known,
        ground,
        asked.method,
        apart=apart,
        max_error=asked.max_error,
        samples=asked.options.get("samples"),
        seed=asked.seed,
        progress=asked.progress,
    )
    if across:
        labelling = replace(labelling, genes=None)
    if isinstance(labelling.method, ProbeMethod | FinetuneMethod) and labelling.method.pool:
        names = ("genes", "likelihood", "profiles", "model")
        settings |= {f"share_of_{n}": share for n, share in zip(names, labelling.method.pool.shares, strict=True)}
    settings |= {"reference": known.name, "reference_cells": known.n_cells, "reference_donors": known.n_donors}
    return _Learned(model, labelling, overlap, loss, settings)


def annotate_recipe(overrides: Mapping[str, object], method: str) -> AnnotateRecipe:
    """Return the recipe with dotted fields changed.

    Raises
    ------
    InputError
        When there is no such field, a value cannot be, or the method has no use for it.
    """
    tree: dict[str, Any] = {}
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if name:
            tree.setdefault(section, {})[name] = value
        else:
            tree[section] = value
    recipe = parse_config(AnnotateRecipe, tree, "annotate", "annotate")
    if overrides and method != "finetune":
        raise InputError(f"{listing(overrides)}: for method finetune alone; got method {method}.")
    return recipe


def _method(
    method: MethodName | Method, reference: Reference | None, max_error: float | None, options: AnnotateOptions
) -> Method:
    k, samples = options.get("k"), options.get("samples")
    if isinstance(method, str) and method not in METHODS:
        raise InputError(f"method: expected {', '.join(map(repr, METHODS))}, got {method!r}.")
    name = method if isinstance(method, str) else method.name
    if k is not None and (k < 1 or name != "knn"):
        raise InputError(f"k: expected at least 1 neighbour, for method knn; got {k} for method {name}.")
    if samples is not None and samples < 1:
        raise InputError(f"samples: expected at least 1 gene sample a cell, got {samples}.")
    given = {"reference": reference, **{name: options.get(name) for name in ("taxonomy", "reference_species", "donor")}}
    useless = [name for name, value in given.items() if value is not None]
    if name == "head" and useless:
        raise InputError(
            f"{listing(useless)}: method head asks the label head of the model and looks at no reference; leave that "
            "out, or use method probe or knn."
        )
    if max_error is not None and not 0 < max_error < 1:
        raise InputError(f"max_error: expected a share between 0 and 1, such as 0.05; got {max_error}.")
    if name != "head" and reference is None:
        raise InputError(f"method {name} needs a reference: labelled cells as a store, an h5ad file or AnnData.")
    if name == "head" and max_error is not None:
        raise InputError(
            "max_error: a promise needs labelled cells that the method did not learn from, which is not known of a "
            "label head; use method probe or knn with a reference."
        )
    if not isinstance(method, str):
        return method
    if method == "knn":
        return KnnMethod(KnnSettings() if k is None else KnnSettings(k=k))
    methods: dict[str, Method] = {"head": HeadMethod(), "probe": ProbeMethod(), "finetune": FinetuneMethod()}
    return methods[method]


def _by_head(model: AnnotatingModel, method: Method, levels: Sequence[str] | None, samples: int | None) -> Labelling:
    tree = model.label_tree
    if tree is None:
        raise InputError(
            "this model has no label head (it was trained without labels); use method probe or knn with a reference."
        )
    absent = [level for level in levels or () if level not in tree.levels]
    if absent:
        raise InputError(
            f"levels: the model's label head has no {listing(map(repr, absent))}; its levels are "
            f"{listing(map(repr, tree.levels), 20)} (coarse to fine)."
        )
    nothing = np.empty((0, 0), dtype=np.float32)
    return Labelling(tree, method, method.fit(SeenCells(nothing), np.empty((0, 0), np.int64), tree), None, samples)


def _held_out_tables(labelling: Labelling) -> list[Table]:
    report = labelling.report
    assert report is not None
    whose = f"{report.n_donors} donors, held out whole" if report.by_donor else "dealt at random, not by donor"
    rows = tuple(
        (row.level, row.n_cells, row.accuracy, row.macro_f1, row.calibration_error_raw, row.calibration_error)
        for row in report.levels.itertuples()
    )
    columns = ("level", "cells", "accuracy", "macro-F1", "calibration error, raw", "calibrated")
    tables = [Table(f"On held-out cells of the reference ({whose})", columns, rows)]
    if report.rules is not None:
        kind = "" if report.promise else "; an estimate is no promise: its donors are too few"
        ruled = tuple(
            (
                rule.level,
                rule.holds,
                "promise" if rule.promise else "estimate",
                rule.bound.n_donors,
                rule.threshold,
                rule.coverage,
                rule.bound.error,
                rule.bound.upper,
                rule.bound.effective,
            )
            for rule in report.rules.rules
        )
        heads = ("level", "holds", "by", "donors", "least probability", "kept", "error", "upper bound")
        title = f"Error below {report.rules.max_error:.3g} on new donors{kind}"
        tables.append(Table(title, (*heads, "effective cells"), ruled))
    return tables


def _loss_table(loss: PanelLoss) -> Table:
    rows = tuple((row.level, row.macro_f1_all, row.macro_f1_shared) for row in loss.levels.itertuples())
    columns = ("level", "all of its genes", "shared genes")
    return Table("What the shared genes can tell: macro-F1 on held-out reference cells, genes alone", columns, rows)


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
