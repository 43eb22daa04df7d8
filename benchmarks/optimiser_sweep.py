"""Short pretraining runs that differ in the optimiser alone: rate, schedule, AdamW against Muon, averaged weights.

Usage: python benchmarks/optimiser_sweep.py --store STORE --out FOLDER --held-out DONOR [--steps 160] [--seeds 2]
           [--figure docs/images/optimiser_sweep]
       python benchmarks/optimiser_sweep.py --store STORE --out FOLDER --held-out DONOR --widths 32,64,128
           [--rates 5e-4,1e-3,2e-3,4e-3,8e-3] [--optimizer muon] [--steps 160] [--seeds 2]

Every run has the same steps, cells and genes; a finished one is not run again. Figures are of the last look at the
held-out donor.

With --widths the question is whether a rate carries from one width to another: each width at each rate, with
`optim.base_width` at the first width and without, and the best rate of each width by skill. Where rates carry, the
best one is the same in every row.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import product
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


def finished(options: argparse.Namespace, name: str, overrides: dict[str, object], seed: int) -> Path | None:
    """Return the folder of a run, made if need be; None where no more are to be made."""
    run: Path = options.out / f"{name.replace(', ', '_').replace(' ', '')}_seed{seed}"
    if not (run / "figures.json").is_file():
        if options.at_most == 0:
            return None
        options.at_most -= 1
        shared: dict[str, object] = {
            "trainer.max_steps": options.steps,
            "trainer.val_every": options.steps,
            "sampling.tokens": options.tokens,
            "optim.optimizer": options.optimizer,
            "data.validation.donors": [options.held_out],
            "data.validation.max_cells": 256,
        }
        result = lx.pretrain(
            options.recipe, [options.store], run, overrides=shared | overrides | {"seed": seed}, progress=False
        )
        (run / "figures.json").write_text(json.dumps(result.fitted.metrics, indent=1) + "\n")
    return run


def figures_of(run: Path) -> dict[str, float]:
    """Return the figures of a run, and show the main ones."""
    figures: dict[str, float] = json.loads((run / "figures.json").read_text())
    keys = [key for key in ("skill", "loss", "labels") if f"val/{key}" in figures]
    print(run.name, {key: round(figures[f"val/{key}"], 4) for key in keys}, flush=True)
    return figures


def spread(values: list[float]) -> str:
    """Return mean and range."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def compare_settings(options: argparse.Namespace) -> None:
    """Compare optimisers, rates and schedules."""
    rows, curves = [], []
    for seed in range(options.seeds):  # seed by seed, so that what is there first compares all settings
        for name, overrides in SETTINGS.items():
            run = finished(options, name, overrides, seed)
            if run is not None:
                rows.append((name, figures_of(run)))
                curves.append(pd.read_csv(run / "metrics.csv").assign(setting=name, seed=seed))
    table = []
    for name in SETTINGS:
        found = [metrics for setting, metrics in rows if setting == name]
        if found:
            keys = ("val/skill", "val/loss", "val/labels")
            table.append((name, *(spread([metrics[key] for metrics in found]) for key in keys)))
    print_tables(
        [Table(f"{options.seeds} seeds, {options.steps} steps", ("", "skill", "loss", "labels"), tuple(table))]
    )
    if options.figure:
        save_figure(draw(pd.concat(curves)), options.figure)


def compare_widths(options: argparse.Namespace) -> None:
    """Compare the best rate of each width, where rates follow the width and where they do not."""
    widths = [int(text) for text in options.widths.split(",")]
    rates = [float(text) for text in options.rates.split(",")]
    table = []
    for base_width in (widths[0], 0):
        for width in widths:
            skill: dict[float, list[float]] = {}
            for rate, seed in product(rates, range(options.seeds)):
                name = f"{options.optimizer}, width {width}, lr {rate:g}, base {base_width}"
                if width == base_width:  # there it changes nothing
                    name = f"{options.optimizer}, width {width}, lr {rate:g}, base 0"
                overrides = {"model.encoder.width": width, "optim.lr": rate, "optim.base_width": base_width}
                run = finished(options, name, overrides, seed)
                if run is not None:
                    skill.setdefault(rate, []).append(figures_of(run)["val/skill"])
            if skill:
                means = {rate: statistics.mean(values) for rate, values in skill.items()}
                best = max(means, key=lambda rate: means[rate])
                known = [f"{means[rate]:.3f}" if rate in means else "-" for rate in rates]
                table.append((width, base_width or "off", f"{best:g}", spread(skill[best]), *known))
    columns = ("width", "base_width", "best lr", "its skill", *(f"skill at {rate:g}" for rate in rates))
    print_tables([Table(f"{options.optimizer}, {options.seeds} seeds, {options.steps} steps", columns, tuple(table))])


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
    parser.add_argument("--widths", default="", help="compare these widths at --rates instead, with commas between")
    parser.add_argument("--rates", default="5e-4,1e-3,2e-3,4e-3,8e-3", help="optim.lr to try at each width")
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"), help="of all that name no other")
    options = parser.parse_args()
    if options.widths:
        compare_widths(options)
    else:
        compare_settings(options)


if __name__ == "__main__":
    main()
