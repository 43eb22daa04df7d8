"""A reference of many genes and a query of few: is the loss that comes the one that was foretold?

Usage: LEXICELL_DATA=FOLDER python benchmarks/panels.py --out FOLDER (--run RUN | --untrained RECIPE)
       [--sizes 1000,500,250,100,50] [--fold 0]

Reference are four fifths of Zeisel's cells, the query is the rest (one of five folds, stratified by the finest level),
cut to genes drawn at random, and to those that the MOp panel shares with it. `annotate` says before the run what
macro-F1 to expect; beside it stands what the probe then reaches. panels.csv keeps the table.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from annotate import store_of

from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.reporting.text import Table, print_tables
from lexicell.workflows.benchmark_panels import compare_panel_losses
from lexicell.workflows.benchmark_tasks import store_tasks
from lexicell.workflows.fold_models import species_of, subset, untrained_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for stores and the table")
    parser.add_argument("--run", type=Path, help="a pretrained run")
    parser.add_argument("--untrained", help="a recipe: an untrained model of its make, in place of a run")
    parser.add_argument("--sizes", default="1000,500,250,100,50", help="genes drawn, with commas between")
    parser.add_argument("--fold", type=int, default=0, help="which of the five folds is the query")
    options = parser.parse_args()
    if "LEXICELL_DATA" not in os.environ:
        parser.error("the variable LEXICELL_DATA does not name the folder with the data")
    if (options.run is None) == (options.untrained is None):
        parser.error("give either --run or --untrained")
    data = Path(os.environ["LEXICELL_DATA"])
    store, other = (store_of(name, data, options.out) for name in ("zeisel", "mop"))
    model = CellModel.load(options.run) if options.run else untrained_model(options.untrained, store)
    fold = store_tasks(store, split="folds:5")[-1].folds[options.fold]
    reference, query = subset(store, fold.train), subset(store, fold.test)
    panels = {}
    for size in sorted(map(int, options.sizes.split(",")), reverse=True):
        drawn = generator(0, "panel", size).permutation(query.n_vars)[:size]
        panels[f"{size} at random"] = list(query.var_names[np.sort(drawn)])
    panels["MOp's"] = [gene for gene in query.var_names if gene in set(other.to_anndata(np.arange(1)).var_names)]
    species = species_of(store)
    table = compare_panel_losses(
        model, query, reference, list(store.label_levels), panels, species=species, reference_species=species
    )
    table.to_csv(options.out / "panels.csv", index=False)
    rows = tuple(tuple(row) for row in table.itertuples(index=False))
    print_tables([Table("Macro-F1 with fewer genes: said before the run, and actual", tuple(table.columns), rows)])


if __name__ == "__main__":
    main()
