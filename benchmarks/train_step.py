"""Where a training step's time goes: data, forward, backward, optimiser; and cells a second.

Usage: python benchmarks/train_step.py --store STORE [--recipe tiny] [--steps 30] [--threads 2] [--json FILE]

The matrix rate is measured in the same run, with the recipe's own shapes, so that the step can be held against it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lexicell.allocator import keep_freed_memory
from lexicell.data.loader import CellStream
from lexicell.data.store import Store
from lexicell.model.checkpoint import ModelSpec
from lexicell.reporting.text import Table, print_tables
from lexicell.training.datamodule import CellDataModule
from lexicell.training.objectives import Forward, build_objectives, total_loss
from lexicell.training.optim import build_optimizer
from lexicell.training.recipe import Recipe, load_recipe

PHASES = ("data", "forward", "backward", "optimiser")


def measure(recipe: Recipe, store: Store, steps: int) -> dict[str, float]:
    """Return the mean seconds of each phase of a step."""
    data = CellDataModule([store], recipe.data, recipe.sampling, recipe.seed)
    stream = data.train_dataloader().dataset
    assert isinstance(stream, CellStream)
    network = ModelSpec(recipe.model, data.lexicon, data.label_tree, data.covariates).build()
    network.initialise(torch.Generator().manual_seed(0))
    objectives = build_objectives(recipe.objectives, network, data.shape.views)
    optimizer = build_optimizer(network, recipe.optim)
    seconds = dict.fromkeys(PHASES, 0.0)

    def timed(phase: str, action: Callable[[], object]) -> object:
        started = time.perf_counter()
        result = action()
        seconds[phase] += time.perf_counter() - started
        return result

    def loss_of(batch) -> torch.Tensor:
        forward = Forward(network, batch)
        return total_loss({o.name: o.loss(forward) for _, o in objectives}, objectives)

    warm_up = max(3, steps // 5)
    for k in range(warm_up + steps):
        if k == warm_up:
            seconds.update(dict.fromkeys(PHASES, 0.0))
        batch = timed("data", lambda k=k: stream.make_batch(k))
        loss = timed("forward", lambda batch=batch: loss_of(batch))
        optimizer.zero_grad(set_to_none=True)
        timed("backward", loss.backward)
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.trainer.grad_clip)
        timed("optimiser", optimizer.step)
    return {phase: value / steps for phase, value in seconds.items()}


def matrix_rate(recipe: Recipe) -> float:
    """Return GFLOP/s of a matrix product of the feed-forward's shape."""
    tokens = recipe.data.batch_size * recipe.sampling.views * (recipe.sampling.tokens + 1)
    width = recipe.model.encoder.width
    hidden = round(width * recipe.model.encoder.mlp_ratio / 16) * 16
    x, w = torch.randn(tokens, width), torch.randn(width, hidden)
    x @ w
    started, n = time.perf_counter(), 20
    for _ in range(n):
        x @ w
    return 2 * tokens * width * hidden * n / (time.perf_counter() - started) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True, help="a store that `lexicell prepare` wrote")
    parser.add_argument("--recipe", default="tiny", help="a shipped recipe or a YAML file")
    parser.add_argument("--steps", type=int, default=30, help="steps to time")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--plain-malloc", action="store_true", help="leave the allocator as it is, for comparison")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.plain_malloc:
        keep_freed_memory()
    recipe = load_recipe(options.recipe)
    seconds = measure(recipe, Store.open(options.store), options.steps)
    total = sum(seconds.values())
    figures = {
        "recipe": options.recipe,
        "threads": torch.get_num_threads(),
        "cells_per_second": recipe.data.batch_size / total,
        "ms_per_step": 1e3 * total,
        "share": {phase: value / total for phase, value in seconds.items()},
        "matrix_gflops": matrix_rate(recipe),
    }
    rows = [(phase, 1e3 * value, f"{value / total:.1%}") for phase, value in seconds.items()]
    rows.append(("whole step", 1e3 * total, f"{figures['cells_per_second']:.1f} cells/s"))
    title = f"{options.recipe}, {torch.get_num_threads()} threads, {figures['matrix_gflops']:.0f} GFLOP/s in matrices"
    print_tables([Table(title, ("phase", "ms", "share"), tuple(rows))])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
