import numpy as np
import pytest

from lexicell.data.gene_sampler import GeneSample
from lexicell.data.thinning import LOWEST_RATE, Thinning


def sample(n_cells: int, count: int = 20) -> GeneSample:
    genes = np.broadcast_to(np.arange(50), (2, n_cells, 50)).copy()
    return GeneSample(genes, np.full((2, n_cells, 50), count), genes[0, :, :30].copy(), np.full((n_cells, 30), count))


def test_molecules_stay_with_the_cells_own_rate():
    position = np.arange(200)
    thinning = Thinning(0.5, seed=1)
    rates = thinning.rates(position)
    thinned, depth = thinning.thin(sample(200), np.full(200, 4000, np.float32), position)
    assert 0.35 < (rates < 1).mean() < 0.65
    assert rates.min() >= LOWEST_RATE
    per_cell = np.concatenate([thinned.counts[0], thinned.counts[1], thinned.query_counts], axis=1)
    np.testing.assert_allclose(per_cell.mean(axis=1) / 20, rates, atol=0.06)
    # The variance of a binomial, not of rounding.
    some = rates < 0.9
    np.testing.assert_allclose(per_cell[some].var(axis=1).mean(), (20 * rates * (1 - rates))[some].mean(), rtol=0.15)
    np.testing.assert_allclose(depth, 4000 * rates, atol=0.5)


def test_it_depends_on_the_place_in_the_order_alone():
    position = np.arange(40)
    thinning = Thinning(1.0, seed=1)
    whole, _ = thinning.thin(sample(40), np.ones(40, np.float32), position)
    part, _ = thinning.thin(sample(20), np.ones(20, np.float32), position[20:])
    np.testing.assert_array_equal(whole.counts[:, 20:], part.counts)
    np.testing.assert_array_equal(whole.query_counts[20:], part.query_counts)
    other, _ = Thinning(1.0, seed=2).thin(sample(40), np.ones(40, np.float32), position)
    assert (other.counts != whole.counts).any()


@pytest.mark.parametrize("count", [0, 7])
def test_no_chance_changes_nothing(count):
    given = sample(10, count)
    thinned, depth = Thinning(0.0, seed=0).thin(given, np.full(10, 9, np.float32), np.arange(10))
    np.testing.assert_array_equal(thinned.counts, given.counts)
    np.testing.assert_array_equal(depth, 9)
