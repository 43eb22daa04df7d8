"""Peak private memory of `prepare` does not grow with the input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

N_GENES, PER_CELL = 1000, 200
WATCHED = """
import sys, threading
from pathlib import Path
from lexicell.workflows.prepare import prepare

peak, done = 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
        peak = max(peak, int(line.split()[1]))

thread = threading.Thread(target=watch)
thread.start()
prepare({"datasets": [{"path": sys.argv[1], "species": "mouse"}]}, sys.argv[2])
done.set()
thread.join()
print(peak * 1024)
"""


def write(path: Path, n_cells: int, layout: str) -> Path:
    cell = np.arange(n_cells)[:, None]
    genes = (np.arange(PER_CELL) * (N_GENES // PER_CELL) + cell % (N_GENES // PER_CELL)).astype(np.int32)
    edges = np.arange(n_cells + 1) * PER_CELL
    counts = sp.csr_matrix((np.ones(genes.size, np.float32), genes.ravel(), edges), shape=(n_cells, N_GENES))
    var = pd.DataFrame(index=[f"G{gene}" for gene in range(N_GENES)])
    anndata.AnnData(counts.asformat(layout), var=var).write_h5ad(path)
    return path


def peak(path: Path, out: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(path), str(out)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="private memory is read from Linux's /proc")
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_memory_is_bounded_whatever_the_size(tmp_path: Path, layout: str) -> None:
    small = peak(write(tmp_path / "small.h5ad", 50_000, layout), tmp_path / "small")
    large = peak(write(tmp_path / "large.h5ad", 150_000, layout), tmp_path / "large")
    assert large < 1_500_000_000
    # 20 million counts more (160 MB in the file) bring cell names and little else.
    assert large - small < 100_000_000, (small, large)
