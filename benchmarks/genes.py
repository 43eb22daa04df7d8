"""Which gene embedding is biology? Tables and treatments compared over runs; and calibration of the species contrast.

Usage:
  python benchmarks/genes.py coherence --runs RUN [RUN ...] --sets FILE.gmt [FILE.gmt ...] [--max-sets N] [--json FILE]
  python benchmarks/genes.py calibration [--simulations N] [--out docs/images/genes_contrast_calibration] [--json FILE]
  python benchmarks/genes.py rewired [--simulations N] [--json FILE]
  python benchmarks/genes.py trained --out FOLDER [--simulations N] [--steps N] [--json FILE]

`coherence` scores, in every run: rows as trained and as they began, with the expression level removed and whitened or
not; the decoder's responses; mean token states by label; all beside each other; and PCA loadings and co-expression of
the same cells, which get the same treatments. `calibration` simulates species without and with convergent genes.
`rewired` simulates two tissues with genes that load on another program in one of them. `trained` pretrains a model on
eight simulated species with convergent genes, without labels, and contrasts them in each of its tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.sparse import csc_matrix
from sklearn.metrics import roc_auc_score

from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.evaluation.baselines import log_cpm
from lexicell.gene_space.coherence import expression_bins
from lexicell.gene_space.contrast import contrast_genes
from lexicell.gene_space.displacement import PARTS, compare_groups, split_parts
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
from lexicell.model.checkpoint import WEIGHTS
from lexicell.randomness import generator
from lexicell.reporting.figures import INK, PALETTE, STYLE
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.text import Table, print_tables
from lexicell.training.datamodule import hold_out_cells
from lexicell.training.gene_rows import start_genes
from lexicell.training.recipe import load_recipe
from lexicell.training.run_folder import RECIPE
from lexicell.workflows.genes_cells import expression, groups_of, one_species, open_cells, queries
from lexicell.workflows.genes_coherence import MOST_CELLS, RESPONSE_CELLS
from lexicell.workflows.genes_contrast import ContrastTable, genes_contrast
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import pretrain
from lexicell.workflows.species_groups import SpeciesGroups

FOUR = "((albus:0.15,niger:0.15):0.35,(echo:0.15,mutus:0.15):0.35);"
EIGHT = "(((a:0.15,b:0.15):0.2,(c:0.15,d:0.15):0.2):0.15,((e:0.15,f:0.15):0.2,(g:0.15,h:0.15):0.2):0.15);"
BESIDE = ("co-expression", "PCA, level removed, half whitened")  # what every table is compared with
DESIGNS = {"4 species": (FOUR, ("albus", "echo")), "8 species": (EIGHT, ("a", "c", "e", "g"))}


def treated(name: str, points: Any, level: Any) -> dict[str, Any]:
    """Return an embedding centred, without the expression level, and half whitened besides."""
    return {
        f"{name}, centred": centred(points),
        f"{name}, level removed": without_level(points, level),
        f"{name}, level removed, half whitened": half_whitened(without_level(points, level)),
    }


def tables_of(run: Path, seed: int, context_cells: int) -> tuple[dict[str, Any], Any, Any, pd.DataFrame]:
    """Return every embedding of a run's genes, their bins and levels, and the genes."""
    model = CellModel.load(run)
    cells = open_cells(run, model, None)
    species = one_species(cells, None)
    rng = generator(seed, "coherence cells")
    seen = expression(cells, species, least_cells=10, most_cells=MOST_CELLS, rng=rng)
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
    found["co-expression"] = scaled
    found["expression profile"] = centred(expression_profile(seen.counts))
    found["random"] = generator(seed, "random embedding").standard_normal((len(seen.genes), 64))
    return found, expression_bins(seen.level), seen.level, model.lexicon.table.iloc[seen.genes]


def differences(scores: Any, beside: Any) -> list[list[float]]:
    """Return the mean difference over sets with a 95% bootstrap interval over sets: of AUROC, and of AUROC in bins."""
    found = []
    for a, b in zip(scores, beside, strict=True):
        values = (a - b)[np.isfinite(a - b)]
        drawn = generator(0, "sets resampled").choice(values, (2000, len(values))).mean(axis=1)
        found.append([float(values.mean()), *np.quantile(drawn, [0.025, 0.975]).tolist()])
    return found


def coherence(options: argparse.Namespace) -> dict[str, Any]:
    """Score every table of every run."""
    records = []
    for seed, run in enumerate(options.runs):
        tables, bins, _, genes = tables_of(run, seed, options.context_cells)
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
    frame = pd.DataFrame(records)
    for name, part in frame.groupby("collection", sort=False):
        wide = part.groupby("table", sort=False)[["auroc", "auroc_matched"]].agg(["mean", "min", "max"])
        rows = tuple((table, *values) for table, values in zip(wide.index, wide.to_numpy(), strict=True))
        words = ("table", "AUROC", "least", "most", "in bins", "least", "most")
        print_tables([Table(f"{name}, {len(options.runs)} runs", words, rows)])
    return {"coherence": records}


def contrast_once(tree: str, group: tuple[str, ...], seed: int, n_convergent: int) -> pd.DataFrame:
    """Simulate species, take co-expression of their cells, and contrast the matched genes."""
    config = SimulationConfig(
        phylogeny=tree,
        n_cells=600,
        n_genes=600,
        n_convergent=n_convergent,
        convergent_species=group,
        seed=seed,
    )
    truth = simulate(config)
    genes = truth.genes[truth.genes["orthogroup"] != ""]
    everywhere = genes.groupby("orthogroup")["species"].nunique()
    wanted = everywhere.index[everywhere == len(config.species)]
    points = []
    for species in config.species:
        names = truth.genes[truth.genes["species"] == species].reset_index(drop=True)
        place = pd.Series(names.index, index=names["orthogroup"]).loc[wanted].to_numpy()
        loadings = pca_loadings(standardised(csc_matrix(log_cpm(truth.cells[species].X))[:, place]), 20)
        points.append(half_whitened(loadings))
    observed = np.array([species in group for species in config.species])
    table, labellings, _ = contrast_genes(
        [points], observed, truth.phylogeny.distances(), generator(seed, "labellings")
    )
    planted = genes.drop_duplicates("orthogroup").set_index("orthogroup")["convergent"].loc[wanted].to_numpy()
    return table.assign(planted=planted, seed=seed, labellings=len(labellings.others))


def calibration(options: argparse.Namespace) -> dict[str, Any]:
    """Simulate with nothing planted, and with 20 convergent genes; draw and return what was called."""
    figures: dict[str, Any] = {}
    tables: dict[str, pd.DataFrame] = {}
    for design, (tree, group) in DESIGNS.items():
        empty = pd.concat([contrast_once(tree, group, seed, 0) for seed in range(options.simulations)])
        full = pd.concat([contrast_once(tree, group, 1000 + seed, 20) for seed in range(options.simulations)])
        by_seed = full.groupby("seed")
        aurocs = [roc_auc_score(part["planted"], part["contrast"]) for _, part in by_seed]
        called = full[full["fdr"] <= 0.05]
        false = (~called["planted"]).groupby(called["seed"]).mean().reindex(full["seed"].unique(), fill_value=0.0)
        figures[design] = {
            "simulations": options.simulations,
            "null_p_below_05": float((empty["p"] <= 0.05).mean()),
            "null_simulations_with_a_call": float((empty["fdr"] <= 0.05).groupby(empty["seed"]).any().mean()),
            "auroc": {"mean": np.mean(aurocs), "least": np.min(aurocs), "most": np.max(aurocs)},
            "planted_called_at_fdr05": float((full.loc[full["planted"], "fdr"] <= 0.05).mean()),
            "false_share_of_calls": float(false.mean()),
        }
        tables[design] = empty
        print(design, figures[design], flush=True)
    if options.out:
        save_figure(calibration_figure(tables, figures), options.out)
    return {"calibration": figures}


def calibration_figure(tables: dict[str, pd.DataFrame], figures: dict[str, Any]) -> Figure:
    """Draw null p-values against what they should be, one line a simulation, and AUROC and calls as text."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(tables), 3.9), layout="constrained")
        for axis, (design, table) in zip(figure.subplots(1, len(tables)), tables.items(), strict=True):
            for _, part in table.groupby("seed"):
                p = np.sort(part["p"].to_numpy())
                axis.plot(np.arange(1, len(p) + 1) / len(p), p, color=PALETTE[4], linewidth=0.7, alpha=0.6)
            p = np.sort(table["p"].to_numpy())
            axis.plot(np.arange(1, len(p) + 1) / len(p), p, color=PALETTE[0], label="all simulations")
            axis.plot([1e-4, 1], [1e-4, 1], color=INK, linewidth=1, linestyle="--", label="calibrated")
            axis.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1))
            axis.set_xlabel("expected p, nothing planted")
            axis.set_ylabel("observed p")
            axis.set_title(f"{design}: planted genes' AUROC {figures[design]['auroc']['mean']:.2f}")
            axis.legend(loc="upper left")
    return figure


def rewired(options: argparse.Namespace) -> dict[str, Any]:
    """Find genes that load on another program in the second tissue, from co-expression alone."""
    scores: dict[str, list[float]] = {"displacement": [], "rbo": [], "jaccard": []}
    calls, false = [], []
    for seed in range(options.simulations):
        config = SimulationConfig(
            phylogeny="(albus:0.1,niger:0.1);",
            n_cells=2400,
            n_genes=1000,
            tissues=("cortex", "liver"),
            n_rewired=30,
            n_convergent=0,
            convergent_species=(),
            seed=seed,
        )
        truth = simulate(config)
        cells = truth.cells["albus"]
        counts, obs = csc_matrix(log_cpm(cells.X)), cells.obs
        planted = truth.genes.loc[truth.genes["species"] == "albus", "rewired"].to_numpy()
        sides, seen = [], []
        for tissue in config.tissues:
            own = np.flatnonzero(obs["tissue"] == tissue)
            part = split_parts(obs["donor"].to_numpy(dtype=object)[own], len(own), generator(seed, "parts", tissue))
            parts = [counts[own[part == p]] for p in range(PARTS)]
            sides.append([pca_loadings(standardised(csc_matrix(x)), 12) for x in parts])
            seen += [np.diff(csc_matrix(x).indptr) for x in parts]
        n_seen = np.min(seen, axis=0)
        keep = n_seen >= 5
        table, _ = compare_groups(*[[p[keep] for p in side] for side in sides], n_seen[keep])
        for name, values in scores.items():
            values.append(float(roc_auc_score(planted[keep], table[f"{name}_excess"])))
        called = table["displacement_fdr"].to_numpy() <= 0.05
        calls.append(float(called[planted[keep]].mean()))
        false.append(float((called & ~planted[keep]).sum() / max(called.sum(), 1)))
        print(seed, {name: round(values[-1], 3) for name, values in scores.items()}, calls[-1], false[-1], flush=True)
    spread = {n: {"mean": np.mean(v), "least": np.min(v), "most": np.max(v)} for n, v in scores.items()}
    return {"rewired": spread | {"planted_called": np.mean(calls), "false_share_of_calls": np.mean(false)}}


def trained(options: argparse.Namespace) -> dict[str, Any]:
    """Contrast planted genes in the tables of models trained on all species; a finished model is not trained again."""
    rows = []
    tree, group = DESIGNS["8 species"]
    for seed in range(options.simulations):
        config = SimulationConfig(
            phylogeny=tree, n_cells=600, n_genes=600, n_convergent=20, convergent_species=group, seed=seed
        )
        truth = simulate(config)
        place = options.out / str(seed)
        if not (place / "run" / WEIGHTS).is_file():
            shutil.rmtree(place, ignore_errors=True)
            datasets = [{"adata": truth.cells[s], "species": s, "name": s, "donor": "donor"} for s in config.species]
            prepare({"datasets": datasets}, place / "store", progress=False)
            truth.orthologs.to_csv(place / "orthologs.tsv", sep="\t", index=False)
            overrides = {"sampling.tokens": 256, "trainer.max_steps": options.steps, "seed": seed}
            pretrain("tiny", place / "store", place / "run", overrides=overrides, progress=False)
        others = tuple(species for species in config.species if species not in group)
        groups = SpeciesGroups(group, others, truth.phylogeny, place / "orthologs.tsv", ())
        planted = set(truth.genes.loc[truth.genes["convergent"], "gene_id"])
        for table in get_args(ContrastTable):
            genes = genes_contrast(
                place / "run", groups, table=table, cells=600, seed=seed, out=place / table, progress=False
            ).genes
            true = genes[group[0]].isin(planted)
            called = genes["fdr"] <= 0.05
            found = {"auroc": float(roc_auc_score(true, genes["contrast"])), "called": float(called[true].mean())}
            found["false"] = float((called & ~true).sum() / max(called.sum(), 1))
            rows.append({"seed": seed, "table": table, "genes": len(genes), "planted": int(true.sum())} | found)
            print(rows[-1], flush=True)
    by_table = pd.DataFrame(rows).groupby("table", sort=False)[["auroc", "called", "false"]]
    shown = by_table.agg(["mean", "min", "max"])
    lines = tuple((name, *values) for name, values in zip(shown.index, shown.to_numpy(), strict=True))
    words = ("AUROC", "least", "most", "planted called", "least", "most", "false among called", "least", "most")
    print_tables([Table(f"8 species, {options.simulations} simulations", ("table", *words), lines)])
    return {"trained": rows}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("coherence")
    one.add_argument("--runs", type=Path, nargs="+", required=True)
    one.add_argument("--sets", type=Path, nargs="+", required=True)
    one.add_argument("--max-sets", type=int, default=0, help="judge at most so many sets of a collection")
    one.add_argument("--context-cells", type=int, default=100, help="cells a label for mean token states; 0 for none")
    two = verbs.add_parser("calibration")
    two.add_argument("--out", type=Path, help="picture to write, without its ending")
    three = verbs.add_parser("rewired")
    four = verbs.add_parser("trained")
    four.add_argument("--out", type=Path, required=True, help="folder for stores and runs")
    four.add_argument("--steps", type=int, default=800, help="steps of pretraining")
    for verb, simulations in ((two, 20), (three, 20), (four, 3)):
        verb.add_argument("--simulations", type=int, default=simulations)
    for verb in (one, two, three, four):
        verb.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    verbs_of = {"coherence": coherence, "calibration": calibration, "rewired": rewired, "trained": trained}
    found = verbs_of[options.verb](options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
