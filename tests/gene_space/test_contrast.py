from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from lexicell.gene_space.contrast import (
    contrast,
    contrast_genes,
    make_labellings,
    neighbourhood_similarity,
    without_distance,
)
from lexicell.genes.phylogeny import Phylogeny

FOUR = Phylogeny.from_newick("((a:1,b:1):2,(c:1,d:1):2);")
EIGHT = Phylogeny.from_newick("(((a:1,b:1):1,(c:1,d:1):1):1,((e:1,f:1):1,(g:1,h:1):1):1);")
N, WIDTH = 250, 8


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def evolved(tree: Phylogeny, rng: np.random.Generator, drift: float) -> list[np.ndarray]:
    """Embeddings that drift down a tree, each in coordinates of its own."""
    nodes = [rng.standard_normal((N, WIDTH))]
    for node in range(1, len(tree.names)):
        step = drift * np.sqrt(tree.lengths[node]) * rng.standard_normal((N, WIDTH))
        nodes.append(nodes[tree.parents[node]] + step)
    leaves = [nodes[node] for node in tree.leaf_nodes]
    return [leaf @ np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0] for leaf in leaves]


def test_similarity_is_the_correlation_of_cosines(rng: np.random.Generator) -> None:
    points = [rng.standard_normal((40, w)) for w in (5, 7)]
    pairs, similarity = neighbourhood_similarity(points)
    assert pairs == [(0, 1)]
    cosines = []
    for p in points:
        q = p - p.mean(axis=0)
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        cosines.append(q @ q.T)
    others = np.arange(40) != 3
    assert similarity[3, 0] == pytest.approx(pearsonr(cosines[0][3, others], cosines[1][3, others])[0], abs=1e-5)


def test_rotations_change_nothing(rng: np.random.Generator) -> None:
    points = rng.standard_normal((60, 6))
    turned = points @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    np.testing.assert_allclose(neighbourhood_similarity([points, turned])[1], 1, atol=1e-5)


def test_the_distance_is_taken_away() -> None:
    distance = np.array([1.0, 2.0, 3.0])
    gene = np.array([[0.0], [0.1], [-0.1]])
    residual, line = without_distance(0.9 - 0.2 * distance + gene, distance)
    np.testing.assert_allclose(line, [-0.2, 0.9], atol=1e-9)
    np.testing.assert_allclose(residual, gene + np.zeros(3), atol=1e-9)
    np.testing.assert_allclose(without_distance(gene + np.zeros(3), np.ones(3))[1], [0, 0], atol=1e-9)


def test_contrast_by_hand() -> None:
    pairs = [(0, 1), (0, 2), (1, 2)]
    similarity = np.array([[0.9, 0.1, 0.3]])
    np.testing.assert_allclose(contrast(similarity, pairs, np.array([True, True, False])), 0.7)


def test_labellings_keep_the_distances(rng: np.random.Generator) -> None:
    # One species of each clade: three other such choices, of which the complement parts the species alike.
    across = make_labellings(np.array([True, False, True, False]), FOUR.distances(), rng)
    assert (across.possible, len(across.others), across.keeps_distances) == (6, 1, True)
    assert across.least_p == 0.5
    # A whole clade: the other clade is its complement, so that nothing keeps the distances.
    clade = make_labellings(np.array([True, True, False, False]), FOUR.distances(), rng)
    assert (len(clade.others), clade.keeps_distances) == (2, False)
    free = make_labellings(np.array([True, False, True, False, False]), None, rng)
    assert (free.possible, len(free.others)) == (10, 9)
    many = make_labellings(np.arange(24) % 2 == 0, None, rng)
    assert many.sampled
    assert 1000 < len(many.others) <= 5000
    assert not (many.others == many.observed).all(axis=1).any()


def test_convergent_genes_are_found(rng: np.random.Generator) -> None:
    points = evolved(EIGHT, rng, 0.3)
    group = np.array([True, False] * 4)
    planted = np.arange(N) < 12
    # In each species of the group the planted genes take the places of the same other genes.
    for species in np.flatnonzero(group):
        points[species][planted] = points[species][100:112] + 0.1 * rng.standard_normal((12, WIDTH))
    table, labellings, line = contrast_genes([points], group, EIGHT.distances(), rng)
    assert labellings.keeps_distances
    assert line[0] < 0
    assert (table.loc[planted, "fdr"] <= 0.05).mean() > 0.6
    assert (table.loc[~planted, "fdr"] <= 0.05).sum() <= 3
    assert np.isnan(table["contrast_sd"]).all()


def test_the_null_is_calibrated(rng: np.random.Generator) -> None:
    group = np.array([True, False] * 4)
    shares, called = [], []
    for _ in range(12):
        table, _, _ = contrast_genes([evolved(EIGHT, rng, 0.3)], group, EIGHT.distances(), rng)
        shares.append((table["p"] <= 0.05).mean())
        called.append((table["fdr"] <= 0.05).any())
    assert 0.02 < np.mean(shares) < 0.09
    assert np.mean(called) < 0.35


def test_what_convergent_genes_do_to_all_others_is_not_called(rng: np.random.Generator) -> None:
    group = np.array([True, False] * 4)
    planted = np.arange(N) < 30
    false, found = [], []
    for _ in range(4):
        points = evolved(EIGHT, rng, 0.3)
        for species in np.flatnonzero(group):
            points[species][planted] = points[species][100:130] + 0.1 * rng.standard_normal((30, WIDTH))
        table, _, _ = contrast_genes([points], group, EIGHT.distances(), rng)
        assert table["contrast"].median() == pytest.approx(0, abs=1e-12)
        called = (table["fdr"] <= 0.3).to_numpy()
        false.append((called & ~planted).sum() / max(called.sum(), 1))
        found.append(called[planted].mean())
    assert np.mean(false) <= 0.3
    assert np.mean(found) > 0.8


def test_replicates_are_averaged(rng: np.random.Generator) -> None:
    points = evolved(FOUR, rng, 0.3)
    group = np.array([True, False, True, False])
    once, _, _ = contrast_genes([points], group, FOUR.distances(), rng)
    twice, _, _ = contrast_genes([points, points], group, FOUR.distances(), rng)
    np.testing.assert_allclose(once["contrast"], twice["contrast"])
    np.testing.assert_allclose(twice["contrast_sd"], 0, atol=1e-12)
    assert set(twice["positive_share"]) <= {0.0, 1.0}


def test_a_group_of_one_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="at least two species"):
        contrast_genes([evolved(FOUR, rng, 0.1)], np.array([True, False, False, False]), None, rng)
