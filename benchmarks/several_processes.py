"""One process against two on a CPU, on the same global batch: cells a second of whole runs.

Usage: python benchmarks/several_processes.py --store STORE --out FOLDER [--recipe tiny] [--steps 30] [--rounds 3]

Rows: one process with one thread, one with two, and two processes of one thread each by DDP and by FSDP2. The batch
(`data.batch_size`) is that of all processes together, so that all rows train the same; AdamW, as FSDP2 takes it by
default. Two cores must be free, or all that is seen is who else computes.

What a CPU shows is the overhead of our own making: gathering, dealing out cells, waiting for each other. How several
GPUs do hangs on how fast they tell each other their gradients, which nothing here measures; so nothing is extrapolated
to them but how much they have to tell.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from lexicell.reporting.text import Table, print_tables

WAYS = {  # processes, threads of each, strategy
    "1 process, 1 thread": (1, 1, "auto"),
    "1 process, 2 threads": (1, 2, "auto"),
    "2 processes, DDP": (2, 1, "ddp"),
    "2 processes, FSDP2": (2, 1, "fsdp"),
}


def facts_of(options: argparse.Namespace, way: str) -> dict[str, Any]:
    """Train for some steps, and return what the run tells."""
    processes, threads, strategy = WAYS[way]
    run = options.out / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [str(Path(sys.executable).parent / "lexicell"), "pretrain", options.recipe, "--store", str(options.store)]
    command += ["--out", str(run), "--trainer.accelerator", "cpu", "--optim.optimizer", "adamw"]
    command += ["--trainer.devices", str(processes), "--trainer.strategy", strategy]
    command += ["--trainer.max_steps", str(options.steps), "--trainer.val_every", str(options.steps)]
    command += ["--data.validation.max_cells", "16", "--trainer.peak_tflops", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    facts: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="a store that `lexicell prepare` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--recipe", default="tiny", help="a shipped recipe or a YAML file")
    parser.add_argument("--steps", type=int, default=30, help="steps a run; the first is not timed")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind, in turn; medians are shown")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    parameters = 0
    for _ in range(options.rounds):
        for way, found in speeds.items():
            facts = facts_of(options, way)
            found.append(facts["cells_per_second"])
            parameters = facts["parameters"]["total"]
    alone = speeds[next(iter(WAYS))]
    rows = []
    for way, found in speeds.items():
        ratios = [speed / one for speed, one in zip(found, alone, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append((way, f"{statistics.median(found):.1f}", ratio))
    title = f"{options.recipe}, {options.steps} steps, {options.rounds} rounds"
    print_tables([Table(title, ("", "cells/s", "of 1 process, 1 thread"), tuple(rows))])
    print(f"Gradients that DDP sums over processes at each step: {4 * parameters / 1e6:,.0f} MB in float32.")
    if options.json:
        options.json.write_text(json.dumps({"parameters": parameters, "cells_per_second": speeds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
