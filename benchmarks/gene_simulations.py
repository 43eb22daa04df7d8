"""Planted truth for `genes.py`: convergent and rewired genes of simulated species, with and without a model."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.sparse import csc_matrix
from sklearn.metrics import roc_auc_score

from lexicell.datasets.simulate import Simulation, SimulationConfig, simulate
from lexicell.evaluation.baselines import log_cpm
from lexicell.gene_space.contrast import contrast_genes
from lexicell.gene_space.displacement import PARTS, compare_groups, split_parts
from lexicell.gene_space.gene_views import half_whitened, pca_loadings, standardised
from lexicell.model.checkpoint import WEIGHTS
from lexicell.randomness import generator
from lexicell.reporting.figures import INK, PALETTE, STYLE
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.text import Table, print_tables
from lexicell.workflows.genes_contrast import genes_contrast
from lexicell.workflows.genes_points import CellTable
from lexicell.workflows.genes_tissue import MEASURES, genes_tissue
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import pretrain
from lexicell.workflows.species_groups import SpeciesGroups

FOUR = "((albus:0.15,niger:0.15):0.35,(echo:0.15,mutus:0.15):0.35);"
EIGHT = "(((a:0.15,b:0.15):0.2,(c:0.15,d:0.15):0.2):0.15,((e:0.15,f:0.15):0.2,(g:0.15,h:0.15):0.2):0.15);"
NOMINAL = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)  # false discovery rates
DESIGNS = {"4 species": (FOUR, ("albus", "echo")), "8 species": (EIGHT, ("a", "c", "e", "g"))}


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


def realised(full: pd.DataFrame) -> pd.DataFrame:
    """Return what was called at every nominal FDR: one row a simulation and level.

    `false` is the share of the calls that are not planted (0 where none is called), `found` that of the planted genes
    called.
    """
    rows = []
    for seed, part in full.groupby("seed"):
        planted = part["planted"].to_numpy(dtype=bool)
        for nominal in NOMINAL:
            called = part["fdr"].to_numpy() <= nominal
            false = float((called & ~planted).sum() / max(called.sum(), 1))
            rows.append({"seed": seed, "nominal": nominal, "false": false, "found": float(called[planted].mean())})
    return pd.DataFrame(rows)


def under_the_null(empty: pd.DataFrame) -> dict[str, float]:
    """Return how often p-values are small, and simulations have a call, with nothing planted."""
    shares = {f"null_p_below_{level:g}": float((empty["p"] <= level).mean()) for level in (0.01, 0.05, 0.2)}
    return shares | {"null_simulations_with_a_call": float((empty["fdr"] <= 0.05).groupby(empty["seed"]).any().mean())}


def calibration(options: argparse.Namespace) -> dict[str, Any]:
    """Simulate with nothing planted, and with 20 convergent genes; draw and return what was called."""
    figures: dict[str, Any] = {}
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
    for design, (tree, group) in DESIGNS.items():
        empty = pd.concat([contrast_once(tree, group, seed, 0) for seed in range(options.simulations)])
        full = pd.concat([contrast_once(tree, group, 1000 + seed, 20) for seed in range(options.simulations)])
        aurocs = [roc_auc_score(part["planted"], part["contrast"]) for _, part in full.groupby("seed")]
        curve = realised(full)
        at_05 = curve[curve["nominal"] == 0.05]
        figures[design] = {
            "simulations": options.simulations,
            **under_the_null(empty),
            "auroc": {"mean": np.mean(aurocs), "least": np.min(aurocs), "most": np.max(aurocs)},
            "planted_called_at_fdr05": float(at_05["found"].mean()),
            "false_share_of_calls": float(at_05["false"].mean()),
            "realised": curve.groupby("nominal")[["false", "found"]].mean().reset_index().to_dict("records"),
        }
        tables[f"{design}: planted genes' AUROC {np.mean(aurocs):.2f}"] = (empty, curve)
        print(design, figures[design], flush=True)
    if options.out:
        save_figure(calibration_figure(tables), options.out)
        curves = pd.concat([curve.assign(design=title.split(":")[0]) for title, (_, curve) in tables.items()])
        curves.to_csv(options.out.with_name(f"{options.out.name}_realised.csv"), index=False)
    return {"calibration": figures}


def calibration_figure(tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """Draw, by title, null p-values against what they should be, and below the realised against the nominal FDR."""
    rows = 2 if any(len(curve) for _, curve in tables.values()) else 1
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(tables), 3.7 * rows), layout="constrained")
        axes = figure.subplots(rows, len(tables), squeeze=False)
        for column, (title, (empty, curve)) in enumerate(tables.items()):
            null_p(axes[0, column], empty)
            axes[0, column].set_title(title)
            if len(curve):
                realised_fdr(axes[1, column], curve)
        if rows == 2:
            figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def null_p(axis: Axes, table: pd.DataFrame) -> None:
    """Draw p-values against their ranks, a line a simulation and one of all."""
    for _, part in table.groupby("seed"):
        p = np.sort(part["p"].to_numpy())
        axis.plot(np.arange(1, len(p) + 1) / len(p), p, color=PALETTE[4], linewidth=0.7, alpha=0.6)
    p = np.sort(table["p"].to_numpy())
    axis.plot(np.arange(1, len(p) + 1) / len(p), p, color=PALETTE[0], label="all simulations")
    axis.plot([1e-4, 1], [1e-4, 1], color=INK, linewidth=1, linestyle="--", label="calibrated")
    axis.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1))
    axis.set(xlabel="expected p, nothing planted", ylabel="observed p")
    axis.legend(loc="upper left")


def realised_fdr(axis: Axes, curve: pd.DataFrame) -> None:
    """Draw the realised share of false calls against the nominal FDR, a line a simulation and their mean."""
    for _, part in curve.groupby("seed"):
        axis.plot(part["nominal"], part["false"], color=PALETTE[1], linewidth=0.7, alpha=0.5)
    mean = curve.groupby("nominal")[["false", "found"]].mean()
    axis.plot(mean.index, mean["false"], color=PALETTE[5], label="false among the called, mean")
    axis.plot(mean.index, mean["found"], color=PALETTE[2], linestyle=":", label="planted genes called, mean")
    axis.plot([0, 0.5], [0, 0.5], color=INK, linewidth=1, linestyle="--", label="calibrated")
    axis.set(xlim=(0, 0.5), ylim=(0, 1), xlabel="nominal FDR, 20 genes planted", ylabel="share")


def rewired(options: argparse.Namespace) -> dict[str, Any]:
    """Find genes that load on another program in the second tissue, from co-expression alone."""
    scores: dict[str, list[float]] = {name: [] for name in MEASURES}
    calls, false, by_model = [], [], []
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
        if options.steps:
            by_model += rewired_in_model(options.out / str(seed), truth, options.steps, seed)
    spread = {n: {"mean": np.mean(v), "least": np.min(v), "most": np.max(v)} for n, v in scores.items()}
    found = spread | {"planted_called": np.mean(calls), "false_share_of_calls": np.mean(false)}
    return {"rewired": found, "in_models": by_model}


def rewired_in_model(place: Path, truth: Simulation, steps: int, seed: int) -> list[dict[str, Any]]:
    """Find them in a model of both species, trained for some steps: one row a table of `genes tissue`."""
    run = short_model(place, truth, {"trainer.max_steps": steps, "seed": seed})
    planted = set(truth.genes.loc[truth.genes["rewired"], "gene_id"])
    rows = []
    for table in get_args(CellTable):
        found = genes_tissue(
            run, by="tissue", table=table, species="albus", cells=2400, seed=seed, out=place / table, progress=False
        ).genes
        true, called = found["gene_id"].isin(planted), found["displacement_fdr"] <= 0.05
        row: dict[str, Any] = {"seed": seed, "table": table, "genes": len(found), "planted": int(true.sum())}
        row |= {
            name: float(roc_auc_score(true, found[f"{name}_excess"])) for name in ("displacement", "rbo", "jaccard")
        }
        rows.append(row | {"planted_called": int((called & true).sum()), "others_called": int((called & ~true).sum())})
        print(rows[-1], flush=True)
    return rows


def trained(options: argparse.Namespace) -> dict[str, Any]:
    """Contrast genes in the tables of models trained on all species; a finished model is not trained again."""
    rows, contrasts = [], []
    tree, group = DESIGNS["8 species"]
    for seed in range(options.simulations):
        config = SimulationConfig(
            phylogeny=tree,
            n_cells=600,
            n_genes=600,
            n_convergent=options.convergent,
            convergent_species=group if options.convergent else (),
            seed=seed,
        )
        truth = simulate(config)
        place = options.out / (str(seed) if options.convergent == 20 else f"{seed} with {options.convergent}")
        run = short_model(place, truth, {"sampling.tokens": 256, "trainer.max_steps": options.steps, "seed": seed})
        truth.orthologs.to_csv(place / "orthologs.tsv", sep="\t", index=False)
        others = tuple(species for species in config.species if species not in group)
        groups = SpeciesGroups(group, others, truth.phylogeny, place / "orthologs.tsv", ())
        planted = set(truth.genes.loc[truth.genes["convergent"], "gene_id"])
        for table in options.tables:
            genes = genes_contrast(
                run, groups, table=table, cells=600, seed=seed, out=place / table, progress=False
            ).genes
            true = genes[group[0]].isin(planted)
            contrasts.append(genes[["contrast", "p", "fdr"]].assign(planted=true, seed=seed, table=table))
            called = genes["fdr"] <= 0.05
            found = {"seed": seed, "table": table, "genes": len(genes), "planted": int(true.sum())}
            found["auroc"] = float(roc_auc_score(true, genes["contrast"])) if true.any() else None
            found["called"] = float(called[true].mean()) if true.any() else None
            found |= {"false": float((called & ~true).sum() / max(called.sum(), 1))}
            rows.append(found | {"p_below_0.05": float((genes["p"] <= 0.05).mean()), "calls": int(called.sum())})
            print(rows[-1], flush=True)
    columns = ["auroc", "called", "false"] if options.convergent else ["p_below_0.05", "calls"]
    shown = pd.DataFrame(rows).groupby("table", sort=False)[columns].agg(["mean", "min", "max"])
    lines = tuple((name, *values) for name, values in zip(shown.index, shown.to_numpy(), strict=True))
    words = tuple(word for name in columns for word in (name.replace("_", " "), "least", "most"))
    title = f"8 species, {options.convergent} convergent genes, {options.simulations} simulations"
    print_tables([Table(title, ("table", *words), lines)])
    whole = pd.concat(contrasts)
    by_table = {name: whole[whole["table"] == name] for name in options.tables}
    if options.convergent:
        curves = {name: realised(part).groupby("nominal")[["false", "found"]].mean() for name, part in by_table.items()}
        return {"trained": rows, "realised": {n: c.reset_index().to_dict("records") for n, c in curves.items()}}
    if options.picture:
        save_figure(calibration_figure({n: (part, pd.DataFrame()) for n, part in by_table.items()}), options.picture)
    return {"trained": rows, "null": {name: under_the_null(part) for name, part in by_table.items()}}


def short_model(place: Path, truth: Simulation, overrides: dict[str, Any]) -> Path:
    """Train `tiny` without labels on the cells of a simulation, unless that was done; return the run's folder."""
    if not (place / "run" / WEIGHTS).is_file():
        shutil.rmtree(place, ignore_errors=True)
        columns = {"donor": "donor", "tissue": {"obs": "tissue"}}
        datasets = [{"adata": own, "species": name, "name": name, **columns} for name, own in truth.cells.items()]
        prepare({"datasets": datasets}, place / "store", progress=False)
        pretrain("tiny", place / "store", place / "run", overrides=overrides, progress=False)
    return place / "run"
