"""The gene space in the plane, coloured by gene set, species and how often training saw a gene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError, listing
from lexicell.gene_space.gene_views import half_whitened
from lexicell.genes.gene_sets import GeneSets, read_gene_sets
from lexicell.genes.species import find_species
from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.gene_maps import gene_map
from lexicell.reporting.text import Table
from lexicell.training.run_folder import EXPOSURE
from lexicell.workflows.embed import load
from lexicell.workflows.held_out import plane
from lexicell.workflows.interpret_cells import gene_names, report_folder

Int64 = npt.NDArray[np.int64]

MOST_SETS = 8  # that colours still tell apart


@dataclass(frozen=True)
class GenesMapResult:
    """Genes in the plane."""

    genes: pd.DataFrame
    """One row a gene drawn: species, gene_id, symbol, x, y, method, set ("" outside the sets), seen (times that
    training showed it expressed; missing where that is not known)."""
    written: tuple[Path, ...]

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "genes": len(self.genes),
            "method": str(self.genes["method"].iloc[0]),
            "species": {str(k): int(v) for k, v in self.genes["species"].value_counts().items()},
            "sets": {str(k): int(v) for k, v in self.genes["set"].value_counts().items() if k},
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows: list[tuple[object, ...]] = [("genes", len(self.genes)), ("laid out by", self.genes["method"].iloc[0])]
        rows += [(f"genes of {name}", n) for name, n in self.figures()["species"].items()]
        rows += [(f"set {name}", n) for name, n in self.figures()["sets"].items()]
        rows += [("written", str(path)) for path in self.written]
        return [Table("Map of the gene space", ("", ""), tuple(rows))]


def genes_map(
    model: CellModel | str | Path,
    *,
    sets: str | Path | None = None,
    show: Sequence[str] = (),
    species: Sequence[str] = (),
    genes: int = 5000,
    seed: int = 0,
    out: str | Path | None = None,
) -> GenesMapResult:
    """Lay the gene space out in the plane, by UMAP where umap-learn is installed, else by principal components.

    Rows of the gene table are centred and half whitened first. Distances between far genes mean little in UMAP.

    Parameters
    ----------
    model
        A run folder, or a model, which does not know how often training saw a gene.
    sets
        GMT file of gene sets to colour genes by; a gene of several is coloured by the first.
    show
        Names of the sets, at most 8; when empty, the 8 first ones that have 5 to 200 of the genes.
    species
        Whose genes; all species of the model when empty.
    genes
        So many genes of each species at most: those that training saw expressed most often, or any where that is not
        known.
    seed
        Draws genes where it is not known how often they were seen.
    out
        Folder for table and picture; ``report`` in the run's folder when None. A model alone writes nothing
        without it.

    Raises
    ------
    InputError
        When a file or an option cannot be used.
    """
    if genes < 3:
        raise InputError(f"--genes {genes}: 3 or more")
    if show and sets is None:
        raise InputError("--show: sets of which file? Name it with --sets")
    loaded = load(model)
    names = [find_species(text).name for text in species] or list(loaded.lexicon.species)
    strangers = [name for name in names if name not in loaded.lexicon.species]
    if strangers:
        raise InputError(
            f"the model does not know {listing(strangers)}; it knows {listing(loaded.lexicon.species, 20)}"
        )
    seen = _seen(model)
    chosen = np.concatenate([_most_seen(loaded.lexicon.rows_of(name), seen, genes, seed) for name in names])
    weight = loaded.network.genes.weight.detach().float().cpu().numpy()[chosen]
    method, spots = plane(half_whitened(weight).astype(np.float32))
    table = loaded.lexicon.table.iloc[chosen].reset_index(drop=True)
    table["symbol"] = gene_names(loaded.lexicon, chosen)
    table = table.assign(x=spots[:, 0], y=spots[:, 1], method=method, set="")
    table["seen"] = seen[chosen] if seen is not None else np.nan
    if sets is not None:
        table["set"] = _coloured(read_gene_sets(sets), table, show)
    result = GenesMapResult(table, ())
    folder = report_folder(model, out)
    return result if folder is None else _write(result, folder)


def _seen(model: CellModel | str | Path) -> Int64 | None:
    path = None if isinstance(model, CellModel) else Path(model) / EXPOSURE
    if path is None or not path.is_file():
        return None
    return np.asarray(np.load(path, allow_pickle=False)[:, 0], dtype=np.int64)


def _most_seen(own: Int64, seen: Int64 | None, most: int, seed: int) -> Int64:
    order = generator(seed, "genes drawn").permutation(len(own))
    if seen is not None:
        order = np.argsort(-seen[own], kind="stable")
    return np.asarray(own[np.sort(order[:most])], dtype=np.int64)


def _coloured(collection: GeneSets, genes: pd.DataFrame, show: Sequence[str]) -> list[str]:
    """Return the first of the sets that each gene is in, "" for none."""
    members = max(
        (collection.membership(genes[column], ignore_case=True) for column in ("symbol", "gene_id")),
        key=lambda matrix: matrix.nnz,
    )
    size = np.diff(members.indptr)
    listed = [one.name for one in collection]
    if len(show) > MOST_SETS:
        raise InputError(f"--show: {len(show)} sets; {MOST_SETS} can still be told apart")
    missing = [name for name in show if name not in listed]
    if missing:
        raise InputError(f"{collection.name}: there is no set {listing(missing)}; there are {listing(listed, 8)}")
    rows = [listed.index(name) for name in show] or np.flatnonzero((size >= 5) & (size <= 200))[:MOST_SETS].tolist()
    if not rows or not size[rows].any():
        raise InputError(
            f"{collection.name}: no set to show has genes among those drawn; are they named as here "
            f"({listing(genes['symbol'][:3])})?"
        )
    out = [""] * len(genes)
    for row in reversed(rows):
        for gene in members.indices[members.indptr[row] : members.indptr[row + 1]].tolist():
            out[gene] = listed[row]
    return out


def _write(result: GenesMapResult, folder: Path) -> GenesMapResult:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "genes_map.parquet"]
    result.genes.to_parquet(written[0], index=False)
    written += save_figure(gene_map(result.genes), folder / "genes_map")
    return replace(result, written=tuple(written))
