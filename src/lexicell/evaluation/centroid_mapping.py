"""Correlation to centroids with bootstrapped markers, down a label tree: the method of MapMyCells.

Written from the description of hierarchical mapping by the Allen Institute (Yao et al. 2023 and the documentation
of cell_type_mapper, which is not on PyPI). At each node of the tree, from the root down: markers are the genes that
tell pairs of its children apart; in each of many rounds a random share of them is drawn, the cell is correlated
with the mean profile of every leaf below the node, and votes for the child that holds the best leaf. The child with
most votes is taken, and its share of the votes is the bootstrapping probability.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from lexicell.centroids import ClassProfiles, correlations, log2_cpm, marker_genes
from lexicell.labels import LabelTree
from lexicell.randomness import generator

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MappingSettings:
    """How cells are mapped; rounds, shares and markers are by default those of cell_type_mapper from 1.4 on.

    Earlier ones drew 0.9 of the markers.

    Attributes
    ----------
    rounds
        Bootstrap rounds at each node.
    marker_share
        Share of the markers drawn in each round.
    markers_per_pair
        Markers in each direction for every pair of children.
    most_pairs
        Pairs of children that are looked at, drawn at random where a node has more.
    """

    rounds: int = 100
    marker_share: float = 0.5
    markers_per_pair: int = 30
    most_pairs: int = 1000


@dataclass(frozen=True, eq=False)
class Mapping:
    """Labels of cells, down the tree.

    Attributes
    ----------
    labels
        (n_cells, n_levels), a column a level.
    probability
        (n_cells, n_levels): share of the votes at the node above (the bootstrapping probability).
    fit_seconds
        Time that was spent on the training cells; not on markers, which are chosen at the nodes that cells come to.
    """

    labels: pd.DataFrame
    probability: Float32
    fit_seconds: float = 0.0

    @property
    def aggregate_probability(self) -> Float32:
        """Product of the probabilities from the root down, (n_cells, n_levels)."""
        return np.cumprod(self.probability, axis=1, dtype=np.float32)


def map_to_centroids(
    train: sparse.csr_matrix,
    paths: pd.DataFrame,
    test: sparse.csr_matrix,
    seed: int = 0,
    settings: MappingSettings | None = None,
) -> Mapping:
    """Map cells down the label tree of a reference.

    Parameters
    ----------
    train, test
        Raw counts (cells, genes) with the same genes in the same order.
    paths
        The training cells' labels, a column a level, coarse to fine; cells that lack one are left out.
    seed
        Names the draws of markers.
    settings
        How cells are mapped.

    Raises
    ------
    InputError
        When the labels form no tree, or a level has none.
    """
    settings, began = settings or MappingSettings(), time.perf_counter()
    levels = tuple(str(name) for name in paths.columns)
    tree = LabelTree.from_frame(paths, levels, "training labels")
    codes = tree.encode(paths)
    whole = (codes >= 0).all(axis=1)
    profiles = ClassProfiles.of(log2_cpm(train[whole]), codes[whole, -1], tree.sizes[-1])
    fit_seconds = time.perf_counter() - began
    query = log2_cpm(test)
    ancestors = _ancestors(tree)
    called = np.full((test.shape[0], len(levels)), -1, dtype=np.int64)
    votes = np.ones((test.shape[0], len(levels)), dtype=np.float32)
    for level in range(len(levels)):
        above = called[:, level - 1] if level else np.zeros(test.shape[0], dtype=np.int64)
        for node in np.unique(above):
            cells = np.flatnonzero(above == node)
            leaves = np.flatnonzero((ancestors[level - 1] == node) if level else np.ones(tree.sizes[-1], bool))
            leaves = leaves[profiles.size[leaves] > 0]
            child = ancestors[level][leaves]
            if len(np.unique(child)) == 1:
                called[cells, level] = child[0]
                continue
            rng = generator(seed, "centroid mapping", str(level), str(node))
            own = profiles.take(leaves)
            markers = marker_genes(own, child, settings.markers_per_pair, settings.most_pairs, rng)
            shown = query[cells][:, markers].toarray()
            called[cells, level], votes[cells, level] = _vote(shown, own.mean[:, markers], child, settings, rng)
    return Mapping(tree.decode(called).set_axis(range(test.shape[0])), votes, fit_seconds)


def _ancestors(tree: LabelTree) -> list[Int64]:
    """Return for every level the node that each leaf lies under."""
    found = [np.arange(tree.sizes[-1])]
    for level in range(len(tree.levels) - 1, 0, -1):
        found.insert(0, tree.parents[level][found[0]])
    return found


def _vote(
    cells: Float32, centroids: Float32, child: Int64, settings: MappingSettings, rng: np.random.Generator
) -> tuple[Int64, Float32]:
    """Return for each cell the child with most votes, and its share of them."""
    names, place = np.unique(child, return_inverse=True)
    votes = np.zeros((len(cells), len(names)), dtype=np.int64)
    drawn = max(1, round(settings.marker_share * cells.shape[1]))
    for _ in range(settings.rounds):
        genes = rng.choice(cells.shape[1], drawn, replace=False)
        best = correlations(cells[:, genes], centroids[:, genes]).argmax(axis=1)
        votes[np.arange(len(cells)), place[best]] += 1
    winner = votes.argmax(axis=1)
    share: Float32 = (votes[np.arange(len(cells)), winner] / settings.rounds).astype(np.float32)
    return names[winner], share
