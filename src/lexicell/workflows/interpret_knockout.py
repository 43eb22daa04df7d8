"""What does the model expect when a gene is gone, and is that more than of any gene expressed alike?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track

from lexicell.data.cells import CellCollection
from lexicell.errors import InputError, listing
from lexicell.gene_space.matched_controls import against_controls, nearest_controls
from lexicell.gene_space.multiple_testing import benjamini_hochberg
from lexicell.inference.cell_model import CellModel
from lexicell.inference.knockout import KnockOut, KnockOuts
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.interpret_figures import knockout_volcano, response_map
from lexicell.reporting.text import Table
from lexicell.workflows.embed import load
from lexicell.workflows.genes_cells import Expression, expression_in, one_species, open_cells
from lexicell.workflows.interpret_cells import gene_names, genes_named, groups_or_all, one_query, report_folder
from lexicell.workflows.interpret_options import LEAST_CELLS, KnockoutOptions

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_EFFECTS = ("shift", "response", "own_label")


@dataclass(frozen=True)
class InterpretKnockoutResult:
    """Effects of knock-outs."""

    level: str
    options: KnockoutOptions
    genes: pd.DataFrame
    """One row a group and gene: group, gene_id, symbol, level (mean log CPM), level_controls (that of the controls: far
    from level where no gene is expressed alike), cells (altered); shift (of the embedding, over the spread of the
    group's cells), aligned (1 where all cells move the same way), response (mean size of the change of expected log
    counts), own_label (change of the log probability of the group's label), relabelled (share); and for shift,
    response and own_label ``_controls`` (mean of the controls), ``_z``, ``_p`` and ``_fdr``."""
    responses: pd.DataFrame
    """One row a group, gene and responding gene: group, symbol, responding, change (of the expected log count), z,
    p, fdr."""
    skipped: tuple[str, ...]
    """Genes that too few cells of a group express."""
    written: tuple[Path, ...]

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "by": self.level,
            "mode": self.options.mode,
            "controls": self.options.controls,
            "genes": self.genes.to_dict("records"),
            "responses_tested": len(self.responses),
            "responses_fdr05": int((self.responses["fdr"] <= 0.05).sum()),
            "skipped": list(self.skipped),
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        columns = ["group", "symbol", "level", "level_controls", "shift", "shift_controls", "shift_p", "shift_fdr"]
        columns += ["own_label", "own_label_p", "own_label_fdr"]
        words = ("group", "gene", "level", "controls'", "shift", "controls'", "p", "FDR", "own label", "p", "FDR")
        rows = tuple(tuple(row) for row in self.genes.head(25)[columns].itertuples(index=False))
        tables = [Table(f"Knocked out ({self.options.mode}); shift in units of the cells' spread", words, rows)]
        first = self.responses.sort_values(["p", "change"], kind="stable").head(15)
        columns = ["group", "symbol", "responding", "change", "z", "p", "fdr"]
        rows = tuple(tuple(row) for row in first[columns].itertuples(index=False))
        title = "Foremost responses (change of the expected log count)"
        tables.append(Table(title, ("group", "knocked out", "gene", "change", "z", "p", "FDR"), rows))
        if self.skipped:
            skipped = tuple((text,) for text in self.skipped[:20])
            tables.append(Table(f"Fewer than {LEAST_CELLS} cells express", ("gene",), skipped))
        return tables


def interpret_knockout(
    model: CellModel | str | Path,
    store: str | Path | Sequence[str | Path] | None = None,
    *,
    genes: Sequence[str] = (),
    by: str | None = None,
    groups: Sequence[str] = (),
    species: str | None = None,
    options: KnockoutOptions | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> InterpretKnockoutResult:
    """Knock genes out in cells, and compare what happens with knock-outs of genes expressed alike.

    Parameters
    ----------
    model
        A run folder, or a model.
    store
        Stores with the cells; the run's own when None.
    genes
        Genes to knock out, by symbol or id.
    by
        Column of the cell annotation whose groups are looked at apart; all cells together when None. Where the label
        head knows it, the group's own label is followed.
    groups
        Groups wanted; all when empty.
    species
        Whose genes; not needed where the model knows one species.
    options
        How it is done.
    seed
        Draws cells.
    out
        Folder for tables and pictures; ``report`` in the run's folder when None. A model alone writes nothing
        without it.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When a gene or an option cannot be used.
    """
    options = options or KnockoutOptions()
    if not genes and not options.scan:
        raise InputError("which genes? Name them (--genes), or ask for so many of the most expressed ones (--scan)")
    if groups and by is None:
        raise InputError("--groups: groups of which column? Name it with --by")
    loaded = load(model)
    collection = open_cells(model, loaded, store)
    name = one_species(collection, species)
    asked = genes_named(loaded.lexicon, name, genes) if genes else np.zeros(0, np.int64)
    rng = generator(seed, "knock-out cells")
    chosen = groups_or_all(collection, by, name, options.pool, rng, only=groups, least=LEAST_CELLS)
    responding = _responding(collection, np.sort(np.concatenate(chosen.cells)), name, options.responding)
    rows, responses, skipped = [], [], []
    for group, own in track(
        list(zip(chosen.names, chosen.cells, strict=True)), description="knocking out", disable=not progress
    ):
        seen = expression_in(collection, own, collection.lexicon.rows_of(name), least_cells=LEAST_CELLS)
        wanted = np.union1d(asked, seen.genes[np.argsort(-np.diff(seen.counts.indptr), kind="stable")[: options.scan]])
        there = np.flatnonzero(np.isin(seen.genes, wanted))
        lost = np.setdiff1d(wanted, seen.genes)
        skipped += [f"{symbol} in {group}" for symbol in gene_names(loaded.lexicon, lost)]
        if not len(there):
            continue
        knock = KnockOuts(loaded, one_query(collection, own), responding, _label(loaded, by, group))
        table, response = _group(loaded, knock, seen, there, responding, options, rng)
        table.insert(0, "group", group)
        response.insert(0, "group", group)
        rows.append(table)
        responses.append(response)
    if not rows:
        raise InputError(f"no group has {LEAST_CELLS} cells that express {listing(genes, 8)}; take more cells (--pool)")
    result = InterpretKnockoutResult(
        chosen.level,
        options,
        pd.concat(rows, ignore_index=True),
        pd.concat(responses, ignore_index=True),
        tuple(skipped),
        (),
    )
    folder = report_folder(model, out)
    return result if folder is None else _write(result, folder)


def _responding(collection: CellCollection, cells: Int64, species: str, n: int) -> Int64:
    """Return the genes that vary most over the cells, ascending."""
    seen = expression_in(collection, cells, collection.lexicon.rows_of(species), least_cells=LEAST_CELLS)
    square = np.asarray(seen.counts.multiply(seen.counts).mean(axis=0)).ravel()
    variance = square - np.asarray(seen.counts.mean(axis=0)).ravel() ** 2
    return np.sort(seen.genes[np.argsort(-variance, kind="stable")[:n]])


def _label(model: CellModel, by: str | None, group: str) -> tuple[int, int] | None:
    tree = model.label_tree
    if tree is None or by not in tree.levels:
        return None
    level = tree.levels.index(by)
    names = list(tree.names[level])
    return (level, names.index(group)) if group in names else None


def _group(
    model: CellModel,
    knock: KnockOuts,
    seen: Expression,
    there: Int64,
    responding: Int64,
    options: KnockoutOptions,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Knock out genes of one group and their controls; return the tables of genes and of responses."""
    detection = np.diff(seen.counts.indptr).astype(float)
    features = np.stack([seen.level, detection, seen.level / detection], axis=1)
    controls = nearest_controls(features, there, options.controls)
    all_genes = np.union1d(there, controls)
    found = knock.run(seen.genes[all_genes].tolist(), options.cells, rng, options.mode)
    own, other = np.searchsorted(all_genes, there), np.searchsorted(all_genes, controls)
    about = model.lexicon.table.iloc[seen.genes[there]]
    symbol = np.array(gene_names(model.lexicon, seen.genes[there]), dtype=object)
    table = pd.DataFrame({"gene_id": about["gene_id"].to_numpy(), "symbol": symbol, "level": seen.level[there]})
    table["level_controls"] = seen.level[controls].mean(axis=1)
    spread = max(knock.between, 1e-12)
    table = table.assign(cells=found.n_cells[own], aligned=found.aligned[own], relabelled=found.relabelled[own])
    values = {"shift": found.shift / spread, "response": found.response_size, "own_label": found.own_label}
    for effect in _EFFECTS:
        value = values[effect]
        z, p = against_controls(value[own], value[other], two_sided=effect == "own_label")
        known = np.isfinite(value[other])
        mean = np.where(known, value[other], 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        table[effect], table[f"{effect}_controls"] = value[own], np.where(known.any(axis=1), mean, np.nan)
        table[f"{effect}_z"], table[f"{effect}_p"], table[f"{effect}_fdr"] = z, p, benjamini_hochberg(p)
    order = np.lexsort((-table["shift_z"], table["shift_p"]))
    return table.iloc[order], _responses(model, found, own, other, seen.genes[there], responding, symbol)


def _responses(
    model: CellModel,
    found: KnockOut,
    own: Int64,
    other: Int64,
    knocked: Int64,
    responding: Int64,
    symbol: npt.NDArray[np.object_],
) -> pd.DataFrame:
    """Return what every responding gene does in every knock-out, but for the knocked-out gene itself."""
    change = found.responses[own]
    change[knocked[:, None] == responding] = np.nan
    controls = np.moveaxis(found.responses[other], 1, 2).reshape(-1, other.shape[1])
    z, p = against_controls(change.ravel(), controls, two_sided=True)
    names = np.array(gene_names(model.lexicon, responding), dtype=object)
    table = pd.DataFrame({"symbol": np.repeat(symbol, len(names)), "responding": np.tile(names, len(symbol))})
    table = table.assign(change=change.ravel(), z=z, p=p)
    table = table[table["change"].notna()].reset_index(drop=True)
    return table.assign(fdr=benjamini_hochberg(table["p"].to_numpy(np.float64)))


def _write(result: InterpretKnockoutResult, folder: Path) -> InterpretKnockoutResult:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "interpret_knockout.csv", folder / "interpret_knockout_responses.parquet"]
    result.genes.to_csv(written[0], index=False)
    result.responses.to_parquet(written[1], index=False)
    written += save_figure(knockout_volcano(result.genes), folder / "interpret_knockout")
    written += save_figure(response_map(result.responses), folder / "interpret_knockout_responses")
    return replace(result, written=tuple(written))
