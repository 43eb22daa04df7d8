"""The graph around one gene: its neighbours, its matches in other species, and theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.gene_space.gene_views import centred
from lexicell.gene_space.leave_one_out import unit_rows
from lexicell.gene_space.matching import match_genes
from lexicell.neighbors import find_neighbors

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_LINKS = 3  # nearest fellows within the graph that a gene is joined to


def neighbour_graph(
    points: Sequence[npt.NDArray[np.floating]], gene: int, k: int = 8, matches: int = 3
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the graph around a gene of the first species.

    Within a species genes are compared by the cosine of rows less the species' mean row; between species they are
    matched as `match_genes` does.

    Parameters
    ----------
    points
        One (n_genes, width) embedding a species, in common coordinates.
    gene
        Row of the gene in the first one.
    k
        Nearest genes in its own species, and of its best match in each other species.
    matches
        Best matches in each other species.

    Returns
    -------
    nodes, edges : DataFrame
        nodes: species (place in `points`), gene (row), kind (``gene``, ``neighbour``, ``match``, ``match's
        neighbour``), similarity (to the gene, or to the match); edges: source, target (rows of nodes), similarity,
        kind (``within``, ``between``).
    """
    nodes: dict[tuple[int, int], tuple[str, float]] = {(0, gene): ("gene", 1.0)}
    crossing: list[tuple[tuple[int, int], tuple[int, int], float]] = []
    units = [unit_rows(centred(own)).astype(np.float64) for own in points]
    for species, unit in enumerate(units):
        middle, kind = gene, "neighbour"
        if species:
            found = match_genes(points[0], points[species], matches)  # of all genes: hubs show among many only
            for place, cosine in zip(found.indices[gene].tolist(), found.cosine[gene].tolist(), strict=True):
                nodes[(species, place)] = ("match", cosine)
                crossing.append(((0, gene), (species, place), cosine))
            middle, kind = int(found.indices[gene, 0]), "match's neighbour"
        near = find_neighbors(unit, unit[[middle]], k=min(k + 1, len(unit)))
        for place, distance in zip(near.indices[0].tolist(), near.distances[0].tolist(), strict=True):
            if place != middle and sum(key[0] == species for key in nodes) < k + 1 + (matches if species else 0):
                nodes.setdefault((species, place), (kind, 1 - distance))
    keys = list(nodes)
    number = {key: place for place, key in enumerate(keys)}
    edges = {_pair(number[a], number[b]): (similarity, "between") for a, b, similarity in crossing}
    for species, unit in enumerate(units):
        own = [key for key in keys if key[0] == species]
        cosine = unit[[row for _, row in own]] @ unit[[row for _, row in own]].T
        np.fill_diagonal(cosine, -np.inf)
        for i, row in enumerate(cosine):
            for j in np.argsort(-row, kind="stable")[: min(_LINKS, len(own) - 1)].tolist():
                edges.setdefault(_pair(number[own[i]], number[own[j]]), (float(row[j]), "within"))
    table = pd.DataFrame([(*key, *nodes[key]) for key in keys], columns=["species", "gene", "kind", "similarity"])
    rows = [(*pair, *what) for pair, what in edges.items()]
    return table, pd.DataFrame(rows, columns=["source", "target", "similarity", "kind"])


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def spring_layout(n_nodes: int, edges: Int64, rng: np.random.Generator, steps: int = 300) -> Float64:
    """Lay a small graph out in the plane: edges pull, all nodes push (Fruchterman & Reingold 1991).

    Parameters
    ----------
    n_nodes
        Nodes; a few hundred at most.
    edges
        (m, 2) pairs of nodes.
    rng
        Draws where nodes begin.
    steps
        Moves of every node; each may go less far than the one before.
    """
    spots = rng.standard_normal((n_nodes, 2))
    length = 1 / np.sqrt(max(n_nodes, 1))
    for step in range(steps):
        away = spots[:, None] - spots[None]
        distance = np.maximum(np.linalg.norm(away, axis=-1), 1e-3)
        move = (away * (length**2 / distance**2)[..., None]).sum(axis=1)
        pull = spots[edges[:, 0]] - spots[edges[:, 1]]
        force = pull * (np.linalg.norm(pull, axis=1) / length)[:, None]
        np.add.at(move, edges[:, 0], -force)
        np.add.at(move, edges[:, 1], force)
        move -= 0.05 * spots  # parts that no edge joins do not drift away
        size = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        spots = spots + move / size * np.minimum(size, 0.1 * (1 - step / steps))
    return np.asarray(spots - spots.mean(axis=0))
