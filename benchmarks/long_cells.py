"""Long cells: what training on and embedding 2,048 to 16,384 genes a cell takes, in memory and in time.

Usage: python benchmarks/long_cells.py [--width 64] [--layers 2] [--heads 1] [--lengths 2048,4096,8192,16384]
       [--device cpu] [--dtype float32] [--threads N] [--project-to WIDTHxLAYERS] [--json FILE]

Every length runs in a process of its own: one cell, one view, in training with and without activation checkpointing,
and embedding. Memory is what the step takes on top of the process before it (model, optimiser and their states are
taken before). An exponent is fitted to memory and time against length: 1 is linear. An L x L attention would give 2.

--project-to says what larger widths and depths would take, from the bytes a token and layer that two smaller widths
took here: an extrapolation, and marked so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from process_clock import clock, peak_bytes

from lexicell.allocator import keep_freed_memory
from lexicell.batch import CellBatch
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig
from lexicell.reporting.text import Table, print_tables
from lexicell.training.objectives import Forward, ObjectiveConfig, build_objectives, freeze_unused, total_loss
from lexicell.training.optim import OptimConfig, build_optimizer

N_GENES = 20_000
QUERIES = 256
MODES = ("training", "training, checkpointed", "embedding")


def one_cell(length: int, device: str) -> CellBatch:
    """Return a cell that shows so many genes."""
    generator = torch.Generator().manual_seed(0)
    genes = torch.randperm(N_GENES, generator=generator)[: length + QUERIES]
    counts = torch.poisson(torch.ones(len(genes)), generator=generator).long()
    none = torch.zeros(1, 0, dtype=torch.long)
    return CellBatch(
        genes[None, None, :length],
        counts[None, None, :length],
        genes[None, length:],
        counts[None, length:],
        counts.sum()[None].float(),
        none,
        none,
        torch.arange(1),
    ).to(device)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Measure one length in one mode, in this process."""
    device, dtype = options.device, getattr(torch, options.dtype)
    length, mode = int(options.lengths), options.child
    encoder = EncoderConfig(options.width, options.layers, options.heads, activation_checkpointing="check" in mode)
    network = CellNetwork(ModelConfig(encoder), N_GENES)
    network.initialise(torch.Generator().manual_seed(0))
    network.to(device).train(mode != "embedding")
    config = ObjectiveConfig(contrastive=0.0)
    freeze_unused(network, config, 1)
    objectives = build_objectives(config, network, 1)
    optimizer = build_optimizer(network, OptimConfig())
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)

    def step(batch: CellBatch) -> None:
        if mode == "embedding":
            with torch.inference_mode(), autocast:
                _ = Forward(network, batch).encoded.cls
            return
        with autocast:
            forward = Forward(network, batch)
            loss = total_loss({o.name: o.loss(forward) for _, o in objectives}, objectives)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    step(one_cell(256, device))  # gradients and the optimiser's states are there from now on
    before, batch = peak_bytes(device), one_cell(length, device)
    started = clock(device)
    step(batch)
    return {"mb": (peak_bytes(device) - before) / 2**20, "seconds": clock(device) - started}


def in_own_process(options: argparse.Namespace, mode: str, length: int, width: int) -> dict[str, float]:
    """Measure in a fresh process, whose peak of memory is its own."""
    command = [sys.executable, __file__, "--child", mode, "--lengths", str(length), "--width", str(width)]
    command += ["--heads", str(options.heads * width // options.width)]  # heads stay as wide
    for name in ("layers", "device", "dtype", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def exponent(lengths: list[int], values: list[float]) -> float:
    """Return the slope of log value on log length."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def projected(options: argparse.Namespace, lengths: list[int], target: str) -> tuple[Table, dict[str, Any]]:
    """Extrapolate memory to a larger model: bytes a token from two widths here, in line with width and layers."""
    width, layers = (int(number) for number in target.split("x"))
    rows, figures = [], {}
    for mode in MODES:
        at = [(w, in_own_process(options, mode, lengths[-1], w)["mb"]) for w in (options.width, 2 * options.width)]
        (w0, mb0), (w1, mb1) = at
        slope = (mb1 - mb0) / (w1 - w0)
        wide = mb0 + slope * (width - w0)
        # Checkpointing keeps one state a token and layer, embedding none; else all that a layer keeps grows with depth.
        grows = {"training": layers / options.layers, "training, checkpointed": 1.0, "embedding": 1.0}[mode]
        kept = 4 * width * (layers - options.layers) / 2**20 * lengths[-1] if "check" in mode else 0.0
        figures[mode] = {str(n): (wide * grows + kept) * n / lengths[-1] for n in lengths}
        rows.append((mode, *(f"{mb / 1024:.1f}" for mb in figures[mode].values())))
    title = f"EXTRAPOLATED to {width} wide, {layers} layers, one cell, {options.dtype}: GB on top of weights and states"
    return Table(title, ("", *(f"{n:,} genes" for n in lengths)), tuple(rows)), figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64, help="numbers in a token's state")
    parser.add_argument("--layers", type=int, default=2, help="transformer blocks")
    parser.add_argument("--heads", type=int, default=1, help="attention heads")
    parser.add_argument("--lengths", default="2048,4096,8192,16384", help="genes of the cell, with commas between")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16 is mixed precision"
    )
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--project-to", help="a larger model as WIDTHxLAYERS, such as 512x12")
    parser.add_argument("--child", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.child:
        if options.device == "cpu":
            keep_freed_memory()
        print(json.dumps(measure(options)))
        return
    lengths = [int(length) for length in options.lengths.split(",")]
    figures: dict[str, Any] = {}
    rows = []
    for mode in MODES:
        found = [in_own_process(options, mode, length, options.width) for length in lengths]
        mb, seconds = [one["mb"] for one in found], [one["seconds"] for one in found]
        figures[mode] = {
            "mb": dict(zip(map(str, lengths), mb, strict=True)),
            "seconds": dict(zip(map(str, lengths), seconds, strict=True)),
            "memory_exponent": exponent(lengths, mb),
            "time_exponent": exponent(lengths, seconds),
        }
        rows.append((f"{mode}, MB", *(f"{value:,.0f}" for value in mb), f"{figures[mode]['memory_exponent']:.2f}"))
        rows.append((f"{mode}, s", *(f"{value:.2f}" for value in seconds), f"{figures[mode]['time_exponent']:.2f}"))
    title = f"One cell, {options.width} wide, {options.layers} layers, {options.dtype}, {options.device}"
    tables = [Table(title, ("", *(f"{n:,} genes" for n in lengths), "exponent"), tuple(rows))]
    if options.project_to:
        table, figures["extrapolated"] = projected(options, lengths, options.project_to)
        tables.append(table)
    print_tables(tables)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
