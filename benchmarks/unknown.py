"""Does the unknown score find cells of a type that the reference lacks? Each type is left out in turn.

Usage: LEXICELL_DATA=FOLDER python benchmarks/unknown.py --out FOLDER [--set baron_mouse] [--run RUN ...]
       [--untrained RECIPE] [--seeds 1]
       python benchmarks/unknown.py --out FOLDER --simulated --untrained tiny

In every fold (Baron mouse: either donor), each type with 10 tested cells and 3 to learn from is taken out of the
reference. Printed is the area under the ROC curve, its cells against those of known types, of `lexicell_unknown` and
of 1 - highest probability: of the probe on the same embedding, and of the probe without any model. A run that was
trained with these types' labels knows them: give one that was not. unknown.csv keeps every figure.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
from annotate import SETS, knows, store_of

from lexicell.annotation.methods import ProbeMethod
from lexicell.data.store import Store
from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.evaluation.runner import Competitor, run_benchmark
from lexicell.evaluation.unknown_types import unknown_aurocs, without_each_type
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import Table, print_tables
from lexicell.workflows.benchmark_competitors import method_competitor, novelty_competitor
from lexicell.workflows.benchmark_embeddings import embed_store, model_identity
from lexicell.workflows.benchmark_tasks import store_tasks
from lexicell.workflows.fold_models import untrained_model
from lexicell.workflows.prepare import prepare


def simulated_store(folder: Path) -> Store:
    """Return a store of simulated cells, prepared where it is not there."""
    if not folder.is_dir():
        config = SimulationConfig(
            phylogeny="(simulus_albus:0.2,simulus_niger:0.2);", convergent_species=(), n_cells=600
        )
        adata = simulate(config).cells["simulus_albus"]
        labels = list(config.levels)
        prepare(
            {"datasets": [{"adata": adata, "species": "simulus_albus", "donor": "donor", "labels": labels}]}, folder
        )
    return Store.open(folder)


def competitors_of(name: str, made_of: str, parts: tuple[int, ...]) -> dict[str, Competitor]:
    """Return the unknown score and the probe's confidence on one embedding."""
    return {
        f"{name}, lexicell_unknown": novelty_competitor(name, ProbeMethod(), made_of, parts),
        f"{name}, 1 - max probability": method_competitor(name, ProbeMethod(), made_of, parts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for stores, answers and the table")
    parser.add_argument("--set", default="baron_mouse", choices=SETS, help="which set of benchmarks/annotate.py")
    parser.add_argument("--simulated", action="store_true", help="simulated cells instead of a set")
    parser.add_argument("--run", type=Path, action="append", default=[], help="a pretrained run; once for every one")
    parser.add_argument("--untrained", help="a recipe: an untrained model of its make takes part")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    options = parser.parse_args()
    if options.simulated:
        store, split = simulated_store(options.out / "simulated"), "donor:2"
    elif "LEXICELL_DATA" in os.environ:
        store, split = store_of(options.set, Path(os.environ["LEXICELL_DATA"]), options.out), SETS[options.set][1]
    else:
        parser.error("the variable LEXICELL_DATA does not name the folder with the data")
    models = {run.resolve().name: CellModel.load(run) for run in options.run if knows(run, store)}
    if options.untrained:
        models["untrained"] = untrained_model(options.untrained, store)
    chosen: dict[str, Competitor] = {"no model, 1 - max probability": method_competitor(None, ProbeMethod())}
    arrays = {}
    for name, model in models.items():
        arrays[name] = embed_store(model, store, options.out / "embeddings" / f"{store.name}-{name}.npz")
        chosen |= competitors_of(name, model_identity(model), model.cell_parts)
    task = without_each_type(store_tasks(store, split=split, levels=store.label_levels[-1:])[0])
    bench = run_benchmark(
        [replace(task, embeddings=arrays)], chosen, range(options.seeds), print, options.out / "unknown_answers"
    )
    table = unknown_aurocs(bench.predictions, task)
    table.to_csv(options.out / f"unknown-{store.name}.csv", index=False)
    print_tables([as_table(table, store.name)])


def as_table(table: pd.DataFrame, name: str) -> Table:
    """Return areas per fold and type left out, one column a competitor, and their means."""
    mean = table.groupby(["fold", "n_unknown", "competitor"], sort=False)["auroc"].mean().unstack()  # noqa: PD010
    mean = mean[list(dict.fromkeys(table["competitor"]))]
    rows: list[tuple[object, ...]] = [
        (*key, *map(float, row)) for key, row in zip(mean.index, mean.to_numpy(), strict=True)
    ]
    rows.append((f"mean of {len(mean)}", None, *map(float, mean.mean())))
    return Table(f"{name}: types left out, AUROC", ("fold", "cells", *map(str, mean.columns)), tuple(rows))


if __name__ == "__main__":
    main()
