"""Who attends to whom, and is it more than co-expression?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from lexicell.data.cells import CellCollection
from lexicell.errors import InputError
from lexicell.gene_space.gene_pairs import product_corrected, symmetric, top_partners
from lexicell.inference.attention import AttentionSums, attention_sums
from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.interpret_figures import attention_map, main_checks, pair_check_dots, read_map
from lexicell.reporting.text import Table
from lexicell.workflows.attention_check import BASELINE, BEST, check_attention
from lexicell.workflows.embed import load
from lexicell.workflows.genes_cells import Expression, expression_in, one_species, open_cells, queries
from lexicell.workflows.interpret_cells import gene_names, genes_named, groups_or_all, report_folder
from lexicell.workflows.known_pairs import read_known

Int64 = npt.NDArray[np.int64]

MAP_GENES = 40  # of the heat map
TOP_READ = 6  # genes of each group in the picture of what CLS reads
HEADS, ROLLOUT = "all heads", "rollout"
_MAIN = (BEST, HEADS, "all heads, corrected", ROLLOUT, "rollout, corrected", BASELINE, "expression level")


@dataclass(frozen=True)
class InterpretAttentionResult:
    """Attention between genes."""

    species: str
    level: str
    groups: pd.DataFrame
    """One row a group: group, cells."""
    n_genes: int
    top: pd.DataFrame
    """One row a group, map (``all heads``, ``rollout``, ``layer 1, head 1`` ...), gene and partner that it attends to:
    rank, attention (relative to uniform), cells (in which the two met)."""
    read: pd.DataFrame
    """What CLS attends to: one row a group and gene: gene_id, symbol, cells, heads, rollout (relative to uniform)."""
    map: pd.DataFrame
    """The heat map: one row a gene and partner, in its order, with the mean over heads."""
    checks: pd.DataFrame
    """Attention and co-expression against known pairs, see `lexicell.workflows.attention_check.check_attention`."""
    written: tuple[Path, ...]

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "species": self.species,
            "by": self.level,
            "genes": self.n_genes,
            "groups": self.groups.to_dict("records"),
            "checks": self.checks.to_dict("records"),
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        tables = []
        words = ("score", "AUROC", "95% from", "to", "in bins", "less co-expression", "from", "to")
        columns = ["score", "auroc", "low", "high", "auroc_matched"]
        columns += ["difference", "difference_low", "difference_high"]
        for known, part in self.checks.groupby("known", sort=False) if len(self.checks) else ():
            main = part[part["score"].isin(_MAIN) | part["score"].str.contains("reads")]
            n_pairs, n_genes = part["pairs"].iloc[0], part["genes"].iloc[0]
            title = f"Known partners of a gene found: {known}, {n_pairs:,} pairs of {n_genes:,} genes"
            tables.append(Table(title, words, tuple(tuple(row) for row in main[columns].itertuples(index=False))))
        first = self.read.sort_values(["group", "rollout"], ascending=[True, False], kind="stable")
        rows = tuple(
            (group, int(self.groups.set_index("group")["cells"][group]), ", ".join(part["symbol"].head(TOP_READ)))
            for group, part in first.groupby("group", sort=False)
        )
        return [*tables, Table("What CLS reads (rollout)", ("group", "cells", "foremost genes"), rows)]


def interpret_attention(
    model: CellModel | str | Path,
    store: str | Path | Sequence[str | Path] | None = None,
    *,
    by: str | None = None,
    species: str | None = None,
    genes: int = 1000,
    show: Sequence[str] = (),
    known: tuple[Sequence[str | Path], Sequence[str | Path]] = ((), ()),
    cells: int = 100,
    top: int = 10,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> InterpretAttentionResult:
    """Average the attention between genes over the cells of each group, and check it against known pairs.

    Parameters
    ----------
    model
        A run folder, or a model.
    store
        Stores with the cells; the run's own when None.
    by
        Column of the cell annotation whose groups are looked at apart; all cells together when None.
    species
        Whose genes; not needed where the model knows one species.
    genes
        So many genes between which attention is kept: those expressed in most of the cells. Memory grows with its
        square.
    show
        Genes of the heat map, by symbol or id; those of the strongest pairs when empty.
    known
        Known pairs to check against: tables of pairs, and GMT files (see `lexicell.workflows.known_pairs.read_known`).
    cells
        At most so many cells of a group, drawn at random.
    top
        Partners of each gene that are written.
    seed
        Draws cells and intervals.
    out
        Folder for tables and pictures; ``report`` in the run's folder when None. A model alone writes nothing
        without it.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When a file or an option cannot be used.
    """
    if min(genes, cells) < 3 or top < 1:
        raise InputError("--genes and --cells: 3 or more; --top: 1 or more")
    loaded = load(model)
    collection = open_cells(model, loaded, store)
    name = one_species(collection, species)
    groups = groups_or_all(collection, by, name, cells, generator(seed, "attention cells"))
    everyone = np.sort(np.concatenate(groups.cells))
    wanted = genes_named(loaded.lexicon, name, show) if show else np.zeros(0, np.int64)
    seen = _most_expressed(collection, name, everyone, genes, wanted)
    about = loaded.lexicon.table.iloc[seen.genes].reset_index(drop=True)
    pairs = read_known(about, *known)
    least = max(3, round(0.02 * len(everyone)))
    whole, tops, reads = AttentionSums.empty(loaded, seen.genes), [], []
    names = np.array(gene_names(loaded.lexicon, seen.genes), dtype=object)
    for group, own in track(
        list(zip(groups.names, groups.cells, strict=True)), description="attention", disable=not progress
    ):
        found = attention_sums(loaded, queries(collection, own), seen.genes)
        tops.append(_top(found, group, names, top, max(3, round(0.02 * len(own)))))
        reads.append(_read(found, group, loaded, len(own)))
        whole.add(found)
    result = InterpretAttentionResult(
        name,
        groups.level,
        pd.DataFrame({"group": groups.names, "cells": [len(own) for own in groups.cells]}),
        len(seen.genes),
        pd.concat(tops, ignore_index=True),
        pd.concat(reads, ignore_index=True),
        _map(whole, names, np.searchsorted(seen.genes, wanted), least),
        check_attention(whole, seen, pairs, least, seed) if pairs else pd.DataFrame(),
        (),
    )
    folder = report_folder(model, out)
    return result if folder is None else _write(result, folder)


def _most_expressed(collection: CellCollection, species: str, cells: Int64, n_genes: int, wanted: Int64) -> Expression:
    """Return the expression of the genes that most of the cells express, and of those wanted, ascending."""
    seen = expression_in(collection, cells, collection.lexicon.rows_of(species), least_cells=3)
    often = np.argsort(-np.diff(seen.counts.indptr), kind="stable")[:n_genes]
    at = np.union1d(often, np.flatnonzero(np.isin(seen.genes, wanted)))
    missing = np.setdiff1d(wanted, seen.genes)
    if len(missing):
        lost = ", ".join(gene_names(collection.lexicon, missing))
        raise InputError(f"--show: fewer than 3 of the cells looked at express {lost}; take more cells (--cells)")
    return Expression(seen.genes[at], seen.counts[:, at], seen.level[at], seen.is_measured[:, at])


def _top(found: AttentionSums, group: str, names: npt.NDArray[np.object_], top: int, least: int) -> pd.DataFrame:
    last = len(found.maps) - 1
    maps = {HEADS: found.head_mean(least), ROLLOUT: found.mean(last, least)}
    parts = []
    for which, mean in (maps | {name: found.mean(m, least) for m, name in enumerate(found.maps[:last])}).items():
        rows, columns = top_partners(mean, top)
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows) + 1
        part = {"group": group, "map": which, "gene": names[rows], "partner": names[columns], "rank": rank}
        met = found.pairs[rows, columns].astype(np.int64)
        parts.append(pd.DataFrame(part | {"attention": mean[rows, columns], "cells": met}))
    return pd.concat(parts, ignore_index=True)


def _read(found: AttentionSums, group: str, model: CellModel, n_cells: int) -> pd.DataFrame:
    """Return what CLS attends to, of the genes that a tenth of the cells express (3 cells at least)."""
    shown = np.flatnonzero(found.shown >= max(3, 0.1 * n_cells))
    means = found.cls[:, shown] / found.shown[shown]
    about = model.lexicon.table.iloc[shown][["gene_id"]].reset_index(drop=True)
    about.insert(0, "group", group)
    about["symbol"] = gene_names(model.lexicon, shown)
    return about.assign(cells=found.shown[shown].astype(int), heads=means[:-1].mean(axis=0), rollout=means[-1])


def _map(whole: AttentionSums, names: npt.NDArray[np.object_], wanted: Int64, least: int) -> pd.DataFrame:
    """Choose the genes of the heat map, those wanted or those of the strongest pairs; like genes side by side."""
    mean = whole.head_mean(least)
    corrected = product_corrected(symmetric(mean))
    strength = np.where(np.isnan(corrected), -np.inf, corrected)
    chosen = wanted
    if not len(chosen):
        upper = np.triu_indices(len(strength), k=1)
        order = np.argsort(-strength[upper], kind="stable")
        ends = np.stack([upper[0][order], upper[1][order]], axis=1).ravel()
        _, first = np.unique(ends, return_index=True)
        chosen = ends[np.sort(first)][:MAP_GENES]
    if len(chosen) > 2:
        near = np.nan_to_num(corrected[np.ix_(chosen, chosen)], nan=0.0)
        far = near.max() - near
        np.fill_diagonal(far, 0)
        chosen = chosen[leaves_list(linkage(squareform(far, checks=False), "average"))]
    rows, columns = np.repeat(chosen, len(chosen)), np.tile(chosen, len(chosen))
    values = np.where(rows == columns, np.nan, mean[rows, columns])
    return pd.DataFrame({"gene": names[rows], "partner": names[columns], "attention": values})


def _write(result: InterpretAttentionResult, folder: Path) -> InterpretAttentionResult:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "interpret_attention_top.parquet", folder / "interpret_attention_read.parquet"]
    result.top.to_parquet(written[0], index=False)
    result.read.to_parquet(written[1], index=False)
    for name, table in (("map", result.map), ("checks", result.checks)):
        path = folder / f"interpret_attention_{name}.csv"
        path.unlink(missing_ok=True)  # checks of an earlier call are not this one's
        if len(table):
            table.to_csv(path, index=False)
            written.append(path)
    written += save_figure(attention_map(result.map), folder / "interpret_attention_map")
    written += save_figure(read_map(result.read), folder / "interpret_attention_read")
    if len(result.checks):
        written += save_figure(pair_check_dots(main_checks(result.checks)), folder / "interpret_attention_checks")
    return replace(result, written=tuple(written))
