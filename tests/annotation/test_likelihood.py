import numpy as np
from scipy import sparse

from lexicell.annotation.likelihood import LikelihoodTree
from lexicell.labels import LabelTree

TREE = LabelTree.from_dict(
    {"levels": ["class", "type"], "names": [["x", "y"], ["a", "b", "c"]], "parents": [[], [0, 0, 1]]}
)


def test_a_hand_worked_case():
    # One gene or the other; a prior of one cell of mean depth (4) spread as all counts are (1/2, 1/2).
    counts = sparse.csr_matrix(np.array([[4, 0], [0, 4]]))
    tree = LabelTree.from_dict({"levels": ["type"], "names": [["a", "b"]], "parents": [[]]})
    fitted = LikelihoodTree.fit(counts, np.array([[0], [1]]), tree)
    np.testing.assert_allclose(np.exp(fitted.log_shares), [[6 / 8, 2 / 8], [2 / 8, 6 / 8]], atol=1e-6)
    logs = fitted.log_conditionals(sparse.csr_matrix(np.array([[1, 0], [9, 0], [0, 0]])))[0]
    # log odds are counts x log 3, over the root of the depth
    np.testing.assert_allclose(logs[:, 0] - logs[:, 1], [np.log(3), 3 * np.log(3), 0], atol=1e-5)


def test_labels_down_the_tree_and_labels_without_cells():
    rng = np.random.default_rng(0)
    rates = np.array([[9, 1, 1], [1, 9, 1], [1, 1, 9]])
    kind = rng.integers(0, 2, 60)
    codes = np.stack([np.zeros(60, int), kind], axis=1)
    codes[:5, 1] = -1  # known on the coarse level alone
    codes[55:] = -1
    counts = sparse.csr_matrix(rng.poisson(rates[kind]))
    logs = LikelihoodTree.fit(counts, codes, TREE).log_conditionals(counts)
    assert np.isneginf(logs[0][:, 1]).all()  # no cell of y
    assert (logs[0][:, 0] == 0).all()
    assert np.isneginf(logs[1][:, 2]).all()
    np.testing.assert_allclose(np.exp(logs[1][:, :2]).sum(axis=1), 1, atol=1e-5)
    assert (logs[1][5:55, :2].argmax(axis=1) == kind[5:55]).mean() > 0.9
