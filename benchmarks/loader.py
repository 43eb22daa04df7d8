"""Loading shuffled batches of cells: lexicell against its peers, in one run, interleaved, on one made-up atlas.

Each measurement is a process of its own. Warm: the files were read once before. Cold: the page cache was emptied of
them (posix_fadvise), and mincore says what share of them was left. Cells a second of processor time are what a
busy machine distorts least. A peer that is not installed is left out, and why is said.

Usage: python benchmarks/loader.py --folder FOLDER [--cells 200000] [--genes 30000] [--genes-per-cell 3000]
           [--rounds 3] [--seconds 4] [--readers "NAME;NAME"] [--python READER=PYTHON] [--convert]
           [--json FILE] [--chart FILE]
Peers: pip install scDataset bionemo-scdl datasets; annbatch[zarrs] needs Python 3.12: give its interpreter by --python
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import subprocess
import sys
from pathlib import Path

import h5py
import matplotlib as mpl
from loader_peers import PEERS
from matplotlib.figure import Figure
from synthetic_atlas import Atlas, write_atlas

from lexicell.reporting.figures import INK, MUTED, PALETTE, STYLE, to_svg
from lexicell.reporting.text import Table, print_tables

WORKER = Path(__file__).with_name("loader_peers.py")
INTERPRETERS: dict[str, str] = {}  # of readers that need another one
LIMIT, ROWS = "copying alone (limit)", "lexicell, rows only"
PLACES = {LIMIT: "store", ROWS: "store", "lexicell, 1,024 genes sampled": "store", "bionemo-scdl": "scdl",
          "sharded zarr, annbatch's way": "sharded.zarr", "annbatch": "annbatch.zarr", "HF datasets": "hf",
          "HF datasets, 16-bit": "hf16"}  # fmt: skip


def files_of(name: str, h5ad: Path, folder: Path) -> list[Path]:
    """Return the files that a peer reads."""
    place = folder / PLACES[name] if name in PLACES else h5ad
    return [path for path in sorted(place.rglob("*")) if path.is_file()] if place.is_dir() else [place]


def warm(paths: list[Path]) -> None:
    """Read files once, so that they lie in the page cache as far as there is room."""
    for path in paths:
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def cool(paths: list[Path]) -> None:
    """Take files out of the page cache."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def resident(paths: list[Path]) -> float:
    """Return the share of the files' pages that lie in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    pages = present = 0
    for path in paths:
        size = path.stat().st_size
        if not size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=3) as view:
            n = -(-size // mmap.PAGESIZE)
            vector = (ctypes.c_ubyte * n)()
            start = ctypes.addressof(ctypes.c_char.from_buffer(view))
            if libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), vector):
                raise OSError(ctypes.get_errno(), "mincore")
            pages, present = pages + n, present + sum(byte & 1 for byte in bytes(vector))
    return present / max(pages, 1)


def worker(action: str, name: str, h5ad: Path, folder: Path, *options: str) -> dict[str, float] | str:
    """Run one step in a process of its own; return its figures, or why there are none."""
    command = [INTERPRETERS.get(name, sys.executable), str(WORKER), action, name, str(h5ad), str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def convert_all(h5ad: Path, folder: Path, names: list[str], left_out: dict[str, str]) -> dict[str, float]:
    """Convert the atlas for every peer that needs it, once; return the seconds, which stay beside the conversions."""
    notes = folder / "conversions.json"
    taken: dict[str, float] = json.loads(notes.read_text()) if notes.exists() else {}
    seconds = {}
    for name in names:
        place = PLACES.get(name)
        if hasattr(PEERS[name], "convert") and place is not None and place not in taken:
            found = worker("convert", name, h5ad, folder)
            if isinstance(found, str):
                left_out[name] = found
                continue
            taken[place] = found["seconds"]
            notes.write_text(json.dumps(taken))
        seconds[name] = taken.get(place, 0.0) if place else 0.0
    return seconds


def measure(
    h5ad: Path, folder: Path, names: list[str], rounds: int, options: list[str]
) -> dict[str, dict[str, object]]:
    """Measure readers in turn, so many times."""
    left_out: dict[str, str] = {}
    seconds = convert_all(h5ad, folder, names, left_out)
    done: list[dict[tuple[str, str], dict[str, float]]] = []
    left = dict.fromkeys(seconds, 0.0)
    for number in range(rounds):
        try:
            done.append(one_round(h5ad, folder, [*seconds], left_out, left, ["--seed", str(number), *options]))
        except KeyboardInterrupt:
            if not done:
                raise
            print(f"stopped: {len(done)} whole rounds are shown")
            break
    figures: dict[str, dict[str, object]] = {name: {"left_out": why} for name, why in left_out.items()}
    for name in [name for name in seconds if name not in left_out]:
        figures[name] = {
            **{
                f"{temperature}_{key}": [runs[name, temperature][key] for runs in done]
                for temperature in ("warm", "cold")
                for key in ("cells_per_s", "cells_per_cpu_s")
            },
            "peak_bytes": max(runs[name, kind]["peak_bytes"] for runs in done for kind in ("warm", "cold")),
            "disk_bytes": sum(path.stat().st_size for path in files_of(name, h5ad, folder)),
            "convert_s": seconds[name],
            "left_in_page_cache": left[name],
        }
    return figures


def one_round(
    h5ad: Path, folder: Path, names: list[str], left_out: dict[str, str], left: dict[str, float], options: list[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Measure each reader once warm and once cold; note what failed, and the most that was left in the page cache."""
    runs = {}
    for temperature in ("warm", "cold"):
        for name in [name for name in names if name not in left_out]:
            paths = files_of(name, h5ad, folder)
            if temperature == "warm":
                warm(paths)
            else:
                cool(paths)
                left[name] = max(left[name], resident(paths))
            found = worker("read", name, h5ad, folder, *options)
            if isinstance(found, str):
                left_out[name] = found
            else:
                runs[name, temperature] = found
    return runs


def ratios(figures: dict[str, dict[str, object]]) -> Table:
    """Return how much faster rows are read than by each other reader, round by round."""
    rows = []
    for name, found in figures.items():
        if name in (ROWS, "lexicell, 1,024 genes sampled") or "left_out" in found or "left_out" in figures[ROWS]:
            continue
        row = [name]
        for key in ("warm_cells_per_s", "warm_cells_per_cpu_s", "cold_cells_per_s"):
            times = [own / other for own, other in zip(figures[ROWS][key], found[key], strict=True)]
            row.append(f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})")
        rows.append(tuple(row))
    return Table(f"{ROWS}: times as fast as", ("reader", "warm", "warm, per CPU s", "cold"), tuple(rows))


def table_of(figures: dict[str, dict[str, object]], title: str) -> Table:
    """Return the table for people: medians, and the range over the rounds."""
    columns = ("reader", "cells/s warm", "per CPU s", "cells/s cold", "peak MB", "disk MB", "conversion s")
    rows = []
    for name, found in figures.items():
        if "left_out" in found:
            rows.append((name, f"left out: {found['left_out']}", *[""] * 5))
            continue
        spreads = [
            f"{statistics.median(found[key]):,.0f} ({min(found[key]):,.0f}-{max(found[key]):,.0f})"
            for key in ("warm_cells_per_s", "warm_cells_per_cpu_s", "cold_cells_per_s")
        ]
        sizes = f"{found['peak_bytes'] / 1e6:,.0f}", f"{found['disk_bytes'] / 1e6:,.0f}", f"{found['convert_s']:.0f}"
        rows.append((name, *spreads, *sizes))
    return Table(title, columns, tuple(rows))


def draw(figures: dict[str, dict[str, object]], title: str) -> str:
    """Draw cells per second, of the processor's time and of the clock, as bars with their range; return SVG text."""
    kept = {name: found for name, found in figures.items() if "left_out" not in found}
    names = sorted(kept, key=lambda name: statistics.median(kept[name]["warm_cells_per_cpu_s"]))
    kinds = {
        "warm, per second of processor time": ("warm_cells_per_cpu_s", PALETTE[0]),
        "warm, per second": ("warm_cells_per_s", PALETTE[4]),
        "cold, per second": ("cold_cells_per_s", MUTED),
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.55 * len(names) + 1.1), layout="constrained")
        axes = figure.add_subplot()
        for place, (label, (key, colour)) in enumerate(kinds.items()):
            middle = [statistics.median(kept[name][key]) for name in names]
            reach = [[m - min(kept[name][key]) for m, name in zip(middle, names, strict=True)],
                     [max(kept[name][key]) - m for m, name in zip(middle, names, strict=True)]]  # fmt: skip
            heights = [y + 0.27 * (1 - place) for y in range(len(names))]
            axes.barh(heights, middle, 0.25, color=colour, label=label)
            axes.errorbar(middle, heights, xerr=reach, fmt="none", ecolor=INK, elinewidth=0.8)
            for m, over, y in zip(middle, reach[1], heights, strict=True):
                axes.annotate(f"{m:,.0f}", (m + over, y), (4, 0), textcoords="offset points", va="center", fontsize=7)
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False, axis="y")
        axes.set(xscale="log", xlabel="cells, one process (bar: median; line: range)", title=title)
        axes.margins(x=0.12)
        axes.legend(loc="lower right")
        return to_svg(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the atlas and its conversions go")
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=30_000)
    parser.add_argument("--genes-per-cell", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each measurement takes")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--readers", help="compare only these, with semicolons between, beside lexicell's rows")
    parser.add_argument(
        "--python", action="append", default=[], metavar="READER=PYTHON",
        help="interpreter of a reader that needs another one, as annbatch=/opt/py313/bin/python",
    )  # fmt: skip
    parser.add_argument("--convert", action="store_true", help="only write the atlas and convert it, once for all runs")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--chart", type=Path, help="SVG to draw")
    options = parser.parse_args()
    INTERPRETERS.update(pair.partition("=")[::2] for pair in options.python)
    wanted = {ROWS, *(options.readers.split(";") if options.readers else PEERS)}
    if unknown := (wanted | set(INTERPRETERS)) - set(PEERS):
        parser.error(f"no reader {'; '.join(sorted(unknown))}; there are: {'; '.join(PEERS)}")
    names = [name for name in PEERS if name in wanted]
    options.folder = options.folder.resolve()  # another interpreter may begin elsewhere
    options.folder.mkdir(parents=True, exist_ok=True)
    h5ad = options.folder / "atlas.h5ad"
    if not h5ad.exists():
        write_atlas(h5ad, Atlas(options.cells, options.genes, options.genes_per_cell))
    with h5py.File(h5ad) as file:
        n_entries, n_cells = len(file["X"]["data"]), len(file["X"]["indptr"]) - 1
    if n_cells != options.cells:
        parser.error(f"{h5ad} holds {n_cells:,} cells; give another --folder")
    given = ["--seconds", str(options.seconds), "--batch", str(options.batch)]
    if options.convert:
        left_out: dict[str, str] = {}
        print(convert_all(h5ad, options.folder, names, left_out), left_out)
        return
    figures = measure(h5ad, options.folder, names, options.rounds, given)
    title = f"{options.cells:,} cells x {options.genes:,} genes, {n_entries / options.cells:,.0f} genes a cell"
    print_tables(
        [table_of(figures, f"{title}, batches of {options.batch}, up to {options.rounds} rounds"), ratios(figures)]
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.chart:
        options.chart.write_text(draw(figures, title) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
