from __future__ import annotations

import numpy as np
import pytest

from lexicell.gene_space.neighbour_graph import neighbour_graph, spring_layout


@pytest.fixture
def species() -> list[np.ndarray]:
    """Two species of 60 genes in 6 clusters; the second is the first with noise, its genes in reverse."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.standard_normal((6, 12)), 10, axis=0)
    first = centres + 0.2 * rng.standard_normal((60, 12))
    return [first, (first + 0.02 * rng.standard_normal((60, 12)))[::-1].copy()]


def test_neighbours_are_of_the_genes_cluster_in_both_species(species: list[np.ndarray]) -> None:
    nodes, edges = neighbour_graph(species, 4, k=6, matches=2)
    assert nodes.iloc[0][["species", "gene", "kind"]].tolist() == [0, 4, "gene"]
    assert (nodes.loc[nodes["species"] == 0, "gene"] // 10 == 0).all()
    assert ((59 - nodes.loc[nodes["species"] == 1, "gene"]) // 10 == 0).all()
    matched = nodes[nodes["kind"] == "match"]
    assert len(matched) == 2
    assert matched["gene"].iloc[0] == 59 - 4  # its own image comes first
    assert (nodes["kind"] == "neighbour").sum() == 6
    assert not nodes.duplicated(["species", "gene"]).any()
    crossing = edges[edges["kind"] == "between"]
    assert (crossing["source"] == 0).all()
    assert len(crossing) == 2
    assert (edges["source"] < edges["target"]).all()
    assert not edges.duplicated(["source", "target"]).any()
    inside = edges[edges["kind"] == "within"]
    of = nodes["species"].to_numpy()
    assert (of[inside["source"]] == of[inside["target"]]).all()


def test_one_species_and_few_genes_are_enough(species: list[np.ndarray]) -> None:
    nodes, edges = neighbour_graph(species[:1], 0, k=99)
    assert len(nodes) == 60
    assert (edges["kind"] == "within").all()


def test_joined_nodes_lie_near() -> None:
    edges = np.array([[0, 1], [1, 2], [0, 2], [3, 4], [4, 5], [3, 5]])
    spots = spring_layout(6, edges, np.random.default_rng(0))
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=-1)
    joined = apart[edges[:, 0], edges[:, 1]]
    assert joined.max() < apart[:3, 3:].min()
    assert (apart[~np.eye(6, dtype=bool)] > 0.05).all()
    np.testing.assert_array_equal(spots, spring_layout(6, edges, np.random.default_rng(0)))
