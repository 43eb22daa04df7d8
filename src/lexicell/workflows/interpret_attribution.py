"""Which genes made this label, and are they its markers?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from lexicell.data.query import Query
from lexicell.errors import InputError, listing
from lexicell.gene_space.gene_pairs import mean_interval
from lexicell.gene_space.ranked_genes import marker_score, welch_t
from lexicell.genes.gene_sets import read_gene_sets
from lexicell.inference.attribution import (
    Attributions,
    attribute,
    average_baseline,
    head_direction,
    silent_baseline,
)
from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.interpret_figures import paired_scores, top_gene_bars
from lexicell.reporting.text import Table
from lexicell.workflows.embed import load
from lexicell.workflows.genes_cells import Expression, Groups, expression_in, groups_of, one_species, open_cells
from lexicell.workflows.interpret_cells import gene_names, one_query, report_folder
from lexicell.workflows.interpret_options import FIRST, AttributionOptions, Through

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_BARS = 12


@dataclass(frozen=True)
class InterpretAttributionResult:
    """Genes by what they contribute to labels."""

    level: str
    options: AttributionOptions
    through: str
    groups: pd.DataFrame
    """One row a label: group, cells, score and baseline (of the score that is attributed), gap (by which the
    contributions miss the difference, as a share of it)."""
    genes: pd.DataFrame
    """One row a label and gene: group, gene_id, symbol, attribution (mean contribution to a cell's score), cells (in
    which the gene was shown otherwise than in the baseline), t and log_fold (differential expression: Welch, group
    against the others), marker (known as such; missing without markers)."""
    markers: pd.DataFrame
    """One row a label with known markers: group, markers, and hits, recall (of the first 20) and auroc, of attribution,
    and of differential expression: of Welch's t with the prefix ``de_``, of the difference of means with ``fold_``."""
    written: tuple[Path, ...]

    def summary(self) -> dict[str, tuple[float, float, float]]:
        """Return means over labels with 95% bootstrap intervals, and of the differences."""
        if not len(self.markers):
            return {}
        found = {}
        for what in ("recall", "auroc"):
            own = self.markers[what].to_numpy(np.float64)
            found[what] = mean_interval(own, generator(0, "labels"))
            for kind in ("de", "fold"):
                plain = self.markers[f"{kind}_{what}"].to_numpy(np.float64)
                found[f"{kind}_{what}"] = mean_interval(plain, generator(0, "labels"))
                found[f"{what}_less_{kind}"] = mean_interval(own - plain, generator(0, "labels"))
        return found

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "by": self.level,
            "method": self.options.method,
            "baseline": self.options.baseline,
            "through": self.through,
            "groups": self.groups.to_dict("records"),
            "markers": self.markers.to_dict("records"),
            "summary": {name: dict(zip(("mean", "low", "high"), v, strict=True)) for name, v in self.summary().items()},
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        first = self.genes.sort_values(["group", "attribution"], ascending=[True, False], kind="stable")
        named = {str(group): ", ".join(part["symbol"].head(8)) for group, part in first.groupby("group", sort=False)}
        whole = self.groups[["group", "cells", "gap"]].itertuples(index=False)
        rows: tuple[tuple[object, ...], ...] = tuple((*row, named[str(row[0])]) for row in whole)
        how = f"{self.through}, {self.options.method}, from {self.options.baseline}"
        tables = [Table(f"What made the label {self.level} ({how})", ("label", "cells", "gap", "foremost genes"), rows)]
        if len(self.markers):
            columns = ["group", "markers", "recall", "de_recall", "fold_recall", "auroc", "de_auroc", "fold_auroc"]
            words = ("label", "markers", f"recall@{FIRST}", "by t", "by fold", "AUROC", "by t", "by fold")
            rows = tuple(tuple(row) for row in self.markers[columns].itertuples(index=False))
            tables.append(Table("Known markers found", words, rows))
            rows = tuple((name.replace("_", " "), *values) for name, values in self.summary().items())
            tables.append(Table("Mean over labels", ("", "mean", "95% from", "to"), rows))
        return tables


def interpret_attribution(
    model: CellModel | str | Path,
    store: str | Path | Sequence[str | Path] | None = None,
    *,
    by: str,
    groups: Sequence[str] = (),
    species: str | None = None,
    markers: str | Path | None = None,
    cells: int = 20,
    options: AttributionOptions | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> InterpretAttributionResult:
    """Attribute the labels of cells to their genes, beside differential expression.

    Parameters
    ----------
    model
        A run folder, or a model.
    store
        Stores with the cells; the run's own when None.
    by
        Column of the cell annotation with the labels.
    groups
        Labels wanted; all when empty.
    species
        Whose cells; not needed where the model knows one species.
    markers
        GMT file of known markers, one set a label: names are matched without regard to case, ``_`` and a closing
        "cells". Recall and AUROC are then given, beside those of a ranking by differential expression.
    cells
        At most so many cells of a label, drawn at random.
    options
        How it is done.
    seed
        Draws cells, and fits the probe.
    out
        Folder for tables and pictures; ``report`` in the run's folder when None. A model alone writes nothing
        without it.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When a file or an option cannot be used.
    """
    options = options or AttributionOptions()
    if cells < 3:
        raise InputError(f"--cells {cells}: 3 or more of each label are needed")
    loaded = load(model)
    collection = open_cells(model, loaded, store)
    name = one_species(collection, species)
    rng = generator(seed, "attribution cells")
    everything = groups_of(collection, by, species=name, least=3, most=cells, rng=rng)
    if len(everything.names) < 2:
        raise InputError(f"--by {by}: one label alone ({everything.names[0]}) cannot be told from others")
    strangers = [label for label in groups if label not in everything.names]
    if strangers:
        raise InputError(
            f"{by}: no {listing(strangers)} with 3 cells or more; there are {listing(everything.names, 20)}"
        )
    known = _read_markers(markers, everything.names) if markers is not None else {}
    queries = {label: one_query(collection, own) for label, own in zip(everything.names, everything.cells, strict=True)}
    through, directions = _directions(loaded, by, queries, options.through, seed)
    begin = silent_baseline(loaded) if options.baseline == "silent" else average_baseline(loaded, queries.values())
    seen = expression_in(
        collection, np.sort(np.concatenate(everything.cells)), collection.lexicon.rows_of(name), least_cells=3
    )
    rows, tables, scores = [], [], []
    wanted = [label for label in everything.names if not groups or label in groups]
    for label in track(wanted, description="attributing", disable=not progress):
        found = attribute(
            loaded,
            queries[label],
            directions[label],
            begin,
            steps=options.steps,
            path=options.method == "integrated",
        )
        rows.append(
            {"group": label, "cells": found.n_cells, "score": found.score, "baseline": found.baseline, "gap": found.gap}
        )
        table, scored = _gene_table(loaded, everything, label, found, seen, known.get(label), options.kept)
        tables.append(table)
        scores += [scored] if scored else []
    result = InterpretAttributionResult(
        by, options, through, pd.DataFrame(rows), pd.concat(tables, ignore_index=True), pd.DataFrame(scores), ()
    )
    folder = report_folder(model, out)
    return result if folder is None else _write(result, folder)


def _directions(
    model: CellModel, by: str, queries: Mapping[str, Query], through: Through, seed: int
) -> tuple[str, dict[str, Float32]]:
    """Return what labels are read through, and the direction of each."""
    if through != "probe":
        try:
            return "label head", {label: head_direction(model, by, label) for label in queries}
        except KeyError as error:
            if through == "head":
                tree = model.label_tree
                has = "there is none" if tree is None else f"it has the levels {listing(tree.levels)}"
                raise InputError(
                    f"--through head: the label head cannot tell {error.args[0]!r} of {by} ({has}); take a probe"
                ) from None
    embedding = np.concatenate([model.embed(query) for query in queries.values()])
    label = np.repeat(np.arange(len(queries)), [query.n_cells for query in queries.values()])
    scale = np.maximum(embedding.std(axis=0), 1e-6)
    probe = LogisticRegression(C=0.1, max_iter=1000, random_state=seed).fit(embedding / scale, label)
    weight = probe.coef_ if len(queries) > 2 else np.concatenate([-probe.coef_, probe.coef_])
    contrast = (weight - weight.mean(axis=0)) / scale
    return "probe", {name: row.astype(np.float32) for name, row in zip(queries, contrast, strict=True)}


def _gene_table(
    model: CellModel,
    groups: Groups,
    label: str,
    found: Attributions,
    seen: Expression,
    known: frozenset[str] | None,
    kept: int,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Return the foremost genes of a label, and how far up its markers come."""
    order = np.sort(np.concatenate(groups.cells))
    own = np.isin(order, groups.cells[groups.names.index(label)])
    t, fold = welch_t(seen.counts, own)
    about = model.lexicon.table.iloc[seen.genes]
    names = np.array(gene_names(model.lexicon, seen.genes), dtype=object)
    table = pd.DataFrame({"group": label, "gene_id": about["gene_id"].to_numpy(), "symbol": names})
    score = found.mean[seen.genes]
    table = table.assign(attribution=score, cells=found.shown[seen.genes], t=t, log_fold=fold)
    scored: dict[str, object] = {}
    if known is not None:
        upper = [table[column].astype(str).str.upper() for column in ("gene_id", "symbol")]
        is_marker = np.asarray(upper[0].isin(known) | upper[1].isin(known), dtype=bool)
        table["marker"] = is_marker
        mine, plain, folds = (marker_score(ranking, is_marker, FIRST) for ranking in (score, t, fold))
        if mine.markers:
            scored = {"group": label, "markers": mine.markers, "hits": mine.hits, "recall": mine.recall}
            scored |= {"auroc": mine.auroc, "de_hits": plain.hits, "de_recall": plain.recall, "de_auroc": plain.auroc}
            scored |= {"fold_hits": folds.hits, "fold_recall": folds.recall, "fold_auroc": folds.auroc}
    first = np.argsort(-np.abs(score), kind="stable")[:kept]
    part = table.iloc[first]
    return part.iloc[np.argsort(-part["attribution"], kind="stable")], scored


def _read_markers(path: str | Path, labels: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the known markers, upper case, of the labels that a GMT file has sets for."""
    sets = {plain_name(one.name): frozenset(gene.upper() for gene in one.genes) for one in read_gene_sets(path)}
    found = {label: sets[plain_name(label)] for label in labels if plain_name(label) in sets}
    if not found:
        raise InputError(f"{path}: has no set named like a label ({listing(labels, 8)}), but {listing(sets, 8)}")
    return found


def plain_name(text: str) -> str:
    """Return a label without what names of cell types differ in: case, signs, a closing "cells"."""
    words = re.sub(r"[^a-z0-9]+", " ", text.lower()).split()
    return " ".join(words[:-1] if len(words) > 1 and words[-1] in {"cell", "cells"} else words)


def _write(result: InterpretAttributionResult, folder: Path) -> InterpretAttributionResult:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "interpret_attribution.parquet", folder / "interpret_attribution_groups.csv"]
    result.genes.to_parquet(written[0], index=False)
    result.groups.to_csv(written[1], index=False)
    first = result.genes.groupby("group", sort=False).head(_BARS)
    is_known = "marker" if "marker" in first else ""
    bars = top_gene_bars(first, value="attribution", x_label="contribution to the label's score", known=is_known)
    written += save_figure(bars, folder / "interpret_attribution")
    path = folder / "interpret_attribution_markers.csv"
    path.unlink(missing_ok=True)
    if len(result.markers):
        result.markers.to_csv(path, index=False)
        written.append(path)
        dots = paired_scores(
            result.markers,
            left="recall",
            right="fold_recall",
            names=("attribution", "differential expression"),
            label=f"known markers among the first {FIRST} genes",
        )
        written += save_figure(dots, folder / "interpret_attribution_markers")
    return replace(result, written=tuple(written))
