"""Cells that the gene verbs look at: a run's stores as one collection, groups of cells, expression of genes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix

from lexicell.data.cells import CellCollection
from lexicell.data.query import Query, store_queries
from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.genes.species import find_species
from lexicell.inference.cell_model import CellModel
from lexicell.training.gene_rows import log_cpm
from lexicell.training.run_folder import RUN, read_json

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

FOLDER = "report"  # of a run: where tables and pictures go unless said otherwise


@dataclass(frozen=True, eq=False)
class Groups:
    """Cells by group."""

    level: str
    names: tuple[str, ...]
    cells: tuple[Int64, ...]
    """Rows of the collection of each group, ascending."""


def open_cells(
    model: CellModel | str | Path, loaded: CellModel, store: str | Path | Sequence[str | Path] | None
) -> CellCollection:
    """Open stores over a model's lexicon: those given, or those that the run was trained on.

    Raises
    ------
    InputError
        When there is neither, or a store cannot be opened.
    """
    if store is None:
        if isinstance(model, CellModel) or not (Path(model) / RUN).is_file():
            raise InputError("which cells? Name a store (--store): the model does not say what it was trained on")
        paths: list[str | Path] = [entry["path"] for entry in read_json(Path(model) / RUN)["stores"]]
        gone = [path for path in paths if not Path(path).is_dir()]
        if gone:
            raise InputError(
                f"{model}: the stores that it was trained on are gone ({listing(gone, 3)}); name one with --store"
            )
    else:
        paths = [store] if isinstance(store, str | Path) else list(store)
    collection = CellCollection([Store.open(path) for path in paths], loaded.lexicon)
    if not any(len(panel) for panel in collection.panels):
        raise InputError(f"{listing(paths, 3)}: the model knows none of the genes; was it trained on these species?")
    return collection


def groups_of(
    collection: CellCollection,
    level: str,
    *,
    species: str | None = None,
    only: Sequence[str] = (),
    least: int = 1,
    most: int | None = None,
    rng: np.random.Generator,
) -> Groups:
    """Return the cells of each group of an obs column.

    Parameters
    ----------
    collection
        The cells.
    level
        Column of the stores' cell annotation, such as ``cell_type``, ``tissue`` or ``donor``.
    species
        Only its cells; all cells when None.
    only
        Groups wanted; all when empty.
    least
        Groups with fewer cells are left out, unless they were asked for.
    most
        At most so many cells of a group, drawn at random.
    rng
        Draws them.

    Raises
    ------
    InputError
        When there is no such column, or a wanted group is not in it or too small.
    """
    if level not in collection.columns:
        raise InputError(f"--by {level}: the cells have no such column; they have {listing(collection.columns, 12)}")
    column = collection.coded(level)
    codes = column.codes.copy()
    if species is not None:
        codes[~np.isin(np.arange(len(codes)), cells_of_species(collection, species))] = -1
    size = np.bincount(codes[codes >= 0], minlength=len(column.names))
    wanted = list(only) or [name for name, n in zip(column.names, size, strict=True) if n >= least]
    strangers = [name for name in wanted if name not in column.names]
    if strangers:
        raise InputError(f"{level}: there is no {listing(strangers)}; there are {listing(column.names, 20)}")
    small = [name for name in wanted if size[column.names.index(name)] < least]
    if small or not wanted:
        raise InputError(f"{level}: fewer than {least} cells in {listing(small or column.names, 10)}")
    cells = []
    for name in wanted:
        own = np.flatnonzero(codes == column.names.index(name))
        cells.append(np.sort(rng.permutation(own)[:most]) if most is not None and len(own) > most else own)
    return Groups(level, tuple(wanted), tuple(cells))


def cells_of_species(collection: CellCollection, species: str) -> Int64:
    """Return the cells that measured genes of a species, ascending."""
    genes = collection.lexicon.rows_of(species)
    own = [p for p, panel in enumerate(collection.panels) if len(panel) and np.isin(panel[0], genes)]
    return np.flatnonzero(np.isin(collection.panel, own))


def queries(collection: CellCollection, cells: Int64) -> Iterator[Query]:
    """Yield cells (ascending) as queries over the model's lexicon."""
    start = 0
    for store in collection.stores:
        own = cells[(cells >= start) & (cells < start + store.n_cells)] - start
        if len(own):
            yield from store_queries(store, own, collection.lexicon)
        start += store.n_cells


def measured(collection: CellCollection, cells: Int64) -> npt.NDArray[np.int64]:
    """Return how many of some cells measured each gene, (n_genes of the lexicon,)."""
    n = np.zeros(len(collection.lexicon), np.int64)
    for panel, n_cells in zip(*np.unique(collection.panel[cells], return_counts=True), strict=True):
        n[collection.panels[panel]] += n_cells
    return n


@dataclass(frozen=True, eq=False)
class Expression:
    """Expression of the genes of one species, those expressed in enough cells."""

    genes: Int64
    """(n,) lexicon indices."""
    counts: csc_matrix
    """(n_cells, n) log(1 + counts per 10,000)."""
    level: Float64
    """(n,) its mean over the cells that measured the gene."""
    is_measured: npt.NDArray[np.bool_]
    """(n_cells, n) whether the gene is in the cell's panel."""


def expression(
    collection: CellCollection, species: str, *, least_cells: int, most_cells: int, rng: np.random.Generator
) -> Expression:
    """Return the expression of a species' genes in some of its cells.

    Parameters
    ----------
    collection
        The cells.
    species
        Species key.
    least_cells
        Genes expressed in fewer of the chosen cells are left out.
    most_cells
        At most so many cells, drawn at random; those bound memory and time.
    rng
        Draws them.
    """
    genes = collection.lexicon.rows_of(species)
    cells = np.sort(rng.permutation(cells_of_species(collection, species))[:most_cells])
    return expression_in(collection, cells, genes, least_cells=least_cells)


def expression_in(collection: CellCollection, cells: Int64, genes: Int64, *, least_cells: int) -> Expression:
    """Return the expression of all genes of a species (ascending) in some of its cells (ascending).

    Genes that fewer than `least_cells` of the cells express are left out.
    """
    counts = log_cpm(collection, cells, genes)
    keep = np.diff(counts.indptr) >= least_cells
    if keep.sum() < 3:
        raise InputError(f"fewer than 3 genes are expressed in at least {least_cells} of the cells")
    counts, genes = csc_matrix(counts[:, keep]), genes[keep]
    known = np.stack([np.isin(genes, panel) for panel in collection.panels])[collection.panel[cells]]
    level = np.asarray(counts.sum(axis=0)).ravel() / np.maximum(known.sum(axis=0), 1)
    return Expression(genes, counts, level, known)


def one_species(collection: CellCollection, wanted: str | None) -> str:
    """Return the species asked for, or the only one of the cells.

    Raises
    ------
    InputError
        When there are several and none was named, or the named one is not there.
    """
    held = collection.lexicon.species
    if wanted is not None:
        name = find_species(wanted).name
        if name not in held:
            raise InputError(f"--species {wanted}: the model knows {listing(held)}")
        return name
    if len(held) > 1:
        raise InputError(f"which species? The model knows {listing(held)}; name one with --species")
    return held[0]
