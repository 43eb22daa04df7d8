import numpy as np
import pytest
from scipy import sparse

from lexicell.centroids import ClassProfiles, correlations, log2_cpm, marker_genes


def test_log2_cpm_by_hand():
    found = log2_cpm(sparse.csr_matrix([[1, 3, 0], [0, 0, 0]])).toarray()
    np.testing.assert_allclose(found, [[np.log2(1 + 2.5e5), np.log2(1 + 7.5e5), 0], [0, 0, 0]], rtol=1e-6)


def test_profiles_are_means_and_variances_of_each_class():
    rng = np.random.default_rng(0)
    values, codes = rng.random((30, 5)).astype(np.float32), rng.integers(3, size=30)
    profiles = ClassProfiles.of(sparse.csr_matrix(values), codes, 4)
    for one in range(3):
        np.testing.assert_allclose(profiles.mean[one], values[codes == one].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(profiles.variance[one], values[codes == one].var(axis=0), atol=1e-6)
    assert profiles.size.tolist() == [*np.bincount(codes), 0]
    assert not profiles.mean[3].any()


def test_correlations_are_pearsons():
    rng = np.random.default_rng(0)
    cells, profiles = rng.random((4, 20)).astype(np.float32), rng.random((3, 20)).astype(np.float32)
    expected = np.corrcoef(np.vstack([cells, profiles]))[:4, 4:]
    np.testing.assert_allclose(correlations(cells, profiles), expected, atol=1e-5)
    assert not correlations(np.ones((1, 20), np.float32), profiles).any()


@pytest.mark.parametrize("most_pairs", [1000, 1])
def test_planted_markers_are_found(most_pairs):
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(3), 40)
    values = rng.normal(5, 1, size=(120, 50))
    for one in range(3):
        values[kind == one, one] += 5  # gene i marks class i
    profiles = ClassProfiles.of(sparse.csr_matrix(values), kind, 3)
    found = marker_genes(profiles, np.arange(3), per_pair=1, most_pairs=most_pairs, rng=rng)
    assert set(found) <= {0, 1, 2}
    assert len(found) == (3 if most_pairs > 1 else 2)
    # Of groups, what tells groups apart: the first two classes are one here, and gene 2 marks the other one.
    assert 2 in marker_genes(profiles, np.array([0, 0, 1]), per_pair=1)
