"""What the interpreting verbs share: cells as one query, genes by name, where results go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from lexicell.data.cells import CellCollection
from lexicell.data.query import Query
from lexicell.errors import InputError, listing
from lexicell.genes.annotations import GeneAnnotations, MatchReport
from lexicell.genes.lexicon import Lexicon
from lexicell.inference.cell_model import CellModel
from lexicell.workflows.genes_cells import FOLDER, Groups, cells_of_species, groups_of, queries

Int64 = npt.NDArray[np.int64]


def report_folder(model: CellModel | str | Path, out: str | Path | None) -> Path | None:
    """Return where tables and pictures go: `out`, else ``report`` in the run's folder, None for a model alone."""
    return Path(out) if out is not None else None if isinstance(model, CellModel) else Path(model) / FOLDER


def one_query(collection: CellCollection, cells: Int64) -> Query:
    """Return some cells (ascending, of one species) as one query over the genes that all of them measured.

    Raises
    ------
    InputError
        When cells of different panels share no gene that the model knows.
    """
    parts = list(queries(collection, cells))
    if len(parts) == 1:
        return parts[0]
    shared = np.unique(parts[0].gene_index[parts[0].gene_index >= 0])
    for part in parts[1:]:
        shared = np.intersect1d(shared, part.gene_index)
    if not len(shared):
        raise InputError("the cells are of gene panels that share no gene; name one store (--store)")
    cut = [part.over(shared) for part in parts]
    counts = csr_matrix(vstack([part.counts for part in cut], format="csr"))
    report = MatchReport(len(shared), len(shared), 0, 0)
    obs = pd.DataFrame(index=pd.RangeIndex(len(cells)).astype(str))
    return Query(counts, shared, parts[0].species, report, obs, "the store", ())


def genes_named(lexicon: Lexicon, species: str, names: Sequence[str]) -> Int64:
    """Return the lexicon indices of genes of a species, given by id or symbol, in the order of the names.

    Raises
    ------
    InputError
        When one is not known, or named twice.
    """
    rows = GeneAnnotations.from_lexicon(lexicon, species).resolve(list(names)).rows
    unknown = [name for name, row in zip(names, rows, strict=True) if row < 0]
    if unknown:
        own = lexicon.table.iloc[lexicon.rows_of(species)[:3]]
        raise InputError(
            f"{species}: the model knows no gene {listing(unknown, 8)} by id or symbol (they are named like "
            f"{listing([*own['gene_id'], *own['symbol']], 6)})"
        )
    found = lexicon.rows_of(species)[rows]
    if len(np.unique(found)) < len(found):
        raise InputError(f"genes: one is named twice among {listing(names, 10)}")
    return np.asarray(found, dtype=np.int64)


def gene_names(lexicon: Lexicon, genes: Int64) -> list[str]:
    """Return what to call genes: their symbols, or ids where there are none."""
    table = lexicon.table.iloc[genes]
    symbol = table["symbol"].fillna("").astype(str)
    return symbol.where(symbol != "", table["gene_id"]).astype(str).tolist()


def groups_or_all(
    collection: CellCollection,
    level: str | None,
    species: str,
    most: int,
    rng: np.random.Generator,
    *,
    only: Sequence[str] = (),
    least: int = 3,
) -> Groups:
    """Return the cells of each group of a column, or all cells of a species as one group; at most so many of each."""
    if level is not None:
        return groups_of(collection, level, species=species, only=only, least=least, most=most, rng=rng)
    cells = np.sort(rng.permutation(cells_of_species(collection, species))[:most])
    if len(cells) < least:
        raise InputError(f"{species}: {len(cells)} cells; {least} or more are needed")
    return Groups("all cells", ("all cells",), (cells,))
