"""Annotating many cells: cells a second, memory at two sizes, and the share of the processor's matrix rate.

Usage: python benchmarks/annotate_scale.py --cells COUNTS.h5ad --species mouse --out FOLDER [--recipes tiny,small]
       [--sizes 2000,8000] [--samples 1] [--threads 1] [--json FILE]

COUNTS.h5ad holds raw counts in X and a label column (--level). Queries of the asked sizes are made of its cells, in
files; each is annotated by `probe` in a process of its own, whose peak memory is read. Memory for a million cells is
extrapolated along the line through the two sizes. The weights are drawn: they change neither time nor memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData, read_h5ad
from process_clock import peak_bytes
from scipy import sparse

from lexicell.genes.lexicon import Lexicon
from lexicell.genes.species import find_species
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import ModelSpec
from lexicell.reporting.text import Table, print_tables
from lexicell.training.recipe import load_recipe
from lexicell.workflows.annotate import annotate

MAPMYCELLS = 208  # cells a second and core, as its authors report


def make_inputs(options: argparse.Namespace) -> None:
    """Write the reference, the queries and the untrained models."""
    cells = read_h5ad(options.cells)
    options.out.mkdir(parents=True, exist_ok=True)
    reference = AnnData(sparse.csr_matrix(cells.X), cells.obs[[options.level]].copy(), cells.var[[]].copy())
    reference.obs_names = [f"r{i}" for i in range(reference.n_obs)]
    reference.write_h5ad(options.out / "reference.h5ad")
    rng = np.random.default_rng(0)
    for size in options.sizes:
        rows = rng.integers(cells.n_obs, size=size)
        query = AnnData(reference.X[rows], var=reference.var)
        query.obs_names = [f"q{i}" for i in range(size)]
        query.write_h5ad(options.out / f"query{size}.h5ad")
    species = find_species(options.species).name
    lexicon = Lexicon.from_genes(species, [str(name) for name in cells.var_names], [str(n) for n in cells.var_names])
    for name in options.recipes:
        recipe = load_recipe(name)
        spec = ModelSpec(recipe.model, lexicon, tokens=recipe.sampling.tokens)
        network = spec.build()
        network.initialise(torch.Generator().manual_seed(0))
        CellModel(network, spec, device="cpu").save(options.out / Path(name).stem)


def measure(options: argparse.Namespace) -> None:
    """Annotate one query, in this process, and print what it took."""
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    result = annotate(
        options.out / Path(options.recipes[0]).stem,
        options.out / f"query{options.sizes[0]}.h5ad",
        options.out / "reference.h5ad",
        [options.level],
        species=options.species,
        reference_species=options.species,
        samples=options.samples,
        out=options.out / "annotated.csv",
        progress=False,
    )
    found = {"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes(), **result.figures()["seconds"]}
    print(json.dumps(found | {"cells_per_second": options.sizes[0] / found["query"]}))


def flops_per_sample(name: str) -> float:
    """Return the operations of one gene sample's way through the trunk: matrix products and attention."""
    recipe = load_recipe(name)
    encoder, length = recipe.model.encoder, recipe.sampling.tokens + 1
    hidden = round(encoder.width * encoder.mlp_ratio / 16) * 16
    products = 4 * encoder.width**2 + 3 * encoder.width * hidden
    attention = 2 * length * encoder.width
    return 2.0 * encoder.layers * length * (products + attention)


def matrix_rate(name: str, seconds: float = 1.0) -> float:
    """Return operations a second of this processor, in a product of the trunk's shape."""
    recipe = load_recipe(name)
    width = recipe.model.encoder.width
    a, b = torch.randn(16_384, width), torch.randn(width, round(width * recipe.model.encoder.mlp_ratio / 16) * 16)
    out = torch.empty(a.shape[0], b.shape[1])
    torch.mm(a, b, out=out)
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        torch.mm(a, b, out=out)
        n += 1
    return 2.0 * n * a.shape[0] * a.shape[1] * b.shape[1] / (time.perf_counter() - began)


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every recipe and size."""
    torch.set_num_threads(options.threads)
    counts = sparse.csr_matrix(read_h5ad(options.cells).X)
    figures: dict[str, Any] = {}
    for name in options.recipes:
        rows = []
        for size in options.sizes:
            command = [sys.executable, __file__, "--cells", str(options.cells), "--species", options.species]
            command += ["--out", str(options.out), "--recipes", name, "--sizes", str(size), "--one"]
            command += ["--level", options.level, "--threads", str(options.threads)]
            command += [] if options.samples is None else ["--samples", str(options.samples)]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        recipe = load_recipe(name)
        room = recipe.sampling.tokens * (1 - recipe.sampling.deck_share)
        samples = float(np.maximum(1, np.ceil(np.diff(counts.indptr) / room)).mean())
        samples = samples if options.samples is None else min(samples, options.samples)
        rate, needed = matrix_rate(name), flops_per_sample(name) * samples
        memory = [row["peak_bytes"] for row in rows]
        per_cell = (memory[-1] - memory[0]) / (options.sizes[-1] - options.sizes[0])
        speed = rows[-1]["cells_per_second"]
        figures[name] = {
            "cells_per_second": speed,
            "samples_a_cell": samples,
            "matrix_gflops": rate / 1e9,
            "share_of_matrix_rate": speed * needed / rate,
            "peak_bytes": dict(zip(map(str, options.sizes), memory, strict=True)),
            "bytes_a_cell": per_cell,
            "bytes_for_a_million_cells": memory[-1] + per_cell * (1_000_000 - options.sizes[-1]),
            "of_mapmycells": speed / options.threads / MAPMYCELLS,
        }
    return figures


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, required=True, help="h5ad with raw counts in X")
    parser.add_argument("--species", required=True, help="its species")
    parser.add_argument("--level", default="cell_type1", help="its label column")
    parser.add_argument("--out", type=Path, required=True, help="folder for inputs and models")
    parser.add_argument("--recipes", default="tiny,small", help="recipes, with commas between")
    parser.add_argument("--sizes", default="2000,8000", help="cells of the queries, with commas between")
    parser.add_argument("--samples", type=int, help="gene samples a cell at most (default: all it takes)")
    parser.add_argument("--threads", type=int, default=1, help="threads")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.recipes = options.recipes.split(",")
    options.sizes = [int(size) for size in options.sizes.split(",")]
    if options.one:
        measure(options)
        return
    make_inputs(options)
    figures = run_all(options)
    names = (
        "cells_per_second",
        "samples_a_cell",
        "share_of_matrix_rate",
        "bytes_a_cell",
        "bytes_for_a_million_cells",
        "of_mapmycells",
    )
    rows = tuple((recipe, *(one[name] for name in names)) for recipe, one in figures.items())
    print_tables([Table(f"Annotating on {options.threads} thread(s)", ("recipe", *names), rows)])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
