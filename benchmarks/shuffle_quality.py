"""How well the block shuffle mixes an atlas sorted by type: label entropy of batches against a perfect shuffle.

Label sizes are drawn log-normally, as atlases have a few common and many rare types; or they come from a store.

Usage: python benchmarks/shuffle_quality.py [--cells 1000000] [--labels 338] [--store STORE --level LEVEL] [--json FILE]
The exit code says whether the default setting reaches 98%.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lexicell.data.cells import CellCollection
from lexicell.data.order import OrderConfig
from lexicell.data.shuffle_quality import shuffle_quality
from lexicell.data.store import Store
from lexicell.reporting.text import Table, print_tables

LIMIT = 0.98
SETTINGS = {
    "default": OrderConfig(),
    "longer blocks": OrderConfig(block_size=64, pool_blocks=512),
    "a small pool": OrderConfig(block_size=16, pool_blocks=64),
    "long blocks, a small pool": OrderConfig(block_size=256, pool_blocks=16),
    "pairs of blocks": OrderConfig(block_size=1024, pool_blocks=2),
}


def sorted_labels(n_cells: int, n_labels: int, seed: int) -> np.ndarray:
    """Return the labels of cells that lie sorted by label, of sizes from common to rare."""
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(sigma=1.5, size=n_labels)
    return np.sort(rng.choice(n_labels, n_cells, p=sizes / sizes.sum()))


def stored_labels(path: Path, level: str) -> np.ndarray:
    """Return the labels of a store's cells, sorted, as the worst that an atlas can be."""
    store = Store.open(path)
    return np.sort(CellCollection([store], store.lexicon).coded(level).codes + 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000, help="cells of the made-up atlas")
    parser.add_argument("--labels", type=int, default=338, help="its labels")
    parser.add_argument("--store", type=Path, help="take the labels of this store instead")
    parser.add_argument("--level", help="its label level")
    parser.add_argument("--batch-size", type=int, default=256, help="cells in a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if (options.store is None) != (options.level is None):
        parser.error("--store and --level go together")
    labels = (
        sorted_labels(options.cells, options.labels, options.seed)
        if options.store is None
        else stored_labels(options.store, options.level)
    )
    figures, rows = {}, []
    for name, config in SETTINGS.items():
        began = time.perf_counter()
        quality = shuffle_quality(labels, config, options.batch_size, options.seed)
        seconds = time.perf_counter() - began
        figures[name] = {**asdict(config), **asdict(quality), "share": quality.share, "seconds": seconds}
        shown = (name, config.block_size, config.pool_blocks, f"{quality.entropy:.3f}", f"{quality.share:.2%}", seconds)
        rows.append(shown)
    what = f"{len(labels):,} cells sorted by {len(np.unique(labels)):,} labels, batches of {options.batch_size}"
    columns = ("setting", "block size", "pool blocks", "entropy", "of perfect", "s an epoch")
    print_tables([Table(what, columns, tuple(rows))])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    reached = figures["default"]["share"] >= LIMIT
    print(
        f"the default reaches {LIMIT:.0%} of a perfect shuffle" if reached else f"the default stays below {LIMIT:.0%}"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
