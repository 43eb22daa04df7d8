"""Annotating many cells: cells a second, memory at two sizes, and the share of the processor's matrix rate.

Usage: python benchmarks/annotate_scale.py --cells COUNTS.h5ad --species mouse --out FOLDER [--recipes tiny,small,base]
       [--sizes 2000,8000] [--references 500,2000] [--seconds 600] [--samples 1] [--threads 1] [--json FILE]

COUNTS.h5ad holds raw counts in X and a label column (--level). Queries and references of the asked sizes are made of
its cells, in files; each pair is annotated by `probe` in a process of its own, whose peak memory is read: the queries
beside the largest reference, and the smallest query beside the smallest reference. Memory for a query of a million
cells, and for as many of a reference as are learned from at most, is extrapolated along the line through two sizes.
With --seconds, sizes shrink alike until a recipe's embedding takes about so long. The weights are drawn: they change
neither time nor memory. The share of the matrix rate that is aimed at is 60%.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData, read_h5ad
from process_clock import peak_bytes
from scipy import sparse

from lexicell.data.query import open_query
from lexicell.genes.lexicon import Lexicon
from lexicell.genes.species import find_species
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import ModelSpec
from lexicell.reporting.text import Table, print_tables
from lexicell.training.recipe import load_recipe
from lexicell.workflows.annotate import annotate
from lexicell.workflows.labelling import CELLS_AT_ONCE, LEARN_FROM

MAPMYCELLS = 208  # cells a second and core, as its authors report
TARGET = 0.6  # share of the matrix rate
FEWEST = 200  # cells of a query or a reference, however little time there is


@dataclass(frozen=True)
class Pair:
    """Cells of a query and of the reference beside it."""

    query: int
    reference: int


def pairs_of(sizes: Sequence[int], references: Sequence[int]) -> list[Pair]:
    """Return what is measured: all queries beside the largest reference, the smallest beside the others."""
    grown = [Pair(size, references[-1]) for size in sizes]
    return [*grown, *(Pair(sizes[0], size) for size in references[:-1])]


def drawn(cells: AnnData, size: int, name: str, path: Path) -> None:
    """Write so many cells, drawn with replacement; a name begins theirs."""
    rows = np.random.default_rng(0).integers(cells.n_obs, size=size)
    obs = cells.obs.iloc[rows].set_axis([f"{name}{i}" for i in range(size)])
    AnnData(cells.X[rows], obs, cells.var).write_h5ad(path)


def make_model(cells: AnnData, name: str, options: argparse.Namespace) -> CellModel:
    """Return an untrained model of a recipe, which is also written."""
    species = find_species(options.species).name
    lexicon = Lexicon.from_genes(
        species, [str(gene) for gene in cells.var_names], [str(gene) for gene in cells.var_names]
    )
    recipe = load_recipe(name)
    spec = ModelSpec(recipe.model, lexicon, tokens=recipe.sampling.tokens)
    network = spec.build()
    network.initialise(torch.Generator().manual_seed(0))
    model = CellModel(network, spec, device="cpu")
    model.save(options.out / Path(name).stem)
    return model


def sizes_in_time(model: CellModel, cells: AnnData, options: argparse.Namespace) -> list[Pair]:
    """Return the pairs that are measured, smaller ones where embedding them would take longer than asked."""
    pairs = pairs_of(options.sizes, options.references)
    if options.seconds is None:
        return pairs
    rows = np.sort(np.random.default_rng(1).permutation(cells.n_obs)[:32])
    some = cells[rows].copy()
    with open_query(some, model.lexicon, options.species) as query:
        (part,) = query.parts(len(some))
        model.embed(part.take(np.arange(2)), samples=options.samples)
        began = time.perf_counter()
        model.embed(part, samples=options.samples)
    rate = len(some) / (time.perf_counter() - began)
    share = min(1.0, options.seconds * rate / sum(pair.query + pair.reference for pair in pairs))
    shrunk = [sorted({max(FEWEST, int(n * share)) for n in numbers}) for numbers in (options.sizes, options.references)]
    return pairs_of(*([n[0], 2 * n[0]] if len(n) < 2 else n for n in shrunk))


def measure(options: argparse.Namespace) -> None:
    """Annotate one query, in this process, and print what it took."""
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    result = annotate(
        options.out / Path(options.recipes[0]).stem,
        options.out / f"query{options.sizes[0]}.h5ad",
        options.out / f"reference{options.references[0]}.h5ad",
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
    """Measure every recipe and pair; a recipe's figures are printed, and written, as soon as they are there."""
    torch.set_num_threads(options.threads)
    whole = read_h5ad(options.cells)
    counts = sparse.csr_matrix(whole.X)
    cells = AnnData(counts, whole.obs[[options.level]].copy(), whole.var[[]].copy())
    figures: dict[str, Any] = {}
    for name in options.recipes:
        pairs = sizes_in_time(make_model(cells, name, options), cells, options)
        rows = {pair: in_own_process(pair, name, cells, options) for pair in pairs}
        recipe = load_recipe(name)
        room = recipe.sampling.tokens * (1 - recipe.sampling.deck_share)
        samples = float(np.maximum(1, np.ceil(np.diff(counts.indptr) / room)).mean())
        samples = samples if options.samples is None else min(samples, options.samples)
        rate, needed = matrix_rate(name), flops_per_sample(name) * samples
        largest = max(rows, key=lambda pair: (pair.query, pair.reference))
        speed = rows[largest]["cells_per_second"]
        share = speed * needed / rate
        figures[name] = {
            "cells_per_second": speed,
            "samples_a_cell": samples,
            "matrix_gflops": rate / 1e9,
            "share_of_matrix_rate": share,
            "target_met": share >= TARGET,
            "of_mapmycells": speed / options.threads / MAPMYCELLS,
            "peak_bytes": {f"{pair.query} beside {pair.reference}": row["peak_bytes"] for pair, row in rows.items()},
            "reference_seconds": {str(pair.reference): row["reference"] for pair, row in rows.items()},
            **grown("query", rows),
            **grown("reference", rows),
        }
        print(json.dumps({name: figures[name]}), flush=True)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def in_own_process(pair: Pair, name: str, cells: AnnData, options: argparse.Namespace) -> dict[str, float]:
    """Annotate one pair in a process of its own, for its peak memory."""
    unlabelled = AnnData(cells.X, var=cells.var)
    drawn(unlabelled, pair.query, "q", options.out / f"query{pair.query}.h5ad")
    drawn(cells, pair.reference, "r", options.out / f"reference{pair.reference}.h5ad")
    command = [sys.executable, __file__, "--cells", str(options.cells), "--species", options.species, "--one"]
    command += ["--out", str(options.out), "--recipes", name, "--level", options.level]
    command += ["--sizes", str(pair.query), "--references", str(pair.reference), "--threads", str(options.threads)]
    command += [] if options.samples is None else ["--samples", str(options.samples)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def grown(what: str, rows: dict[Pair, dict[str, float]]) -> dict[str, float]:
    """Return the memory that a further cell of query or reference takes, and that very many of them would.

    Very many are a million of the query, and as many of the reference as are learned from at most.
    Nothing where the smallest do not fill the part that is read at once: then it is parts that grow.
    """
    other = "reference" if what == "query" else "query"
    beside = max(pair.reference for pair in rows) if what == "query" else min(pair.query for pair in rows)
    memory = {getattr(pair, what): row["peak_bytes"] for pair, row in rows.items() if getattr(pair, other) == beside}
    small, large = min(memory), max(memory)
    if small == large or small < CELLS_AT_ONCE:
        return {}
    per_cell = (memory[large] - memory[small]) / (large - small)
    most = {"query": 1_000_000, "reference": LEARN_FROM}[what]
    return {f"bytes_a_{what}_cell": per_cell, f"bytes_for_{most}_{what}": memory[large] + per_cell * (most - large)}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, required=True, help="h5ad with raw counts in X")
    parser.add_argument("--species", required=True, help="its species")
    parser.add_argument("--level", default="cell_type1", help="its label column")
    parser.add_argument("--out", type=Path, required=True, help="folder for inputs and models")
    parser.add_argument("--recipes", default="tiny,small,base", help="recipes, with commas between")
    parser.add_argument("--sizes", default="2000,8000", help="cells of the queries, with commas between")
    parser.add_argument("--references", default="500,2000", help="cells of the references, with commas between")
    parser.add_argument("--seconds", type=float, help="shrink a recipe's sizes until embedding takes about so long")
    parser.add_argument("--samples", type=int, help="gene samples a cell at most (default: all it takes)")
    parser.add_argument("--threads", type=int, default=1, help="threads")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.recipes = options.recipes.split(",")
    options.sizes, options.references = (
        sorted(int(size) for size in sizes.split(",")) for sizes in (options.sizes, options.references)
    )
    if options.one:
        measure(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    figures = run_all(options)
    names = (
        "cells_per_second",
        "samples_a_cell",
        "share_of_matrix_rate",
        "target_met",
        "of_mapmycells",
        "bytes_a_query_cell",
        "bytes_for_1000000_query",
        "bytes_a_reference_cell",
        f"bytes_for_{LEARN_FROM}_reference",
    )
    rows = tuple((recipe, *(one.get(name) for name in names)) for recipe, one in figures.items())
    print_tables([Table(f"Annotating on {options.threads} thread(s)", ("recipe", *names), rows)])


if __name__ == "__main__":
    main()
