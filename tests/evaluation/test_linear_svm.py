import numpy as np
import pytest
from scipy import sparse

from lexicell.evaluation.linear_svm import linear_svm


@pytest.mark.parametrize("n_types", [1, 2, 3])
def test_planted_types_are_told_apart(n_types):
    rng = np.random.default_rng(0)
    kind = rng.integers(n_types, size=240)
    rates = np.full((n_types, 30), 1.0)
    for one in range(n_types):
        rates[one, 5 * one : 5 * one + 5] = 6
    counts = sparse.csr_matrix(rng.poisson(rates[kind]))
    labels = np.array(["x", "y", "z"], dtype=object)[kind]
    labels[:5] = None
    found = linear_svm(counts[:120], labels[:120], counts[120:])
    assert (found.labels == labels[120:]).mean() > 0.95
    np.testing.assert_allclose(found.probs.sum(axis=1), 1, rtol=1e-5)
    assert list(found.classes) == ["x", "y", "z"][:n_types]
