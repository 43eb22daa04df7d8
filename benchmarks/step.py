"""A training step of every preset: speed, memory, and the share of what the device's matrix products allow.

Usage: python benchmarks/step.py [--recipes tiny,small,base,large] [--dtypes float32,bfloat16] [--device cpu]
       [--cells N] [--rounds 5] [--seconds 120] [--threads N] [--compile] [--views 2] [--json FILE]

The bound is the time of the step's matrix products and attentions alone, forwards and backwards, each measured at its
own shape and type in the same process, in turn with whole steps, so that the share holds on a busy machine too. What
is left is said by the profiler: everything that is no matrix product and no attention, and the optimiser, to which
all counts that it runs, also the matrix products of Muon, which are not in the bound. The share of the matmul rate is
that of a large square product, measured in turn with the steps as well. On a GPU, MFU is stated too.

Each recipe and type runs in a process of its own, with made-up cells over the 32,285 genes of the 10x mouse reference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from process_clock import clock, peak_bytes
from torch.profiler import ProfilerActivity, profile

from lexicell.allocator import keep_freed_memory
from lexicell.batch import CellBatch
from lexicell.model.flops import AttentionCall, Operation, StepShape, step_operations, training_flops
from lexicell.model.network import CellNetwork
from lexicell.reporting.text import Table, print_tables
from lexicell.training.compilation import compile_blocks
from lexicell.training.objectives import Forward, build_objectives, freeze_unused, total_loss
from lexicell.training.optim import build_optimizer
from lexicell.training.recipe import Recipe, load_recipe
from lexicell.training.throughput import Utilisation, measured_rate, peak_rate

MOUSE_GENES = 32_285
CELLS_ON_CPU = {"tiny": 8, "small": 2, "base": 1, "large": 1}
CELLS_ON_GPU = {"tiny": 512, "small": 128, "base": 32, "large": 8}
PHASES = ("forward", "backward", "optimiser")
REST = "element by element, norms, copies"
KINDS = {  # of the profiler's operations in forward and backward, by what their names hold; the first that fits
    "attention": ("scaled_dot_product", "flash", "fmha"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "gemm", "cutlass", "cublas"),
    "gathers": ("embedding", "index", "scatter", "gather"),
}


def made_up_cells(cells: int, views: int, tokens: int, queries: int, n_genes: int, device: str) -> CellBatch:
    """Return cells with distinct genes and Poisson counts."""
    generator = torch.Generator().manual_seed(0)
    n = views * tokens + queries
    genes = torch.stack([torch.randperm(n_genes, generator=generator)[:n] for _ in range(cells)])
    counts = torch.poisson(torch.ones(cells, n), generator=generator).long()
    shown = [x[:, : views * tokens].reshape(cells, views, tokens).transpose(0, 1).contiguous() for x in (genes, counts)]
    asked = [x[:, views * tokens :].contiguous() for x in (genes, counts)]
    none = torch.zeros(cells, 0, dtype=torch.long)
    return CellBatch(*shown, *asked, counts.sum(1).float(), none, none, torch.arange(cells)).to(device)


class Step:
    """One step of training, with a clock."""

    def __init__(self, recipe: Recipe, cells: int, views: int, dtype: torch.dtype, device: str) -> None:
        sampling = recipe.sampling
        self.device, self.dtype = device, dtype
        self.network = CellNetwork(recipe.model, MOUSE_GENES)
        self.network.initialise(torch.Generator().manual_seed(0))
        self.network.to(device)
        self.batch = made_up_cells(cells, views, sampling.tokens, sampling.queries, MOUSE_GENES, device)
        freeze_unused(self.network, recipe.objectives, views)
        self.objectives = build_objectives(recipe.objectives, self.network, views)
        self.optimizer = build_optimizer(self.network, recipe.optim)
        self.shape = StepShape(
            cells=cells,
            tokens=sampling.tokens,
            queries=sampling.queries,
            views=views,
            n_classes=self.network.count_classes.n_classes,
        )

    def precision(self) -> AbstractContextManager[Any]:
        """Return mixed precision, or none for float32."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device, self.dtype)

    def run(self) -> tuple[float, ...]:
        """Take a step; return the seconds of its phases."""
        times = [clock(self.device)]
        loss = self.loss()
        times.append(clock(self.device))
        loss.backward()
        times.append(clock(self.device))
        self.update()
        times.append(clock(self.device))
        return tuple(after - before for before, after in pairwise(times))

    def loss(self) -> torch.Tensor:
        """Go forward."""
        with self.precision():
            forward = Forward(self.network, self.batch)
            return total_loss({o.name: o.loss(forward) for _, o in self.objectives}, self.objectives)

    def update(self) -> None:
        """Clip the gradient and let the optimiser step."""
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def alone(operation: Operation, dtype: torch.dtype, device: str) -> Callable[[], None]:
    """Return what computes one operation with its gradients, and nothing else."""

    def drawn(*shape: int, gradient: bool = True) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype).requires_grad_(gradient)

    if isinstance(operation, AttentionCall):
        cells, heads = operation.cells, operation.heads
        q = drawn(cells, heads, operation.queries, operation.width)
        k, v = (drawn(cells, heads, operation.keys, operation.width) for _ in range(2))
        out_gradient = torch.randn_like(q)

        def attend() -> None:
            torch.autograd.grad(F.scaled_dot_product_attention(q, k, v), (q, k, v), out_gradient)

        return attend
    x = drawn(operation.batch, operation.rows, operation.inputs, gradient=False).squeeze(0)
    w = drawn(operation.batch, operation.outputs, operation.inputs, gradient=False).squeeze(0)
    y = x @ w.mT

    def multiply() -> None:
        torch.matmul(x, w.mT)
        torch.matmul(y.mT, x)
        if operation.gradients > 1:
            torch.matmul(y, w)

    return multiply


def seconds_of(action: Callable[[], None], device: str) -> float:
    """Return the time of an action, repeated until the clock can see it."""
    begun, n = clock(device), 0
    while n < 1 or (time.perf_counter() - begun < 0.005 and n < 100):
        action()
        n += 1
    return (clock(device) - begun) / n


def where_it_goes(step: Step) -> dict[str, float]:
    """Return the share of a step's time by kind of operation, as the profiler sees it."""
    shares = dict.fromkeys((*KINDS, "optimiser", REST), 0.0)
    for name, took in profiled(lambda: step.loss().backward(), step.device):
        kinds = (kind for kind, words in KINDS.items() if any(word in name for word in words))
        shares[next(kinds, REST)] += took
    shares["optimiser"] = sum(took for _, took in profiled(step.update, step.device))
    total = sum(shares.values())
    return {kind: took / total for kind, took in shares.items()}


def profiled(action: Callable[[], None], device: str) -> list[tuple[str, float]]:
    """Return name and own time of every operation in an action."""
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        action()
        clock(device)
    events = profiler.key_averages()
    return [(event.key, event.self_device_time_total if on_gpu else event.self_cpu_time_total) for event in events]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one recipe at one type, in this process."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device, dtype = options.device, getattr(torch, options.dtypes)
    recipe = load_recipe(options.recipes)
    cells = options.cells or (CELLS_ON_GPU if device == "cuda" else CELLS_ON_CPU).get(options.recipes, 1)
    if device == "cpu":
        keep_freed_memory()
    step = Step(recipe, cells, options.views, dtype, device)
    compiled = compile_blocks(step.network, "on" if options.compile else "off", device)
    step.run()
    step.run()
    memory = peak_bytes(device)

    operations = [o for o in step_operations(recipe.model, step.shape) if o.forward > 0]
    actions = {o: alone(o, dtype, device) for o in operations}
    phases: list[tuple[float, ...]] = []
    took: dict[Operation, list[float]] = {o: [] for o in operations}
    matmul: list[float] = []
    for action in actions.values():
        action()
    begun = time.perf_counter()
    while len(phases) < options.rounds and (not phases or time.perf_counter() - begun < options.seconds):
        phases.append(step.run())
        matmul.append(measured_rate(torch.device(device), dtype))
        for operation, action in actions.items():
            took[operation].append(seconds_of(action, device))
    rounds = len(phases)
    bound = sum(o.n * statistics.median(took[o]) for o in operations)
    attention = sum(o.n * statistics.median(took[o]) for o in operations if isinstance(o, AttentionCall))
    seconds = statistics.median(sum(phase) for phase in phases)
    # Step against bound, round by round: what disturbs the machine for a while disturbs both.
    shares = [sum(o.n * took[o][k] for o in operations) / sum(phases[k]) for k in range(rounds)]
    flops = training_flops(operations)
    figures = {
        "recipe": options.recipes,
        "dtype": options.dtypes,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "compiled": compiled,
        "cells": cells,
        "views": options.views,
        "tokens": recipe.sampling.tokens,
        "queries": recipe.sampling.queries,
        "optimizer": recipe.optim.optimizer,
        "rounds": rounds,
        "seconds_per_step": seconds,
        "cells_per_second": cells / seconds,
        "tokens_per_second": cells * options.views * (recipe.sampling.tokens + 1) / seconds,
        "phases": {name: statistics.median(phase[k] for phase in phases) / seconds for k, name in enumerate(PHASES)},
        "gflops_per_step": flops / 1e9,
        "achieved_gflops": flops / seconds / 1e9,
        "bound_gflops": flops / bound / 1e9,
        "attention_in_bound": attention / bound,
        "matmul_gflops": statistics.median(matmul) / 1e9,
        "share_of_matmul": statistics.median(flops / sum(phases[k]) / matmul[k] for k in range(rounds)),
        "share_of_bound": statistics.median(shares),
        "share_of_bound_range": [min(shares), max(shares)],
        "peak_memory_mb": memory / 2**20,
        "where": where_it_goes(step),
    }
    if device == "cuda":
        peak = peak_rate(torch.device(device), dtype)
        figures["mfu"] = Utilisation(flops / cells, peak).mfu(cells / seconds)
        figures["peak"] = f"{peak.flops / 1e12:.0f} TFLOP/s ({peak.source})"
    return figures


def in_own_process(options: argparse.Namespace, recipe: str, dtype: str) -> dict[str, Any]:
    """Measure one recipe at one type in a fresh process, whose peak of memory is its own."""
    command = [sys.executable, __file__, "--child", "--recipes", recipe, "--dtypes", dtype, "--device", options.device]
    for name in ("cells", "rounds", "seconds", "threads", "views"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--compile"] if options.compile else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="tiny,small,base,large", help="shipped recipes, with commas between")
    parser.add_argument("--dtypes", default="float32", help="float32, bfloat16, with commas between")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--cells", type=int, default=0, help="cells in a batch; 0 takes a size that fits most machines")
    parser.add_argument("--views", type=int, default=2, choices=(1, 2), help="views of each cell")
    parser.add_argument("--rounds", type=int, default=5, help="steps that are timed; medians are shown")
    parser.add_argument("--seconds", type=float, default=120, help="no new round after so long; one is always made")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options)))
        return
    found = [
        in_own_process(options, recipe, dtype)
        for recipe in options.recipes.split(",")
        for dtype in options.dtypes.split(",")
    ]
    rows, rest = [], []
    for one in found:
        name = f"{one['recipe']}, {one['dtype']}"
        low, high = one["share_of_bound_range"]
        mfu = (f"{one['mfu']:.1%} of {one['peak']}",) if "mfu" in one else ()
        rows.append(
            (
                name,
                f"{one['cells']} x {one['views']} x {one['tokens']}",
                f"{one['cells_per_second']:.2f}",
                f"{one['tokens_per_second']:,.0f}",
                f"{one['achieved_gflops']:,.0f} of {one['bound_gflops']:,.0f}",
                f"{one['share_of_bound']:.0%} ({low:.0%} to {high:.0%})",
                f"{one['share_of_matmul']:.0%} of {one['matmul_gflops']:,.0f}",
                *mfu,
                f"{one['peak_memory_mb']:,.0f}",
            )
        )
        phases = [one["phases"][phase] for phase in ("forward", "backward")]
        rest.append((name, *(f"{share:.0%}" for share in (*phases, *one["where"].values()))))
    columns = ["", "cells x views x genes", "cells/s", "tokens/s", "GFLOP/s", "of the bound", "of a large matmul"]
    columns += ["MFU"] * ("mfu" in found[0]) + ["peak MB"]
    title = f"Training steps on {found[0]['device']}" + (", compiled" if options.compile else "")
    print_tables(
        [
            Table(title, tuple(columns), tuple(rows)),
            Table("Where the time goes", ("", "forward", "backward", *found[0]["where"]), tuple(rest)),
        ]
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
