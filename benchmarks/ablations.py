"""The recipe's craft: one setting changed at a time, its effect on count skill and on label transfer.

Usage: python benchmarks/ablations.py --store STORE --split donor --out FOLDER [--only TEXT] [--seeds 3] [--steps 300]
       [--extra STORE ...] [--held-out DONOR ...]

Every model sees as many tokens: where views are larger, batches are smaller. Pretraining never sees labels. All
models are asked the same queries of the same held-out cells, shown as the plain recipe shows them; labels are carried
over from donor to donor (or fold to fold) by kNN and by a linear classifier on the frozen embedding.
With --extra there is one more row, pretrained on these stores' cells too, in as many steps; it is judged on --store
alone, as all rows are, and never sees the donors that they do not see.
A finished model is kept in FOLDER and not trained again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd

from lexicell.annotation.scores import macro_f1
from lexicell.data.store import Store
from lexicell.evaluation.runner import run_benchmark
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import WEIGHTS
from lexicell.reporting.text import Table, print_tables
from lexicell.training.datamodule import CellDataModule
from lexicell.training.extension_skill import SkillTask
from lexicell.training.recipe import Recipe, load_recipe
from lexicell.workflows.benchmark_competitors import embedding_competitors
from lexicell.workflows.benchmark_embeddings import embed_store
from lexicell.workflows.benchmark_tasks import store_tasks
from lexicell.workflows.pretrain import pretrain

PLAIN, EXTRA = "plain", "with the extra cells"
SETTINGS: dict[str, dict[str, object]] = {
    PLAIN: {},
    "half the tokens, twice the cells": {"sampling.tokens": 0.5, "data.batch_size": 2},
    "a quarter of the tokens, 4 times the cells": {"sampling.tokens": 0.25, "data.batch_size": 4},
    "an eighth of the tokens, 8 times the cells": {"sampling.tokens": 0.125, "data.batch_size": 8},
    "twice the tokens, half the cells": {"sampling.tokens": 2, "data.batch_size": 0.5},
    "5% of the tokens from the deck": {"sampling.deck_share": 0.05},
    "30% of the tokens from the deck": {"sampling.deck_share": 0.3},
    "10% of the queries from the deck": {"sampling.query_deck_share": 0.1},
    "25% of the queries from the deck": {"sampling.query_deck_share": 0.25},
    "90% of the queries from the deck": {"sampling.query_deck_share": 0.9},
    "twice the queries": {"sampling.queries": 2},
    "tokens drawn by count (0.5)": {"sampling.count_weight": 0.5},
    "tokens drawn by count (1.0)": {"sampling.count_weight": 1.0},
    "thinning of half the cells": {"sampling.thinning": 0.5},
    "no counts from CLS": {"objectives.cls_counts": 0.0},
    "no contrast": {"objectives.contrastive": 0.0},
    "contrast x 5": {"objectives.contrastive": 5},
    "contrast at temperature 0.05": {"objectives.temperature": 0.05},
    "contrast at temperature 0.3": {"objectives.temperature": 0.3},
    "counts exact to 5, then bins": {"model.counts.exact_max": 5},
    "ordinal targets (0.1)": {"objectives.smoothing": 0.1},
    "no marginals to begin with": {"gene_rows.marginal": False},
    "two decoder layers": {"model.decoder_layers": 2},
    "all rates halved": {"optim.lr": 0.5},
    "all rates doubled": {"optim.lr": 2},
    "embeddings at optim.lr": {"optim.embedding_lr_scale": 1.0},
    "AdamW": {"optim.optimizer": "adamw"},
    "Muon at half its rate": {"optim.muon_lr_scale": 0.5},
    "Muon at twice its rate": {"optim.muon_lr_scale": 2},
    "warm-up x 4": {"optim.warmup_steps": 4},
    "no weight decay": {"optim.weight_decay": 0.0},
    "no clipping": {"trainer.grad_clip": float("inf")},
    "averaged weights (0.98)": {"optim.ema_decay": 0.98},
}
RELATIVE = {  # settings that multiply the plain one
    "sampling.tokens",
    "sampling.queries",
    "data.batch_size",
    "objectives.contrastive",
    "optim.lr",
    "optim.muon_lr_scale",
    "optim.warmup_steps",
}


def short_run(width: int, tokens: int, batch: int, steps: int) -> dict[str, object]:
    """Return the overrides of a short run without labels, looked at once, at its end."""
    return {
        "model.encoder.width": width,
        "sampling.tokens": tokens,
        "sampling.queries": 64,
        "data.batch_size": batch,
        "objectives.labels": 0.0,
        "trainer.max_steps": steps,
        "trainer.val_every": steps,
    }


def overrides_of(setting: dict[str, object], plain: Recipe) -> dict[str, object]:
    """Return what a setting changes in the plain recipe."""
    return {key: _times(attrgetter(key)(plain), value) if key in RELATIVE else value for key, value in setting.items()}


def _times(plain: float, value: object) -> float:
    product = plain * float(str(value))
    return max(2, round(product)) if isinstance(plain, int) else product


def donors_held_out(data: CellDataModule) -> list[str]:
    """Return the donors that no model of a store sees."""
    donor = data.collection.column("donor")
    held_out, learned = (set(donor[cells]) for cells in (data.validation_cells, data.training_cells))
    if None in held_out or held_out & learned:
        raise SystemExit(
            f"--extra: {data.held_out} are held out of {data.collection.stores[0].name}, so that the same cells cannot "
            "be held out beside other stores; name donors with --held-out"
        )
    return sorted(held_out)


def wanted(name: str, only: str) -> bool:
    """Return whether a setting was asked for."""
    return any(text in name for text in only.split(";"))


def score(model: CellModel, store: Store, split: str, keep: Path) -> dict[str, float]:
    """Return macro-F1 of kNN and of a linear classifier on the embedding, on the finest level."""
    task = replace(
        store_tasks(store, split=split, levels=store.label_levels[-1:])[0],
        embeddings={"model": embed_store(model, store, keep)},
    )
    scores = run_benchmark([task], embedding_competitors("model", parts=model.cell_parts)).scores(
        {"macro_f1": macro_f1}
    )
    return {row["competitor"].partition(", ")[2]: row["macro_f1"] for row in scores.to_dict("records")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="a store with labels")
    parser.add_argument("--split", default="donor", help="as for `lexicell benchmark annotate`")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and the table")
    parser.add_argument("--recipe", default="tiny", help="the plain recipe")
    parser.add_argument("--steps", type=int, default=300, help="steps of each model")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of the plain setting")
    parser.add_argument("--batch", type=int, default=8, help="cells a batch of the plain setting")
    parser.add_argument("--width", type=int, default=64, help="width of the model")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--only", default="", help="settings whose name holds one of these, with semicolons between")
    parser.add_argument("--extra", type=Path, action="append", default=[], help="a store to pretrain on as well")
    parser.add_argument("--held-out", action="append", default=[], help="a donor to hold out; drawn if none is named")
    options = parser.parse_args()
    store, extra = Store.open(options.store), [Store.open(path) for path in options.extra]
    base = short_run(options.width, options.tokens, options.batch, options.steps)
    base |= {"data.validation.donors": options.held_out} if options.held_out else {}
    plain = load_recipe(options.recipe, base)
    settings = {name: setting for name, setting in SETTINGS.items() if name == PLAIN or wanted(name, options.only)}
    settings |= {EXTRA: {}} if extra else {}
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(options.seeds):
        data = CellDataModule([store], plain.data, plain.sampling, seed)  # holds out the cells that the runs hold out
        for name, setting in settings.items():
            stores, overrides = [store], base | overrides_of(setting, plain) | {"seed": seed}
            if name == EXTRA:
                stores, overrides = [store, *extra], overrides | {"data.validation.donors": donors_held_out(data)}
            among = "+".join(each.name for each in stores)
            run = options.out / f"{among}-{name.replace(' ', '_').replace('%', '')}-{seed}"
            if not (run / WEIGHTS).is_file():
                pretrain(options.recipe, stores, run, overrides=overrides, progress=False)
            model = CellModel.load(run)
            asked = CellDataModule([store], plain.data, plain.sampling, seed, model.spec) if len(stores) > 1 else data
            skill = SkillTask.of(
                asked, asked.training_cells, asked.validation_cells, model.network.count_classes.edges.numpy()
            ).measure(model.network)
            found = {"setting": name, "seed": seed, "skill": skill} | score(
                model, store, options.split, run / "embedding.npy"
            )
            rows.append(found)
            print(found, flush=True)
            pd.DataFrame(rows).to_csv(options.out / f"{store.name}.csv", index=False)
    table = pd.DataFrame(rows)
    against = table[table["setting"] == PLAIN].set_index("seed")
    shown = []
    for name, part in table.groupby("setting", sort=False):
        own = part.set_index("seed")
        cells: list[object] = [name]
        for column in ("skill", "knn", "linear"):
            gap = own[column] - against[column]
            cells += [float(own[column].mean()), f"{gap.mean():+.3f} ({gap.min():+.3f} to {gap.max():+.3f})"]
        shown.append(tuple(cells))
    columns = ("setting", "skill", "against plain", "kNN macro-F1", "against plain", "linear macro-F1", "against plain")
    print_tables([Table(f"{store.name}, {options.seeds} seeds, {options.steps} steps", columns, tuple(shown))])
    np.testing.assert_array_less(-1, table["skill"])  # a model that diverged would hide in a mean


if __name__ == "__main__":
    main()
