"""What the cells of an atlas cost in memory, apart from their counts: opening, annotation, shuffling, inspecting.

Stores with few counts a cell but whole annotation (34 classes, 338 subclasses, 1,201 supertypes, 5,322 clusters,
donors, regions, two assays) are made in several sizes. Each step runs in a process of its own; peak is private memory
(RssAnon) above what the imports take. The line through the smallest and the largest size gives the bytes a cell, and
further sizes, which are extrapolated, not measured.

Usage: python benchmarks/atlas_memory.py --folder FOLDER [--cells 500000,2000000] [--extrapolate 5000000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from loader_peers import PrivateMemory

from lexicell.reporting.text import Table, print_tables

LEVELS = {"class": 34, "subclass": 338, "supertype": 1201, "cluster": 5322}
N_GENES, N_FILES, COUNTS = 2000, 8, 8


def write_store(path: Path, cells: int) -> None:
    """Write a store whose cells are sorted by type within each of its files."""
    from lexicell.data.store_writer import Part, StoreWriter
    from lexicell.genes.lexicon import Lexicon

    genes = [f"ENSMUSG{gene:011d}" for gene in range(N_GENES)]
    lexicon = Lexicon(pd.DataFrame({"gene_id": genes, "symbol": genes, "species": "mus_musculus"}))
    edges = np.linspace(0, cells, N_FILES + 1).astype(int)
    rng = np.random.default_rng(0)

    def chunks(n: int) -> Iterator[sp.csr_matrix]:
        for start in range(0, n, 50_000):
            here = min(50_000, n - start)
            first = rng.integers(0, N_GENES - COUNTS * 10, (here, 1))
            columns = (first + np.arange(COUNTS) * 10).ravel()
            yield sp.csr_matrix(
                (rng.integers(1, 9, len(columns)), columns, np.arange(here + 1) * COUNTS), shape=(here, N_GENES)
            )

    with StoreWriter(path, lexicon, tuple(LEVELS)) as writer:
        for number, (start, stop) in enumerate(pairwise(edges.tolist())):
            n = stop - start
            table, code, finer = {}, np.arange(n), n
            for level, size in reversed(LEVELS.items()):
                code, finer = code * size // finer, size
                table[level] = pd.Categorical.from_codes(
                    code, categories=[f"{level} {name:04d}" for name in range(size)]
                )
            table["donor"] = pd.Categorical(rng.integers(0, 40, n) + 40 * number).rename_categories(str)
            table["tissue"] = pd.Categorical.from_codes(rng.integers(0, 3, n), categories=["a", "b", "c"])
            table["assay"] = pd.Categorical.from_codes(np.full(n, number % 2), categories=["10Xv2", "10Xv3"])
            obs = pd.DataFrame(table, index=[f"{number}-{cell:016d}" for cell in range(n)])
            writer.add(Part(f"file{number}", "mus_musculus", np.arange(N_GENES)), chunks(n), obs)
        writer.finish()


def run_module(path: Path, by: str = "") -> None:
    """Make all that training reads from, and its first batch."""
    from lexicell.data.gene_sampler import SamplingConfig
    from lexicell.data.store import Store
    from lexicell.data.weights import WeightConfig
    from lexicell.training.datamodule import CellDataModule, DataConfig

    weights = WeightConfig(by=by, temperature=3.0) if by else WeightConfig()
    module = CellDataModule([Store.open(path)], DataConfig(weights=weights), SamplingConfig(tokens=64, queries=16), 0)
    next(iter(module.train_dataloader()))


def run_open(path: Path) -> None:
    """Open a store."""
    from lexicell.data.store import Store

    Store.open(path)


def run_info(path: Path) -> None:
    """Do what `lexicell store info` does."""
    from lexicell.workflows.store_inspection import store_info

    store_info(path).tables()


def run_verify(path: Path) -> None:
    """Do what `lexicell store verify` does."""
    from lexicell.workflows.store_inspection import store_verify

    assert not store_verify(path).problems


STEPS: dict[str, Callable[[Path], None]] = {
    "open": run_open,
    "training data, first batch": run_module,
    "the same, weighted by subclass": lambda path: run_module(path, "subclass"),
    "store info": run_info,
    "store verify": run_verify,
}


def one(step: str, path: Path) -> dict[str, float]:
    """Run one step in this process."""
    import lexicell.training.datamodule
    import lexicell.workflows.store_inspection  # noqa: F401

    with PrivateMemory() as memory:
        time.sleep(0.05)
        before = memory.peak
        began = time.perf_counter()
        STEPS[step](path)
        seconds = time.perf_counter() - began
        time.sleep(0.03)
    return {"seconds": seconds, "peak_bytes": memory.peak - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("STEP", "STORE"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the stores go")
    parser.add_argument("--cells", default="500000,2000000", help="two or more sizes")
    parser.add_argument("--extrapolate", type=int, default=5_000_000, help="size to extrapolate to")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], Path(options.one[1]))))
        return
    if options.folder is None:
        parser.error("--folder is needed")
    sizes = sorted(int(text) for text in options.cells.split(","))
    if len(sizes) < 2:
        parser.error("--cells: give two sizes or more")
    options.folder.mkdir(parents=True, exist_ok=True)
    for cells in sizes:
        if not (options.folder / f"cells{cells}").exists():
            write_store(options.folder / f"cells{cells}", cells)
    figures, rows = {}, []
    for step in STEPS:
        found = []
        for cells in sizes:
            command = [sys.executable, __file__, "--one", step, str(options.folder / f"cells{cells}")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.strip().splitlines()[-1]))
        peaks = [run["peak_bytes"] for run in found]
        a_cell = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
        further = peaks[-1] + a_cell * (options.extrapolate - sizes[-1])
        figures[step] = {"cells": sizes, "runs": found, "bytes_a_cell": a_cell, "extrapolated_bytes": further}
        shown = [f"{peak / 1e6:,.0f}" for peak in peaks]
        rows.append((step, *shown, f"{a_cell:.0f}", f"{further / 1e6:,.0f}", f"{found[-1]['seconds']:.1f}"))
    columns = ("step", *(f"MB at {cells:,}" for cells in sizes), "bytes a cell", f"MB at {options.extrapolate:,}", "s")
    print_tables([Table("peak private memory above the imports; the last size is extrapolated", columns, tuple(rows))])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
