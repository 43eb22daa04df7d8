"""A species joins a network: what its cells are called by how its rows were set, beside controls, over seeds.

Usage: python benchmarks/species_network.py --data FOLDER --out FOLDER [--seeds 3] [--control-seeds 1] [--methods A;B]
           [--steps 500] [--cells 1000] [--json FILE]

Baron mouse is pretrained with labels (`cell_ontology_id`); Baron human joins without labels and without orthologs.
Scored over the types that both have; orthologs are only scored by. Methods:

- coupling: rows as `lexicell extend` sets them.
- shared symbols: genes of one symbol are given as pairs (`--rows.method symbols`).
- profile: rows from old genes of a like expression profile (`--rows.method profile`).
- random rows: those rows, dealt out anew among the genes.
- shuffled counts: the coupling, each human gene's values shuffled among the cells. Must fail.
- both from scratch: one model pretrained on both species at once, for as many steps as all of these take.

A finished run in --out is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import anndata as ad
import numpy as np
import pandas as pd
from annotate import COORDINATES
from scipy.sparse import csr_matrix
from species import LABEL as LEVEL
from species import ORTHOLOGS

import lexicell as lx
from lexicell.data.store import Store
from lexicell.model.checkpoint import WEIGHTS
from lexicell.randomness import generator
from lexicell.reporting.text import Table, print_tables
from lexicell.training.species_rows import NewGeneRows, new_gene_rows
from lexicell.workflows.extend_result import ExtendResult
from lexicell.workflows.species_measures import HEAD, KNN, score_shared

TOKENS = 256
PHASES = {"phase1.steps": 300, "phase1.val_every": 300, "phase2.steps": 100, "phase2.val_every": 100}
SCRATCH, SHUFFLED, RANDOM = "both from scratch", "shuffled counts", "random rows"
METHODS: dict[str, dict[str, object]] = {
    "coupling": {},
    "shared symbols": {"rows.method": "symbols"},
    "profile": {"rows.method": "profile"},
    RANDOM: {"rows.method": "profile"},
    SHUFFLED: {},
}
PRINCIPAL = ("coupling", "shared symbols")  # over all seeds; controls over fewer
STEPS = {"rows": "rows set", "phase1": "after phase 1", "phase2": "after phase 2"}


def shuffled(cells: ad.AnnData, seed: int) -> ad.AnnData:
    """Shuffle each gene's counts among the cells."""
    counts = generator(seed, "shuffled").permuted(cells.X.toarray(), axis=0)
    return ad.AnnData(csr_matrix(counts), obs=cells.obs.copy(), var=cells.var.copy())


def prepared(data: Path, out: Path) -> dict[str, Path]:
    """Return the stores: mouse, human, human without labels, human with shuffled counts."""
    cells = {name: ad.read_h5ad(data / f"pancreas/baron_{name}_raw.h5ad") for name in COORDINATES}
    entries = {
        "mouse": ("mouse", cells["mouse"], [LEVEL]),
        "human": ("human", cells["human"], [LEVEL]),
        "human without labels": ("human", cells["human"], []),
        SHUFFLED: ("human", shuffled(cells["human"], 0), [LEVEL]),
    }
    stores = {}
    for name, (species, adata, labels) in entries.items():
        stores[name] = out / "stores" / name.replace(" ", "_")
        if not stores[name].is_dir():
            genes = (data / COORDINATES[species]).resolve()
            entry = {"adata": adata, "species": species, "genes": str(genes), "unmatched": "keep", "name": species}
            lx.prepare({"datasets": [entry | {"labels": labels}]}, stores[name], progress=False)
    return stores


def dealt_anew(*arguments: Any, **options: Any) -> NewGeneRows:
    """Set rows, and deal them out anew among the new genes."""
    found = new_gene_rows(*arguments, **options)
    return replace(found, rows=generator(options["seed"], "rows dealt anew").permutation(found.rows))


def extended(
    method: str, stores: dict[str, Path], run: Path, out: Path, seed: int, options: argparse.Namespace
) -> ExtendResult:
    """Let human join a run."""
    if (out / WEIGHTS).is_file():
        return ExtendResult.read(out)
    store = stores[SHUFFLED if method == SHUFFLED else "human"]
    overrides = PHASES | METHODS[method] | {"measure.cells": options.cells, "measure.reference": options.cells}
    rows_by = dealt_anew if method == RANDOM else new_gene_rows
    with mock.patch("lexicell.workflows.extend.new_gene_rows", rows_by):
        return lx.extend(
            run,
            store,
            out,
            truth_levels=LEVEL,
            orthologs=options.data / ORTHOLOGS,
            overrides=overrides | {"seed": seed},
            progress=False,
        )


def figures_of(result: ExtendResult) -> Iterator[dict[str, Any]]:
    """Yield a line a step of an extension: how new cells are called, what old ones lost."""
    for step, words in STEPS.items():
        found = result.steps[step]
        line = {"step": words, "skill": found["new_species"]["skill"], "ortholog_auc": found["orthologs"]["auc"]}
        for method, scores in found["new_species"]["methods"].items():
            line |= flat(method, scores[LEVEL])
        line["mouse skill"] = found["old_species"]["skill"]
        line["mouse label_head macro_f1"] = found["old_species"]["methods"][HEAD][LEVEL]["macro_f1"]
        yield line


def flat(method: str, scores: dict[str, Any]) -> dict[str, float]:
    """Name a method's scores."""
    unsure = scores["unknown"]["unsure"]["auroc"]
    return {f"{method} {key}": scores[key] for key in ("accuracy", "macro_f1")} | {f"{method} unknown": unsure}


def both_from_scratch(stores: dict[str, Path], out: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Pretrain on both species at once, human without labels, and call human cells."""
    if not (out / WEIGHTS).is_file():
        steps = options.steps + PHASES["phase1.steps"] + PHASES["phase2.steps"]
        overrides = {"sampling.tokens": TOKENS, "trainer.max_steps": steps, "trainer.val_every": steps, "seed": seed}
        both = [stores["mouse"], stores["human without labels"]]
        lx.pretrain("tiny", both, out, overrides=overrides, progress=False)
    human = ad.read_h5ad(options.data / "pancreas/baron_human_raw.h5ad")
    human = human[np.sort(generator(seed, "new").permutation(human.n_obs)[: options.cells])].to_memory()
    mouse = Store.open(stores["mouse"])
    truth = human.obs[LEVEL].astype(object).reset_index(drop=True)
    line: dict[str, Any] = {"step": "trained"}
    for name, method, reference in ((HEAD, "head", None), (KNN, "knn", mouse)):
        found = lx.annotate(out, human, reference, LEVEL, method=method, species="human", seed=seed, progress=False)
        obs = found.adata.obs.reset_index(drop=True)
        called, sure = obs[f"lexicell_{LEVEL}"].astype(object), obs[f"lexicell_{LEVEL}_prob"].to_numpy()
        line |= flat(name, score_shared(truth, called, mouse_types(options.data), {"unsure": 1 - sure}))
    return line


def mouse_types(data: Path) -> list[str]:
    """Return the types that mouse has."""
    return sorted(set(ad.read_h5ad(data / "pancreas/baron_mouse_raw.h5ad", backed="r").obs[LEVEL].astype(str)))


def tables_of(table: pd.DataFrame) -> Iterator[Table]:
    """Yield mean and range over seeds: of each way to call cells, and of all else."""
    measures = [name for name in table.columns if name not in {"method", "seed", "step"}]
    parts = {way: [name for name in measures if name.startswith(way)] for way in (HEAD, KNN)}
    parts["all else"] = [name for name in measures if not name.startswith((HEAD, KNN))]
    for title, own in parts.items():
        rows = []
        for (method, step), part in table.groupby(["method", "step"], sort=False):
            cells = []
            for measure in own:
                values = part[measure].dropna()
                spread = f" ({values.min():.3f}-{values.max():.3f})" if len(values) > 1 else ""
                cells.append(f"{values.mean():.3f}{spread}" if len(values) else "-")
            rows.append((method, step, len(part), *cells))
        names = (measure.removeprefix(f"{title} ") for measure in own)
        yield Table(f"Human joins mouse: {title}", ("rows by", "step", "seeds", *names), tuple(rows))


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with pancreas/, coords/ and orthologs/")
    parser.add_argument("--out", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--methods", help="names, with semicolons between; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of coupling and shared symbols")
    parser.add_argument("--control-seeds", type=int, default=1, help="seeds of all else")
    parser.add_argument("--steps", type=int, default=500, help="steps of pretraining")
    parser.add_argument("--cells", type=int, default=1000, help="cells looked at, of new, reference and held-out ones")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    wanted = options.methods.split(";") if options.methods else [*METHODS, SCRATCH]
    stores, lines = prepared(options.data, options.out), []
    for seed in range(options.seeds):
        run = options.out / f"mouse-{seed}"
        if not (run / WEIGHTS).is_file():
            overrides = {"sampling.tokens": TOKENS, "trainer.max_steps": options.steps, "seed": seed}
            lx.pretrain("tiny", stores["mouse"], run, overrides=overrides, progress=False)
        for method in wanted:
            if method not in PRINCIPAL and seed >= options.control_seeds:
                continue
            out = options.out / f"{method.replace(' ', '_')}-{seed}"
            if method == SCRATCH:
                found = [both_from_scratch(stores, out, seed, options)]
            else:
                found = list(figures_of(extended(method, stores, run, out, seed, options)))
            for line in found:
                lines.append({"method": method, "seed": seed} | line)
                print(lines[-1], flush=True)
    table = pd.DataFrame(lines)
    print_tables(list(tables_of(table)))
    if options.json:
        options.json.write_text(json.dumps(table.to_dict("records"), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
