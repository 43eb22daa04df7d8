"""The demo over several seeds: mean and range of skill, annotation scores, and minutes.

Usage: python benchmarks/demo_seeds.py --out FOLDER [--seeds 3] [--json FILE]

Donors are fixed (mouse1 is the reference, mouse2 is held out), so the spread is that of the seed alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from lexicell.reporting.text import Table, print_tables
from lexicell.workflows.demo import METHODS, demo


def spread(values: list[float]) -> dict[str, float]:
    """Return mean, least and most."""
    return {"mean": float(np.mean(values)), "least": float(np.min(values)), "most": float(np.max(values))}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the spread of every figure over the runs."""
    return {
        "seeds": len(runs),
        "skill": {name: spread([run["skill"][name] for run in runs]) for name in runs[0]["skill"]},
        "annotation": {
            method: {
                score: spread([run["annotation"][method][score] for run in runs]) for score in ("accuracy", "macro_f1")
            }
            for method in METHODS
        },
        "cells_per_second": spread([run["pretraining"]["cells_per_second"] for run in runs]),
        "minutes": spread([sum(run["seconds"].values()) / 60 for run in runs]),
    }


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; a finished one is not run again")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    runs = [demo(options.out / f"seed{seed}", seed=seed).figures() for seed in range(options.seeds)]
    figures = summarise(runs)

    def row(name: str, one: dict[str, float]) -> tuple[object, ...]:
        return (name, *(f"{one[key]:.3f}" for key in ("mean", "least", "most")))

    rows = [row(f"skill, {name}", one) for name, one in figures["skill"].items()]
    for method, scores in figures["annotation"].items():
        rows += [row(f"{method}, {name}", one) for name, one in scores.items()]
    rows += [row("cells/s in training", figures["cells_per_second"]), row("minutes", figures["minutes"])]
    print_tables([Table(f"The demo over {options.seeds} seeds", ("", "mean", "least", "most"), tuple(rows))])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
