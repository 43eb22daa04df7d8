from __future__ import annotations

import numpy as np
import pytest

from lexicell.gene_space.group_states import LEAST_STATES, from_the_others, group_distances, spread, squared_distances

WIDTH = 6


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def moments(
    rng: np.random.Generator, centre: np.ndarray, n: np.ndarray, spread_of: float
) -> tuple[np.ndarray, np.ndarray]:
    """Means and summed variances of states drawn around centres (groups, genes, width)."""
    mean, variance = np.zeros_like(centre), np.zeros(n.shape)
    for group, gene in np.ndindex(n.shape):
        states = centre[group, gene] + spread_of * rng.standard_normal((n[group, gene], WIDTH))
        mean[group, gene], variance[group, gene] = states.mean(axis=0), states.var(axis=0, ddof=1).sum()
    return mean, variance


def test_groups_that_do_not_differ_are_nothing_apart_however_few_their_cells(rng: np.random.Generator) -> None:
    n = np.repeat([[10], [14], [200]], 400, axis=1)
    centre = np.broadcast_to(rng.standard_normal((400, WIDTH)), (3, 400, WIDTH))
    squared = squared_distances(*moments(rng, centre, n, 2.0), n)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.nanmean(squared[a, b]) == pytest.approx(0, abs=0.03)
        np.testing.assert_allclose(squared[a, b], squared[b, a])


def test_distances_are_in_standard_deviations(rng: np.random.Generator) -> None:
    n = np.full((2, 300), 60)
    centre = np.zeros((2, 300, WIDTH))
    centre[1, :, 0] = 3.0 * np.sqrt(WIDTH)
    squared = squared_distances(*moments(rng, centre, n, 1.5), n)
    distance, shared = group_distances(squared)
    assert distance[0, 1] == pytest.approx(2.0, abs=0.05)
    assert shared[0, 1] == 300
    assert np.isnan(distance[0, 0])
    assert np.median(spread(squared)) == pytest.approx(2.0, abs=0.05)


def test_a_gene_that_is_elsewhere_in_one_group_is_foremost_there(rng: np.random.Generator) -> None:
    n = np.full((4, 50), 40)
    centre = np.broadcast_to(rng.standard_normal((50, WIDTH)), (4, 50, WIDTH)).copy()
    centre[2, 7] += 3.0
    squared = squared_distances(*moments(rng, centre, n, 1.0), n)
    assert spread(squared).argmax() == 7
    assert from_the_others(squared)[:, 7].argmax() == 2


def test_what_was_hardly_seen_is_unknown(rng: np.random.Generator) -> None:
    n = np.full((3, 5), 20)
    n[0, 0], n[1:, 1], n[0, 2:] = LEAST_STATES - 1, 0, 0
    squared = squared_distances(rng.standard_normal((3, 5, WIDTH)), np.ones((3, 5)), n)
    distance, shared = group_distances(squared)
    assert shared.tolist() == [[0, 0, 0], [0, 0, 4], [0, 4, 0]]
    assert np.isnan(distance[0]).all()
    assert np.isnan(spread(squared)[1])
    assert np.isnan(from_the_others(squared)[0]).all()
