"""Rows for the genes of a species that joins: each begins as a mean of old genes' rows, without any orthologs.

Which old genes, and how much of each, is matched from expression alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from lexicell.data.cells import CellCollection
from lexicell.errors import InputError
from lexicell.gene_space.profiles import expression_profile
from lexicell.neighbors import find_neighbors
from lexicell.randomness import generator
from lexicell.training.gene_rows import cells_of_genes, log_cpm

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SpeciesRowConfig:
    """How rows of new genes are set."""

    neighbors: int = 15
    """Old genes that a new row is the mean of."""

    def __post_init__(self) -> None:
        if self.neighbors < 1:
            raise InputError(f"neighbors is {self.neighbors}: expected 1 or more old genes to begin a new row from")


@dataclass(frozen=True, eq=False)
class NewGeneRows:
    """What the new genes begin with; row ``i`` is lexicon index ``n_old + i``."""

    rows: Float32  # (n_new, width) embeddings
    usual: (
        Float32  # (n_new,) mean log(1 + counts per 10,000), for `GeneBag.usual`; 0 where no new cell measured the gene
    )
    weights: csr_matrix  # (n_new, n_old) share of each old gene in the row; rows sum to 1, or to 0 for unmeasured genes
    confidence: Float32  # (n_new,) how sure the match is, 0 to 1; 0 for unmeasured genes


def new_gene_rows(
    collection: CellCollection,
    old_cells: Int64,
    new_cells: Int64,
    old_rows: Float32,
    config: SpeciesRowConfig | None = None,
    *,
    seed: int = 0,
) -> NewGeneRows:
    """Set rows of new genes from the rows of old genes that are expressed alike; no orthologs, no labels.

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
        Rows of all genes that come after the old ones. Genes that no new cell measured get the mean old row beside
        noise of a tenth of a row's length.

    Raises
    ------
    InputError
        When there are no new genes, or no old or new cell measured any.
    """
    config = config or SpeciesRowConfig()
    lexicon, n_old, width = collection.lexicon, *old_rows.shape
    n_new = len(lexicon) - n_old
    if n_new < 1:
        raise InputError(f"the lexicon has {len(lexicon)} genes, of which {n_old} are old: there are no new genes")
    rng = generator(seed, "species rows")
    references = _references(collection, old_cells, n_old, rng)
    rows, usual = np.empty((n_new, width), np.float32), np.zeros(n_new, np.float32)
    length = np.sqrt((old_rows**2).sum(axis=1).mean() / width)
    rows[:] = old_rows.mean(axis=0) + 0.1 * length * rng.standard_normal((n_new, width))
    old_genes = np.concatenate([genes for genes, _ in references])
    old_profiles = np.concatenate([profile for _, profile in references])
    weights = csr_matrix((n_new, n_old), dtype=np.float32)
    confidence = np.zeros(n_new, np.float32)
    for species in lexicon.species:
        of_species = lexicon.rows_of(species)
        if of_species[-1] < n_old:
            continue
        cells = cells_of_genes(collection, new_cells, of_species, rng)
        if len(cells) < 2:
            continue
        measured = _measured(collection, cells)
        expression = log_cpm(collection, cells, measured)
        profile = expression_profile(expression)
        new = measured >= n_old
        k = min(config.neighbors, len(old_genes))
        found = find_neighbors(old_profiles, profile[new], k=k, metric="euclidean")
        places = measured[new] - n_old
        usual[places] = np.asarray(expression.mean(axis=0)).ravel()[new]
        shape = (n_new, n_old)
        cells_and_genes = (np.repeat(places, k), old_genes[found.indices].ravel())
        weights = weights + csr_matrix((np.full(len(places) * k, 1 / k, np.float32), cells_and_genes), shape=shape)
        rows[places] = (weights @ old_rows)[places]
        confidence[places] = 1 / (1 + found.distances.mean(axis=1) * len(measured) / k)
    if not confidence.any():
        raise InputError("no cell measured any new gene: give the stores that hold the new genes' counts")
    return NewGeneRows(rows, usual, weights, confidence)


def _measured(collection: CellCollection, cells: Int64) -> Int64:
    """Return the genes that some of the cells' panels hold, ascending."""
    return np.unique(np.concatenate([collection.panels[p] for p in np.unique(collection.panel[cells])]))


def _references(
    collection: CellCollection, old_cells: Int64, n_old: int, rng: np.random.Generator
) -> list[tuple[Int64, npt.NDArray[np.float64]]]:
    """Return for each old species its measured old genes and their profiles."""
    lexicon, found = collection.lexicon, []
    for species in lexicon.species:
        genes = lexicon.rows_of(species)
        cells = cells_of_genes(collection, old_cells, genes[genes < n_old], rng)
        if len(cells) < 2:
            continue
        measured = _measured(collection, cells)
        measured = measured[measured < n_old]
        found.append((measured, expression_profile(log_cpm(collection, cells, measured))))
    if not found:
        raise InputError("no old cell measured any old gene: give stores that the model was trained on")
    return found
