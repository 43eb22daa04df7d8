"""Genes of a species that joins: is the confidence of matches right, do genes of a new panel find their place?

Usage:
  python benchmarks/species_genes.py confidence --data FOLDER [--seeds 5] [--out PICTURE]
  python benchmarks/species_genes.py panel --data FOLDER [--seeds 5]

`confidence`: Baron human joins Baron mouse. Human rows are set by the coupling from mouse rows as a model begins with
them, and matched as `lexicell genes match` does; the confidence is fitted on half of the one-to-one orthologs and
checked on the other half.

`panel`: half of the genes are hidden from donor mouse1, whose cells train the old rows, and join with donor mouse2,
which measured all. A gene's neighbours are its 10 nearest of the old genes, by the rows that both donors with all genes
give. Scored is the AUC with which the joined row's cosine finds them, of genes in 20 cells or more. Rows by:

- co-expression: as `extend` sets them, among the old genes that mouse2 measured too.
- coupling: as if mouse2 shared no gene with mouse1.
- profile: by rank features alone.
- random rows: those of co-expression, dealt out anew.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from species import ORTHOLOGS

import lexicell as lx
from lexicell.data.cells import CellCollection
from lexicell.data.store import Store
from lexicell.gene_space.coupled_genes import match_genes as match_coupled
from lexicell.gene_space.coupling import couple_species
from lexicell.gene_space.matching import MatchConfidence, match_genes
from lexicell.gene_space.profiles import expression_profile
from lexicell.genes.orthologs import read_orthologs
from lexicell.neighbors import find_neighbors
from lexicell.randomness import generator
from lexicell.reporting.figures import PALETTE, STYLE
from lexicell.reporting.text import Table, print_tables
from lexicell.training.gene_rows import GeneRowConfig, log_cpm, start_genes
from lexicell.training.species_rows import new_gene_rows

WIDTH, NEIGHBORS, TOP = 128, 10, 5
SEEN = 20  # cells in which a gene is expressed, to be scored
BINS = 5

Float32 = npt.NDArray[np.float32]


def store_of(
    data: Path, species: str, folder: Path, donor: str = "", genes: npt.NDArray[np.bool_] | None = None
) -> Store:
    """Prepare cells of one donor, or of all, with some genes, or all; symbols are their ids."""
    cells = ad.read_h5ad(data / f"pancreas/baron_{species}_raw.h5ad")
    if donor:
        cells = cells[cells.obs["donor"] == donor]
    if genes is not None:
        cells = cells[:, genes]
    cells = ad.AnnData(cells.X, obs=cells.obs[["donor"]].copy(), var=pd.DataFrame(index=cells.var_names))
    out = folder / f"{species}{donor}{'' if genes is None else int(genes.sum())}"
    entry = {"adata": cells, "species": f"{species}_by_symbol", "donor": "donor", "name": out.name}
    lx.prepare({"datasets": [entry]}, out, progress=False)
    return Store.open(out)


def confidence(data: Path, seeds: int, folder: Path, picture: Path | None) -> list[dict[str, Any]]:
    """Return the check of each seed: calibration error, AUROC, mutual pairs."""
    stores = [store_of(data, name, folder) for name in ("mouse", "human")]
    lexicon = stores[0].lexicon.extend(stores[1].lexicon.table)
    n_old = stores[0].n_genes
    genes = [store.lexicon.table for store in stores]
    pairs = read_orthologs(data / ORTHOLOGS, "mouse", "human").match(*genes)
    collection = CellCollection(stores, lexicon)
    old, new = np.arange(stores[0].n_cells), np.arange(stores[0].n_cells, collection.n_cells)
    known = np.full(len(genes[1]), -1, np.int64)
    known[pairs[:, 1]] = pairs[:, 0]
    lines, bins = [], []
    for seed in range(seeds):
        rows = start_genes(CellCollection([stores[0]], stores[0].lexicon), old, WIDTH, GeneRowConfig(), seed).rows
        joined = new_gene_rows(collection, old, new, rows[:n_old], seed=seed)
        seen = joined.usual > 0
        matches = match_genes(joined.rows, rows[:n_old], k=TOP)
        known_seen = np.where(seen, known, -1)
        fitted = MatchConfidence.fit(matches, known_seen, seed)
        if fitted is None:
            raise SystemExit("no confidence could be fitted: are these the right orthologs?")
        model, check = fitted
        right = (matches.indices[:, 0] == known_seen)[known_seen >= 0]
        mutual = matches.mutual[:, 0][known_seen >= 0]
        line = {
            "seed": seed,
            **asdict(check),
            "mutual": float(mutual.mean()),
            "right if mutual": float(right[mutual].mean()),
        }
        lines.append(line | {"highest": float(np.quantile(model.of(matches)[known_seen >= 0, 0], 0.99))})
        asked = np.flatnonzero(known_seen >= 0)
        bins.append(reliability(model.of(matches)[asked, 0], matches.indices[asked, 0] == known_seen[asked]))
        print(lines[-1], flush=True)
    if picture:
        draw(pd.concat(bins, keys=range(seeds), names=["seed"]), picture)
    return lines


def reliability(sure: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Return mean confidence and share right in bins of equally many genes."""
    parts = np.array_split(np.argsort(sure, kind="stable"), BINS)
    return pd.DataFrame({"confidence": [sure[p].mean() for p in parts], "right": [right[p].mean() for p in parts]})


def draw(bins: pd.DataFrame, path: Path) -> None:
    """Draw the share right against the confidence, a line a seed."""
    with rc_context(STYLE):
        figure = Figure(figsize=(3.4, 3.2), layout="constrained")
        axis = figure.subplots()
        most = 1.05 * float(bins.to_numpy().max())
        axis.plot([0, most], [0, most], ":", color="0.5")
        for _, part in bins.groupby(level="seed"):
            axis.plot(part["confidence"], part["right"], ".-", color=PALETTE[0], alpha=0.6)
        axis.set(xlabel="confidence", ylabel="share right", xlim=(0, most), ylim=(0, most))
        figure.savefig(path.with_suffix(".png"), dpi=150)


def panel(data: Path, seeds: int, folder: Path) -> list[dict[str, Any]]:
    """Return the AUC of finding joined genes' neighbours, a line a seed and a way to set rows."""
    names = ad.read_h5ad(data / "pancreas/baron_mouse_raw.h5ad", backed="r").var_names
    both = store_of(data, "mouse", folder)
    second = store_of(data, "mouse", folder, donor="mouse2")
    lines = []
    for seed in range(seeds):
        kept = np.zeros(len(names), bool)
        kept[generator(seed, "panel").permutation(len(names))[: len(names) // 2]] = True
        first = store_of(data, "mouse", folder / str(seed), donor="mouse1", genes=kept)
        lexicon = first.lexicon.extend(second.lexicon.table)
        n_old = first.n_genes
        collection = CellCollection([first, second], lexicon)
        cells = np.arange(first.n_cells), np.arange(first.n_cells, collection.n_cells)
        old = start_genes(CellCollection([first], first.lexicon), cells[0], WIDTH, GeneRowConfig(), seed).rows
        truth = start_genes(CellCollection([both], lexicon), np.arange(both.n_cells), WIDTH, GeneRowConfig(), seed).rows
        logs = log_cpm(collection, cells[1], np.arange(len(lexicon)))
        hidden = n_old + np.flatnonzero(np.diff(logs.indptr)[n_old:] >= SEEN)
        nearest = find_neighbors(truth[:n_old], truth[hidden], k=NEIGHBORS).indices
        found = new_gene_rows(collection, *cells, old, seed=seed).rows[hidden - n_old]
        first_logs = log_cpm(collection, cells[0], np.arange(n_old))
        coupled = match_coupled(couple_species(first_logs, logs[:, hidden], seed=seed))
        profiles = expression_profile(first_logs), expression_profile(logs)[hidden]
        by_profile = find_neighbors(*profiles, k=15, metric="euclidean").indices
        ways = {
            "co-expression": found,
            "coupling": np.einsum("gk,gkw->gw", coupled.weights, old[coupled.genes]),
            "profile": old[by_profile].mean(axis=1),
            "random rows": generator(seed, "dealt anew").permutation(found),
        }
        for way, rows in ways.items():
            lines.append({"seed": seed, "rows by": way, **retrieved(rows, old, nearest)})
            print(lines[-1], flush=True)
    return lines


def retrieved(rows: Float32, old: Float32, nearest: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the AUC of the neighbours among all old genes by cosine, and the share that is among as many nearest."""
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (rows, old)]
    likeness = unit[0] @ unit[1].T
    rank = np.empty_like(likeness)
    np.put_along_axis(rank, likeness.argsort(axis=1), np.arange(likeness.shape[1], dtype=np.float32)[None], axis=1)
    k, n = nearest.shape[1], likeness.shape[1]
    own = np.take_along_axis(rank, nearest, axis=1)
    auc = (own.sum(axis=1) - k * (k - 1) / 2) / (k * (n - k))
    return {"auc": float(auc.mean()), "top": float((own >= n - k).mean()), "genes": len(rows)}


def summary(lines: list[dict[str, Any]], title: str) -> Table:
    """Return mean and range over seeds."""
    table = pd.DataFrame(lines)
    by = "rows by" if "rows by" in table else None
    measures = [name for name in table.columns if name not in {"seed", by}]
    rows = []
    for name, part in table.groupby(by, sort=False) if by else [("", table)]:
        cells = [f"{part[m].mean():.3f} ({part[m].min():.3f}-{part[m].max():.3f})" for m in measures]
        rows.append((name, *cells))
    return Table(title, (by or "", *measures), tuple(rows))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("confidence", "panel"))
    parser.add_argument("--data", type=Path, required=True, help="folder with pancreas/ and orthologs/")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="picture of the confidence")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "panel":
            lines = panel(options.data, options.seeds, Path(folder))
        else:
            lines = confidence(options.data, options.seeds, Path(folder), options.out)
    print_tables([summary(lines, f"Genes that joined: {options.what}")])


if __name__ == "__main__":
    main()
