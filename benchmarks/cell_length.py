"""Do longer cells help? The same model, cells and steps; only the number of genes a view differs.

Usage: python benchmarks/cell_length.py --store STORE --split folds:3 --out FOLDER [--tokens 128,512,2048] [--seeds 3]

Skill is asked twice of the same held-out cells: with as many genes shown as the model was trained on, and with as many
as the shortest was. Labels are carried over by kNN and by a linear classifier on the frozen embedding, to which every
expressed gene of a cell contributes whatever the length. A finished model is kept in FOLDER and not trained again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
from ablations import score, short_run

from lexicell.data.store import Store
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import WEIGHTS
from lexicell.reporting.text import Table, print_tables
from lexicell.training.datamodule import CellDataModule
from lexicell.training.extension_skill import SkillTask
from lexicell.training.recipe import load_recipe
from lexicell.workflows.pretrain import pretrain

TOOK = "minutes.txt"  # beside a model: how long it trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="a store with labels")
    parser.add_argument("--split", default="donor", help="as for `lexicell benchmark annotate`")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and the table")
    parser.add_argument("--recipe", default="tiny", help="what all models share")
    parser.add_argument("--tokens", default="128,256,512,1024,2048", help="genes a view")
    parser.add_argument("--steps", type=int, default=300, help="steps of each model")
    parser.add_argument("--batch", type=int, default=8, help="cells a batch")
    parser.add_argument("--width", type=int, default=64, help="width of the model")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    options = parser.parse_args()
    store = Store.open(options.store)
    lengths = [int(text) for text in options.tokens.split(",")]
    rows = []
    for seed in range(options.seeds):
        for tokens in lengths:
            run = options.out / f"{store.name}-{tokens}-{seed}"
            overrides = short_run(options.width, tokens, options.batch, options.steps) | {"seed": seed}
            if not (run / WEIGHTS).is_file():
                began = time.perf_counter()
                pretrain(options.recipe, store, run, overrides=overrides, progress=False)
                (run / TOOK).write_text(f"{(time.perf_counter() - began) / 60:.2f}\n", encoding="utf-8")
            model = CellModel.load(run)
            minutes = float((run / TOOK).read_text(encoding="utf-8"))
            found = {"tokens": tokens, "seed": seed, "minutes": minutes}
            for column, shown in (("skill", tokens), ("skill_short", min(lengths))):
                recipe = load_recipe(options.recipe, overrides | {"sampling.tokens": shown})
                data = CellDataModule([store], recipe.data, recipe.sampling, seed)
                edges = model.network.count_classes.edges.numpy()
                task = SkillTask.of(data, data.training_cells, data.validation_cells, edges)
                found[column] = task.measure(model.network)
            found |= score(model, store, options.split, run / "embedding.npy")
            rows.append(found)
            print(found, flush=True)
            pd.DataFrame(rows).to_csv(options.out / f"{store.name}.csv", index=False)
    table = pd.DataFrame(rows)
    columns = ["skill", "skill_short", "knn", "linear", "minutes"]
    shown_rows = [
        (tokens, *(f"{part[name].mean():.3f} ({part[name].min():.3f}-{part[name].max():.3f})" for name in columns))
        for tokens, part in table.groupby("tokens")
    ]
    names = ("genes a view", "skill", f"skill, {min(lengths)} shown", "kNN macro-F1", "linear macro-F1", "minutes")
    print_tables([Table(f"{store.name}, {options.seeds} seeds, {options.steps} steps", names, tuple(shown_rows))])


if __name__ == "__main__":
    main()
