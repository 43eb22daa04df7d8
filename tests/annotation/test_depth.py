import numpy as np
import pytest
from scipy import sparse

from lexicell.annotation.depth import DepthMatch, depths_of, folds_of_copies


def test_a_cell_keeps_as_much_as_the_querys_cell_of_its_rank_has():
    reference = np.arange(1000, 3000)
    match = DepthMatch.fit(reference, reference // 10)
    np.testing.assert_allclose(match.shares(np.array([1000, 2000, 2999])), 0.1, atol=0.002)
    assert match.medians == (2000, 200)
    assert "a median of 200 counts" in match.said()
    assert "2,000" in match.said()


def test_only_what_is_deeper_is_thinned():
    rng = np.random.default_rng(0)
    depths = rng.integers(1000, 5000, 500)
    assert DepthMatch.fit(depths, rng.integers(1000, 5000, 700)) is None
    assert DepthMatch.fit(depths, 4 * depths) is None
    assert DepthMatch.fit(depths, np.zeros(10, dtype=int)) is None
    partly = DepthMatch.fit(depths, np.where(depths < 4000, depths // 2, 2 * depths))
    assert partly.shares(np.array([4900]))[0] == 1
    assert partly.shares(np.array([2000]))[0] == pytest.approx(0.5, abs=0.02)


def test_a_small_reference_is_thinned_several_times_over():
    deep = np.arange(1000, 3000)
    assert DepthMatch.fit(deep, deep // 10).copies(2000) == 3
    assert DepthMatch.fit(deep, deep // 2).copies(2000) == 2
    assert DepthMatch.fit(deep, deep // 10).copies(4000) == 2
    assert DepthMatch.fit(deep, deep // 10).copies(50_000) == 1
    folds = folds_of_copies([np.array([0, 2]), np.array([1])], 3, 2)
    assert [fold.tolist() for fold in folds] == [[0, 2, 3, 5], [1, 4]]


def test_every_molecule_is_kept_with_its_cells_share():
    rng = np.random.default_rng(1)
    deep = sparse.csr_matrix(rng.poisson(8, (400, 120)))
    shallow = sparse.csr_matrix(rng.poisson(2, (300, 120)))
    match = DepthMatch.fit(depths_of(deep), depths_of(shallow))
    thinned = match.thin(deep, np.random.default_rng(2))
    assert ((deep - thinned).toarray() >= 0).all()
    assert thinned.dtype == deep.dtype
    assert (thinned.data > 0).all()
    steps = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(
        np.quantile(depths_of(thinned), steps), np.quantile(depths_of(shallow), steps), rtol=0.06
    )
    # A gene's share of all molecules stays.
    shares = [np.asarray(part.sum(axis=0)).ravel() / part.sum() for part in (deep, thinned)]
    np.testing.assert_allclose(*shares, rtol=0.25)
    again = match.thin(deep, np.random.default_rng(2))
    assert (thinned != again).nnz == 0
