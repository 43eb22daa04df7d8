"""Groups of genes that stand for one another in several species, joined from pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Int64 = npt.NDArray[np.int64]


def join_pairs(n_genes: int, species: Int64, pairs: Sequence[Int64], n_species: int) -> Int64:
    """Join pairs of genes into groups with one gene of every species.

    Parameters
    ----------
    n_genes
        Genes of all species together.
    species
        (n_genes,) number of each gene's species; -1 for genes that take no part.
    pairs
        Arrays (n_pairs, 2) of genes that stand for one another.
    n_species
        Species that take part.

    Returns
    -------
    ndarray of int64, (n_groups, n_species)
        The gene of each species. Connected pairs that miss a species, or hold two genes of one, make no group.
    """
    edges = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    edges = edges[(species[edges] >= 0).all(axis=1)]
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(n_genes, n_genes))
    of_gene = connected_components(graph, directed=False)[1]
    linked = np.unique(edges)
    own, kind = of_gene[linked], species[linked]
    key = own * n_species + kind
    _, first, times = np.unique(key, return_index=True, return_counts=True)
    groups, n_kinds = np.unique(own[first], return_counts=True)
    doubled = np.unique(own[first[times > 1]])
    whole = groups[(n_kinds == n_species) & ~np.isin(groups, doubled)]
    kept = np.isin(own, whole)
    order = np.lexsort((kind[kept], own[kept]))
    return np.asarray(linked[kept][order].reshape(-1, n_species))


def number_species(names: Sequence[str], wanted: Sequence[str]) -> Int64:
    """Return the place of each gene's species in `wanted`, -1 where it is not in it."""
    place: Mapping[str, int] = {name: number for number, name in enumerate(wanted)}
    return np.array([place.get(name, -1) for name in names], dtype=np.int64)
