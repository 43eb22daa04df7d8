"""What `lexicell prepare` takes, against reading the same h5ad with h5py alone, CSR and CSC, in one run, interleaved.

Each measurement is a process of its own; peak is private memory (RssAnon), sampled every 10 ms. Two sizes of an atlas
give a line, from which the time at the size of the largest atlases is extrapolated: an estimate, not a measurement.

Usage: python benchmarks/prepare.py --folder FOLDER [--cells 10000,40000] [--genes 30000] [--genes-per-cell 2000]
           [--rounds 3] [--plain] [--extrapolate 4000000,5000000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import h5py
from loader_peers import PrivateMemory
from synthetic_atlas import Atlas, write_atlas

from lexicell.reporting.text import Table, print_tables

PIECE = 1 << 22
LIMIT = 2.0


def read_alone(h5ad: Path) -> None:
    """Read every count with h5py, in pieces of the size that prepare reads."""
    with h5py.File(h5ad) as file:
        data, indices = file["X"]["data"], file["X"]["indices"]
        for start in range(0, len(data), PIECE):
            data[start : start + PIECE]
            indices[start : start + PIECE]


def prepare_store(h5ad: Path, out: Path) -> None:
    """Prepare a store of one file."""
    import lexicell

    dataset = {"path": str(h5ad), "species": "mouse", "donor": "donor", "labels": ["type"]}
    lexicell.prepare({"datasets": [dataset]}, out, progress=False)


def one(action: str, h5ad: Path, out: Path) -> dict[str, float]:
    """Measure one step in this process; imports are not timed."""
    if action == "prepare":
        import lexicell.workflows.prepare  # noqa: F401
    with PrivateMemory() as memory:
        began, used = time.perf_counter(), time.process_time()
        if action == "prepare":
            prepare_store(h5ad, out)
        else:
            read_alone(h5ad)
        figures = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
        time.sleep(0.03)  # so that the watch looks once at least
    return {**figures, "peak_bytes": memory.peak}


def measured(action: str, h5ad: Path, out: Path) -> dict[str, float]:
    """Run one step in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--one", action, str(h5ad), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(out, ignore_errors=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def extrapolated(small: dict, large: dict, cells: int) -> dict[str, float]:
    """Draw the line through two sizes on to another one; memory does not grow and is not drawn on."""
    at = (cells - small["cells"]) / (large["cells"] - small["cells"])
    return {
        "cells": cells,
        "seconds": small["prepare_s"] + at * (large["prepare_s"] - small["prepare_s"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, metavar=("ACTION", "H5AD", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the atlases and stores go")
    parser.add_argument("--cells", default="10000,40000", help="two or more sizes")
    parser.add_argument("--genes", type=int, default=30_000)
    parser.add_argument("--genes-per-cell", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="do not compress the h5ad")
    parser.add_argument("--extrapolate", default="4000000,5000000", help="sizes to extrapolate to")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], Path(options.one[1]), Path(options.one[2]))))
        return
    if options.folder is None:
        parser.error("--folder is needed")
    options.folder.mkdir(parents=True, exist_ok=True)
    sizes = [int(text) for text in options.cells.split(",")]
    runs = {}
    for layout in ("csr", "csc"):
        for cells in sizes:
            h5ad = options.folder / f"{layout}{cells}.h5ad"
            compression = None if options.plain else "gzip"
            shape = Atlas(cells, options.genes, options.genes_per_cell, layout=layout, compression=compression)
            if not h5ad.exists():
                write_atlas(h5ad, shape)
            with h5py.File(h5ad) as file:
                entries = len(file["X"]["data"])
            runs[layout, cells] = {"h5ad": h5ad, "entries": entries, "read": [], "prepare": []}
    for _ in range(options.rounds):
        for run in runs.values():
            for action in ("read", "prepare"):
                run[action].append(measured(action, run["h5ad"], options.folder / "store"))
    figures, rows, further = [], [], []
    for (layout, cells), run in runs.items():
        ratios = [p["seconds"] / r["seconds"] for p, r in zip(run["prepare"], run["read"], strict=True)]
        cpu = [p["cpu_seconds"] / r["cpu_seconds"] for p, r in zip(run["prepare"], run["read"], strict=True)]
        found = {
            "layout": layout,
            "cells": cells,
            "entries": run["entries"],
            "read_s": statistics.median(r["seconds"] for r in run["read"]),
            "prepare_s": statistics.median(p["seconds"] for p in run["prepare"]),
            "ratio": statistics.median(ratios),
            "ratios": ratios,
            "read_cpu_s": statistics.median(r["cpu_seconds"] for r in run["read"]),
            "prepare_cpu_s": statistics.median(p["cpu_seconds"] for p in run["prepare"]),
            "cpu_ratio": statistics.median(cpu),
            "peak_bytes": max(p["peak_bytes"] for p in run["prepare"]),
        }
        figures.append(found)
        spread = f"{found['ratio']:.1f} ({min(ratios):.1f}-{max(ratios):.1f})"
        shown = (layout, cells, run["entries"], f"{found['read_s']:.1f}", f"{found['prepare_s']:.1f}", spread)
        rows.append((*shown, f"{found['cpu_ratio']:.1f}", f"{found['peak_bytes'] / 1e6:,.0f}"))
    for layout in ("csr", "csc") if len(sizes) > 1 else ():
        small, *_, large = [found for found in figures if found["layout"] == layout]
        for cells in [int(text) for text in options.extrapolate.split(",")]:
            guess = {"layout": layout, **extrapolated(small, large, cells)}
            further.append(guess)
    columns = ("layout", "cells", "entries", "h5py s", "prepare s", "ratio", "CPU ratio", "peak MB")
    tables = [Table(f"prepare, {options.rounds} rounds, medians (limit {LIMIT})", columns, tuple(rows))]
    if further:
        guesses = tuple((g["layout"], g["cells"], f"{g['seconds'] / 60:.0f}") for g in further)
        tables.append(Table("extrapolated, not measured", ("layout", "cells", "minutes"), guesses))
    print_tables(tables)
    if options.json:
        text = json.dumps({"measured": figures, "extrapolated": further}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
