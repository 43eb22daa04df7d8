"""Rows for the genes of a species that joins: each begins as a mean of old genes' rows, without any orthologs.

Which old genes, and how much of each, is matched from expression alone: groups of cells and genes of the two species
are coupled, each from the other (`lexicell.gene_space.coupling`). Where cells are too few for that, and where it is
asked for, genes are matched by the rank features of their expression. What else is known enters only where it is asked
for: labels of some new cells (the collection's), and symbols that both species use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix, csr_matrix

from lexicell.data.cells import CellCollection
from lexicell.errors import InputError
from lexicell.gene_space.coupled_genes import MatchedGenes, match_genes
from lexicell.gene_space.coupling import FEW_CELLS, FEWEST, Coupling, CouplingConfig, couple_species
from lexicell.gene_space.profiles import expression_profile
from lexicell.genes.orthologs import shared_symbols
from lexicell.neighbors import find_neighbors
from lexicell.randomness import generator, integer_seed
from lexicell.training.gene_rows import cells_of_genes, log_cpm
from lexicell.training.rows_by_coexpression import match_by_coexpression

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SpeciesRowConfig:
    """How rows of new genes are set."""

    method: Literal["coupling", "symbols", "profile"] = "coupling"
    """``coupling`` couples the two species' cells and genes by expression alone; ``symbols`` too, but takes genes of
    one symbol (whatever its case) for the same gene, which is orthology by nomenclature; ``profile`` compares each
    gene's rank features alone. New genes of a known species are placed by co-expression with its old ones, whatever
    the method."""
    neighbors: int = 15
    """Old genes that a new row is the mean of, weighted by how alike they are when coupled."""
    coupling: CouplingConfig = field(default_factory=CouplingConfig)
    """How species are coupled."""

    def __post_init__(self) -> None:
        if self.neighbors < 1:
            raise InputError(f"neighbors is {self.neighbors}: expected 1 or more old genes to begin a new row from")


@dataclass(frozen=True, eq=False)
class CoupledCells:
    """Cells of a species that joined, and the old cells with which they were coupled."""

    species: str
    old: Int64  # (n_old_cells,) indices in the collection
    new: Int64  # (n_new_cells,)
    genes: Int64  # (n_genes,) lexicon indices of the new species' genes
    couplings: list[Coupling]


@dataclass(frozen=True, eq=False)
class NewGeneRows:
    """What the new genes begin with; row ``i`` is lexicon index ``n_old + i``."""

    rows: Float32  # (n_new, width) embeddings
    usual: (
        Float32  # (n_new,) mean log(1 + counts per 10,000), for `GeneBag.usual`; 0 where no new cell measured the gene
    )
    weights: csr_matrix  # (n_new, n_old) share of each old gene in the row; rows sum to 1, or to 0 for unmeasured genes
    confidence: Float32  # (n_new,) sum of squared shares: 1 when one old gene takes all; 0 for unmeasured genes
    coupled: tuple[CoupledCells, ...] = ()  # one for each species that was coupled
    notes: tuple[str, ...] = ()  # what a user should mind


def new_gene_rows(
    collection: CellCollection,
    old_cells: Int64,
    new_cells: Int64,
    old_rows: Float32,
    config: SpeciesRowConfig | None = None,
    *,
    seed: int = 0,
) -> NewGeneRows:
    """Set rows of new genes from the rows of old genes that are expressed alike.

    No orthologs enter (with ``method="symbols"``, equal names do), and no labels, unless the collection holds
    labels of new cells.

    Parameters
    ----------
    collection
        Old and new cells under the grown lexicon: ``CellCollection([*old_stores, *new_stores], lexicon)``, whose
        first ``len(old_rows)`` genes are the old ones.
    old_cells, new_cells
        Indices in `collection` of cells that the model was trained on, and of cells of the new stores. Held-out
        cells stay out of both. At most 20,000 of a species are looked at.
    old_rows
        (n_old, width) the trained gene table.
    config
        How rows are set.
    seed
        Names which cells are looked at, and the rows of genes that no cell measured.

    Returns
    -------
    NewGeneRows
        Rows of all genes that come after the old ones. Genes of a new species are matched with the old species that
        has most cells (or, by profile, with all). Genes of a species that the model knows are placed by
        `rows_by_coexpression`, where the new cells measured old genes as well, and else matched with that species'
        old cells. Genes that no new cell measured get the mean old row beside noise of a tenth of a row's length.

    Raises
    ------
    InputError
        When there are no new genes, no old cell measured any, or fewer than two new cells did.
    """
    config = config or SpeciesRowConfig()
    lexicon, n_old, width = collection.lexicon, *old_rows.shape
    n_new = len(lexicon) - n_old
    if n_new < 1:
        raise InputError(f"the lexicon has {len(lexicon)} genes, of which {n_old} are old: there are no new genes")
    rng = generator(seed, "species rows")
    old = {s: _Expression.of(collection, old_cells, lexicon.rows_of(s), n_old, rng) for s in lexicon.species}
    references = {species: side for species, side in old.items() if len(side.cells) > 1}
    if not references:
        raise InputError("no old cell measured any old gene: give stores that the model was trained on")
    rows, usual = np.empty((n_new, width), np.float32), np.zeros(n_new, np.float32)
    length = np.sqrt((old_rows**2).sum(axis=1).mean() / width)
    rows[:] = old_rows.mean(axis=0) + 0.1 * length * rng.standard_normal((n_new, width))
    weights, confidence = csr_matrix((n_new, n_old), dtype=np.float32), np.zeros(n_new, np.float32)
    coupled: list[CoupledCells] = []
    notes: list[str] = []
    for species in lexicon.species:
        if lexicon.rows_of(species)[-1] < n_old:
            continue
        side = _Expression.of(collection, new_cells, lexicon.rows_of(species), len(lexicon), rng)
        if len(side.cells) < 2:
            notes.append(f"{species}: {_too_few(len(side.cells))}; its rows are hardly more than noise")
            continue
        symbols = lexicon.table["symbol"].to_numpy() if config.method == "symbols" else None
        said = integer_seed(seed, "coupling", species) % 2**31
        match = _match_known(references, side, n_old, species, config, said)
        match = match or _match(references, side, config, symbols, said)
        notes += [f"{species}: {note}" for note in match.notes]
        if match.couplings:
            coupled.append(CoupledCells(species, match.reference.cells, side.cells, side.genes, match.couplings))
        new, found = np.flatnonzero(side.genes >= n_old), match.found
        places, k = side.genes[new] - n_old, found.genes.shape[1]
        where = (np.repeat(places, k), match.genes[found.genes[new]].ravel())
        weights = weights + csr_matrix((found.weights[new].ravel(), where), shape=(n_new, n_old))
        usual[places] = np.asarray(side.logs.mean(axis=0)).ravel()[new]
        rows[places] = (weights @ old_rows)[places]
        # One over the effective number of old genes: 1 when one takes all, 1/k when k are equally alike.
        confidence[places] = (found.weights[new] ** 2).sum(axis=1)
    if not confidence.any():
        raise InputError(f"rows of new genes can't be set: {'; '.join(notes)}. Give stores with more cells")
    return NewGeneRows(rows, usual, weights, confidence, tuple(coupled), tuple(notes))


def _too_few(cells: int) -> str:
    """Say that there is no cell, or one, to look at."""
    if not cells:
        return "no cell that is not held out measured its new genes"
    return "it has 1 cell that is not held out, and 2 are needed at the least (thousands are better)"


@dataclass(frozen=True, eq=False)
class _Expression:
    """Cells of one species over the genes that they measured."""

    cells: Int64  # (n_cells,) indices in the collection
    genes: Int64  # (n_genes,) lexicon indices, ascending
    logs: csc_matrix  # (n_cells, n_genes) log(1 + counts per 10,000)
    labels: Int64  # (n_cells,) of the finest level; -1 for unknown

    @classmethod
    def of(
        cls, collection: CellCollection, cells: Int64, genes: Int64, before: int, rng: np.random.Generator
    ) -> _Expression:
        """Read cells of the species of some genes, without genes from index `before` on."""
        cells = cells_of_genes(
            collection, cells, genes[genes < before], rng, labelled=before == len(collection.lexicon)
        )
        panels = [collection.panels[p] for p in np.unique(collection.panel[cells])]
        measured = np.unique(np.concatenate([np.empty(0, np.int64), *panels]))
        if len(cells) < 2:
            return cls(cells, measured, csc_matrix((len(cells), len(measured)), dtype=np.float32), -np.ones_like(cells))
        logs = log_cpm(collection, cells, measured)
        kept = measured < before
        finest = collection.labels[cells, -1:].astype(np.int64)
        labels = finest[:, 0] if finest.shape[1] else np.full(len(cells), -1)
        return cls(cells, measured[kept], logs[:, kept].tocsc(), labels)


@dataclass(frozen=True, eq=False)
class _Match:
    """Which old genes a species' genes are like."""

    reference: _Expression
    genes: Int64  # lexicon indices that the matches' places stand for
    found: MatchedGenes
    couplings: list[Coupling] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def _match_known(
    references: dict[str, _Expression], new: _Expression, n_old: int, species: str, config: SpeciesRowConfig, seed: int
) -> _Match | None:
    """Match new genes of a species that has old ones: by co-expression with those, or with its own old cells."""
    shared = np.flatnonzero(new.genes < n_old)
    if min(len(shared), len(new.cells)) >= FEWEST:
        found = match_by_coexpression(new.logs, shared, k=config.neighbors, seed=seed)
        return _Match(new, new.genes[shared], found)
    if species not in references:
        return None
    return _match({species: references[species]}, new, config, None, seed)


def _match(
    references: dict[str, _Expression],
    new: _Expression,
    config: SpeciesRowConfig,
    symbols: npt.NDArray[np.object_] | None,
    seed: int,
) -> _Match:
    """Match a species' genes with those of other cells."""
    reference = max(references.values(), key=lambda side: len(side.cells))
    sizes = (*reference.logs.shape, *new.logs.shape)
    fewest = min(len(reference.cells), len(new.cells))
    notes: tuple[str, ...] = ()
    if config.method != "profile" and min(sizes) >= FEWEST:
        if fewest < FEW_CELLS:
            notes = (
                f"coupled by {len(new.cells):,} new and {len(reference.cells):,} old cells: with fewer than "
                f"{FEW_CELLS} of either, simulated species were often coupled wholly wrongly, not a little; look at "
                "markers, or add cells",
            )
        pairs = None
        if symbols is not None:
            pairs = shared_symbols(symbols[reference.genes], symbols[new.genes])
        labels = (reference.labels, new.labels) if (new.labels >= 0).any() else None
        couplings = couple_species(reference.logs, new.logs, config.coupling, pairs=pairs, labels=labels, seed=seed)
        found = match_genes(couplings, config.coupling, pairs=pairs, k=config.neighbors)
        return _Match(reference, reference.genes, found, couplings, notes)
    if config.method != "profile":
        notes = (
            f"not coupled: that needs {FEWEST} cells and genes of each species, and there are {new.logs.shape[0]:,} "
            f"new cells of {new.logs.shape[1]:,} genes, {reference.logs.shape[0]:,} old ones of "
            f"{reference.logs.shape[1]:,}; rows are set as by `rows.method profile`, which is far weaker",
        )
    old_genes = np.concatenate([side.genes for side in references.values()])
    profiles = np.concatenate([expression_profile(side.logs) for side in references.values()])
    k = min(config.neighbors, len(old_genes))
    nearest = find_neighbors(profiles, expression_profile(new.logs), k=k, metric="euclidean")
    weights = np.full(nearest.indices.shape, 1 / k, np.float32)
    return _Match(reference, old_genes, MatchedGenes(nearest.indices, weights, nearest.distances), notes=notes)
