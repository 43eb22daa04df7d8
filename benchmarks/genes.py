"""Which gene embedding is biology? Tables and treatments compared over runs; and calibration of the species contrast.

Usage:
  python benchmarks/genes.py coherence --runs RUN [RUN ...] --sets FILE.gmt [FILE.gmt ...] [--max-sets N] [--cells N]
                                       [--probes [--data FOLDER]] [--json FILE]
  python benchmarks/genes.py calibration [--simulations N] [--out docs/images/genes_contrast_calibration] [--json FILE]
  python benchmarks/genes.py rewired [--simulations N] [--steps N --out FOLDER] [--json FILE]
  python benchmarks/genes.py trained --out FOLDER [--simulations N] [--steps N] [--convergent N] [--tables rows ...]
                                     [--picture FILE] [--json FILE]

`coherence` scores, in every run: rows as trained and as they began, with the expression level removed and whitened or
not; the decoder's responses; mean token states by label; all beside each other; and PCA loadings and co-expression,
which get the same treatments, of `--cells` cells (rows begin from up to 20,000: give PCA as many; co-expression never
takes more than 2,000, whose scoring grows with the cells). `--probes`
reads classes of genes besides (`gene_classes.py`). `calibration` simulates species without and with convergent genes:
null p-values, and the realised against the nominal FDR. `rewired` simulates two tissues with genes that load on another
program in one of them, and scores co-expression; with `--steps`, the tables of a model trained on them too. `trained`
pretrains a model on eight simulated species with convergent genes (`--convergent 0`: none, for null p-values), without
labels, and contrasts them in each of its tables.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from gene_classes import mean_and_range, probe_all, probe_tables, read_classes
from gene_simulations import calibration, rewired, trained
from scipy.sparse import csc_matrix

from lexicell.gene_space.coherence import expression_bins
from lexicell.gene_space.gene_views import (
    centred,
    half_whitened,
    pca_loadings,
    side_by_side,
    standardised,
    without_level,
)
from lexicell.gene_space.leave_one_out import leave_one_out_auroc
from lexicell.gene_space.profiles import expression_profile
from lexicell.genes.gene_sets import read_gene_sets
from lexicell.inference.cell_model import CellModel
from lexicell.inference.contextual import token_moments
from lexicell.inference.gene_response import count_response
from lexicell.randomness import generator
from lexicell.reporting.text import Table, print_tables
from lexicell.training.datamodule import hold_out_cells
from lexicell.training.gene_rows import start_genes
from lexicell.training.recipe import load_recipe
from lexicell.training.run_folder import RECIPE
from lexicell.workflows.genes_cells import expression, groups_of, one_species, open_cells, queries
from lexicell.workflows.genes_coherence import MOST_CELLS, RESPONSE_CELLS
from lexicell.workflows.genes_contrast import ContrastTable

BESIDE = ("co-expression", "PCA, level removed, half whitened")  # what every table is compared with


def treated(name: str, points: Any, level: Any) -> dict[str, Any]:
    """Return an embedding centred, without the expression level, and half whitened besides."""
    return {
        f"{name}, centred": centred(points),
        f"{name}, level removed": without_level(points, level),
        f"{name}, level removed, half whitened": half_whitened(without_level(points, level)),
    }


def tables_of(run: Path, seed: int, most_cells: int, context_cells: int) -> tuple[dict[str, Any], Any, pd.DataFrame]:
    """Return every embedding of a run's genes (PCA of so many cells), their bins, and the genes."""
    model = CellModel.load(run)
    cells = open_cells(run, model, None)
    species = one_species(cells, None)
    rng = generator(seed, "coherence cells")
    seen = expression(cells, species, least_cells=10, most_cells=most_cells, rng=rng)
    recipe = load_recipe(run / RECIPE)
    trained_on, _, _ = hold_out_cells(
        cells.column("donor"), cells.column("species"), recipe.data.validation, recipe.seed
    )  # rows begin from these alone: from others, components turn, and differences are not what training changed
    rows = model.network.genes.weight.numpy()[seen.genes]
    began, alone = (
        start_genes(cells, trained_on, model.width, config, recipe.seed).rows[seen.genes]
        for config in (recipe.gene_rows, replace(recipe.gene_rows, noise=0.0, profile=0.0))
    )
    drawn = np.sort(generator(seed, "response cells").permutation(cells.n_cells)[:RESPONSE_CELLS])
    cls = np.concatenate([model.run(query).embedding for query in queries(cells, drawn)])
    response = count_response(model, cls, seen.genes)
    response -= response.mean(axis=1, keepdims=True)
    scaled = standardised(seen.counts, seen.is_measured)
    pca = pca_loadings(scaled, seed=seed)
    found: dict[str, Any] = {}
    found |= treated("rows", rows, seen.level) | treated("untrained rows", began, seen.level)
    found["what training changed in the rows"] = without_level(rows - began, seen.level)
    found |= treated("untrained rows, co-expression's part alone", alone, seen.level)
    found |= treated("responses", response, seen.level)
    if context_cells:
        level = "cell_type" if "cell_type" in cells.columns else "donor"
        groups = groups_of(cells, level, least=30, most=context_cells, rng=generator(seed, "context cells"))
        states = [token_moments(model, queries(cells, own), samples=2).mean[seen.genes] for own in groups.cells]
        found |= treated("mean token states by group", side_by_side(*states), seen.level)
    half = "level removed, half whitened"
    found["rows and responses"] = side_by_side(found[f"rows, {half}"], found[f"responses, {half}"])
    found |= treated("PCA", pca, seen.level)
    found["rows and PCA"] = side_by_side(found[f"rows, {half}"], found[f"PCA, {half}"])
    few = np.sort(rng.permutation(seen.counts.shape[0])[:MOST_CELLS])  # scoring it takes time in line with cells
    found["co-expression"] = standardised(csc_matrix(seen.counts[few]), seen.is_measured[few])
    found["expression profile"] = centred(expression_profile(seen.counts))
    found["random"] = generator(seed, "random embedding").standard_normal((len(seen.genes), 64))
    return found, expression_bins(seen.level), model.lexicon.table.iloc[seen.genes]


def differences(scores: Any, beside: Any) -> dict[str, list[float]]:
    """Return the mean difference over sets with a 95% bootstrap interval over sets: of AUROC, and of AUROC in bins."""
    found = {}
    for kind, a, b in zip(("auroc", "auroc_matched"), scores, beside, strict=True):
        values = (a - b)[np.isfinite(a - b)]
        drawn = generator(0, "sets resampled").choice(values, (2000, len(values))).mean(axis=1)
        found[kind] = [float(values.mean()), *np.quantile(drawn, [0.025, 0.975]).tolist()]
    return found


def coherence(options: argparse.Namespace) -> dict[str, Any]:
    """Score every table of every run."""
    records: list[dict[str, Any]] = []
    probed: list[dict[str, Any]] = []
    for seed, run in enumerate(options.runs):
        tables, bins, genes = tables_of(run, seed, options.cells, options.context_cells if options.sets else 0)
        for path in options.sets:
            collection = read_gene_sets(path)
            members = collection.membership(genes["symbol"], ignore_case=True)
            size = np.diff(members.indptr)
            keep = np.flatnonzero((size >= 10) & (size <= 500))
            if options.max_sets and len(keep) > options.max_sets:
                keep = np.sort(generator(0, "sets judged", collection.name).permutation(keep)[: options.max_sets])
            scores = {name: leave_one_out_auroc(points, members[keep], bins) for name, points in tables.items()}
            for name, (auroc, matched) in scores.items():
                records.append(
                    {"run": str(run), "collection": collection.name, "table": name, "sets": len(keep)}
                    | {"auroc": float(np.nanmean(auroc)), "auroc_matched": float(np.nanmean(matched))}
                    | {f"less {beside}": differences(scores[name], scores[beside]) for beside in BESIDE}
                )
                print(records[-1], flush=True)
        if options.probes:
            classes = read_classes(options.data, genes["species"].iloc[0], genes)
            probed += [{"run": str(run)} | record for record in probe_all(tables, classes, bins, seed)]
    print_tables(coherence_tables(records) + (probe_tables(probed) if probed else []))
    return {"cells": options.cells, "coherence": records, "probes": probed}


def coherence_tables(records: list[dict[str, Any]]) -> list[Table]:
    """Return mean and range over runs of AUROCs, and of differences with the outermost ends of their intervals."""
    tables = []
    parts = pd.DataFrame(records).groupby("collection", sort=False) if records else ()
    for name, part in parts:
        title, by_table = f"{name}, {part['run'].nunique()} runs", part.groupby("table", sort=False)
        rows = tuple(
            (table, *(mean_and_range(own[kind]) for kind in ("auroc", "auroc_matched"))) for table, own in by_table
        )
        tables.append(Table(title, ("table", "AUROC", "in bins"), rows))
        for beside in BESIDE:
            lines = []
            for table, own in by_table:
                line: list[object] = [table]
                for kind in ("auroc", "auroc_matched"):
                    gap = np.array([found[kind] for found in own[f"less {beside}"]])  # (runs, 3)
                    line += [mean_and_range(gap[:, 0]), f"{gap[:, 1].min():.3f} to {gap[:, 2].max():.3f}"]
                lines.append(tuple(line))
            words = ("table", "AUROC", "95% over sets", "in bins", "95% over sets")
            tables.append(Table(f"{title}, less {beside}", words, tuple(lines)))
    return tables


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("coherence")
    one.add_argument("--runs", type=Path, nargs="+", required=True)
    one.add_argument("--sets", type=Path, nargs="+", default=[])
    one.add_argument("--max-sets", type=int, default=0, help="judge at most so many sets of a collection")
    one.add_argument("--cells", type=int, default=MOST_CELLS, help="cells of PCA, co-expression and expression levels")
    one.add_argument("--probes", action="store_true", help="read classes of genes by logistic regression, too")
    one.add_argument("--data", type=Path, help="folder with the classes; LEXICELL_DATA unless given")
    one.add_argument("--context-cells", type=int, default=100, help="cells a label for mean token states; 0 for none")
    two = verbs.add_parser("calibration")
    two.add_argument("--out", type=Path, help="picture to write, without its ending")
    three = verbs.add_parser("rewired")
    three.add_argument("--steps", type=int, default=0, help="train tiny for so many steps, and score its tables too")
    three.add_argument("--out", type=Path, help="folder for stores and runs, with --steps")
    four = verbs.add_parser("trained")
    four.add_argument("--out", type=Path, required=True, help="folder for stores and runs")
    four.add_argument("--steps", type=int, default=800, help="steps of pretraining")
    four.add_argument("--convergent", type=int, default=20, help="genes planted; 0 looks at the null p-values")
    tables = get_args(ContrastTable)
    four.add_argument("--tables", nargs="+", choices=tables, default=tables, help="tables to contrast genes in")
    four.add_argument("--picture", type=Path, help="picture of null p-values to write, without its ending")
    for verb, simulations in ((two, 20), (three, 20), (four, 3)):
        verb.add_argument("--simulations", type=int, default=simulations)
    for verb in (one, two, three, four):
        verb.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.verb == "coherence":
        options.data = options.data or Path(os.environ.get("LEXICELL_DATA", ""))
        if not options.sets and not options.probes:
            parser.error("judge what? Name gene sets (--sets), or ask for --probes")
        if options.probes and not (options.data / "markers").is_dir():
            parser.error(f"{options.data}: holds no folder markers; name the data with --data or LEXICELL_DATA")
    if options.verb == "rewired" and options.steps and options.out is None:
        parser.error("--steps: name a folder for stores and runs (--out)")
    verbs_of = {"coherence": coherence, "calibration": calibration, "rewired": rewired, "trained": trained}
    found = verbs_of[options.verb](options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
