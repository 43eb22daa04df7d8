"""Short pretraining runs that differ in the optimiser alone: rate, schedule, AdamW against Muon, averaged weights.

Usage: python benchmarks/optimiser_sweep.py --store STORE --out FOLDER --held-out DONOR [--steps 160] [--seeds 2]
           [--figure docs/images/optimiser_sweep]

Every run has the same steps, cells and genes; a finished one is not run again. Figures are of the last look at the
held-out donor.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

import lexicell as lx
from lexicell.reporting.figures import PALETTE, STYLE
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.text import Table, print_tables

SETTINGS: dict[str, dict[str, object]] = {
    "adamw, lr 2e-3, cosine": {},
    "adamw, lr 1e-3, cosine": {"optim.lr": 1e-3},
    "adamw, lr 4e-3, cosine": {"optim.lr": 4e-3},
    "adamw, lr 2e-3, wsd": {"optim.schedule": "wsd"},
    "adamw, lr 2e-3, cosine, average 0.98": {"optim.ema_decay": 0.98},
    "adamw, lr 2e-3, wsd, average 0.98": {"optim.schedule": "wsd", "optim.ema_decay": 0.98},
    "muon, lr 2e-3, cosine": {"optim.optimizer": "muon", "optim.muon_lr_scale": 1.0},
    "muon, lr 4e-3, cosine": {"optim.optimizer": "muon"},
    "muon, lr 8e-3, cosine": {"optim.optimizer": "muon", "optim.muon_lr_scale": 4.0},
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw two losses over the steps, less those of the first setting in the same batches; mean over seeds."""
    columns = {"train/counts": "count cross-entropy", "train/labels": "label loss"}
    first = next(iter(SETTINGS))
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        axes = figure.subplots(1, len(columns))
        for axis, (column, words) in zip(axes, columns.items(), strict=True):
            wide = table.dropna(subset=column).pivot_table(index=["seed", "step"], columns="setting", values=column)
            less = wide.sub(wide[first], axis=0).groupby("step").mean()
            for number, name in enumerate(SETTINGS):
                skill = table.loc[table["setting"] == name, "val/skill"].mean()
                style = "-" if name.startswith("muon") else "--"
                colour = PALETTE[number % len(PALETTE)]
                label = f"{name}: held-out skill {skill:.3f}"
                axis.plot(less.index, less[name], style, color=colour, label=label, linewidth=1.4)
            axis.set(xlabel="step", ylabel=f"{words}, less that of the first")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7.5)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="a store that `lexicell prepare` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--held-out", required=True, help="donor to look at")
    parser.add_argument("--recipe", default="tiny", help="recipe that all settings share")
    parser.add_argument("--steps", type=int, default=160, help="steps a run")
    parser.add_argument("--tokens", type=int, default=256, help="genes a view")
    parser.add_argument("--seeds", type=int, default=2, help="runs a setting")
    parser.add_argument("--figure", type=Path, help="picture of the curves, without its ending")
    parser.add_argument("--at-most", type=int, default=10**6, help="stop after so many new runs")
    options = parser.parse_args()
    shared: dict[str, object] = {
        "trainer.max_steps": options.steps,
        "trainer.val_every": options.steps,
        "sampling.tokens": options.tokens,
        "optim.optimizer": "adamw",
        "data.validation.donors": [options.held_out],
        "data.validation.max_cells": 256,
    }
    rows, curves = [], []
    for seed in range(options.seeds):  # seed by seed, so that what is there first compares all settings
        for name, overrides in SETTINGS.items():
            run = options.out / f"{name.replace(', ', '_').replace(' ', '')}_seed{seed}"
            if not (run / "figures.json").is_file():
                if options.at_most == 0:
                    continue
                options.at_most -= 1
                result = lx.pretrain(
                    options.recipe, [options.store], run, overrides=shared | overrides | {"seed": seed}, progress=False
                )
                (run / "figures.json").write_text(json.dumps(result.fitted.metrics, indent=1) + "\n")
            rows.append((name, json.loads((run / "figures.json").read_text())))
            curves.append(pd.read_csv(run / "metrics.csv").assign(setting=name, seed=seed))
            print(
                name,
                seed,
                {key: round(rows[-1][1][f"val/{key}"], 4) for key in ("skill", "loss", "labels")},
                flush=True,
            )
    table = []
    for name in SETTINGS:
        found = [metrics for setting, metrics in rows if setting == name]
        if not found:
            continue
        cells = [name]
        for key in ("val/skill", "val/loss", "val/labels"):
            values = [metrics[key] for metrics in found]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        table.append(tuple(cells))
    print_tables(
        [Table(f"{options.seeds} seeds, {options.steps} steps", ("", "skill", "loss", "labels"), tuple(table))]
    )
    if options.figure:
        save_figure(draw(pd.concat(curves)), options.figure)


if __name__ == "__main__":
    main()
