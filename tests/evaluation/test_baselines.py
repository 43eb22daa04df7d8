import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lexicell.annotation.knn import transfer_labels
from lexicell.evaluation.baselines import (
    LogisticSettings,
    log_cpm,
    logistic_regression,
    pca_knn,
    principal_components,
)
from lexicell.labels import LabelTree


@pytest.fixture
def cells() -> tuple[sparse.csr_matrix, np.ndarray]:
    """Poisson counts of three types (60 genes) whose depth varies tenfold."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.5, size=(3, 60))
    labels = rng.choice(3, p=[0.7, 0.25, 0.05], size=300)
    depth = rng.uniform(100, 1000, size=300)
    rates = profiles[labels] / profiles.sum(axis=1)[labels, None] * depth[:, None]
    return sparse.csr_matrix(rng.poisson(rates)), np.array(["x", "y", "z"], dtype=object)[labels]


def test_log_cpm_by_hand():
    counts = sparse.csr_matrix(np.array([[1, 3, 0], [0, 0, 0]]))
    values = log_cpm(counts)
    np.testing.assert_allclose(values.toarray(), np.log1p([[2500, 7500, 0], [0, 0, 0]]), rtol=1e-6)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(counts.toarray(), [[1, 3, 0], [0, 0, 0]])


@pytest.mark.parametrize("method", [logistic_regression, pca_knn])
def test_easy_types_are_told_apart(cells, method):
    counts, labels = cells
    found = method(counts[:200], labels[:200], counts[200:])
    assert found.probs.shape == (100, 3)
    np.testing.assert_allclose(found.probs.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(found.labels == labels[200:]) > 0.95


@pytest.mark.parametrize("method", [logistic_regression, pca_knn])
def test_test_cells_do_not_influence_one_another(cells, method):
    counts, labels = cells
    whole = method(counts[:200], labels[:200], counts[200:])
    alone = method(counts[:200], labels[:200], counts[210:211])
    np.testing.assert_allclose(alone.probs[0], whole.probs[10], atol=1e-5)


@pytest.mark.parametrize("method", [logistic_regression, pca_knn])
def test_unlabelled_cells_are_not_learned_from(cells, method):
    counts, labels = cells
    partly = pd.Series(labels[:200]).where(np.arange(200) < 150, None)
    found = method(counts[:200], partly, counts[200:])
    np.testing.assert_allclose(found.probs, method(counts[:150], labels[:150], counts[200:]).probs, atol=1e-5)


def test_pca_knn_votes_as_label_transfer_does(cells):
    counts, labels = cells
    tree = LabelTree.from_frame(pd.DataFrame({"type": labels}), ["type"])
    space = principal_components(counts[:200])
    learned, asked = (space.transform(log_cpm(part)).astype(np.float32) for part in (counts[:200], counts[200:]))
    codes = tree.encode(pd.DataFrame({"type": labels[:200]}))
    calls = transfer_labels(learned, codes, asked, tree)
    found = pca_knn(counts[:200], labels[:200], counts[200:])
    assert list(found.labels) == [tree.names[0][code] for code in calls.codes[:, 0]]
    np.testing.assert_allclose(found.probs.max(axis=1), calls.probs[:, 0], atol=1e-6)


def test_logistic_regression_keeps_the_most_variable_genes_when_memory_is_short(cells):
    counts, labels = cells
    few = logistic_regression(counts[:200], labels[:200], counts[200:], LogisticSettings(max_numbers=200 * 10))
    assert np.mean(few.labels == labels[200:]) > 0.8


@pytest.mark.parametrize("scaling", [0.5, 1.0])
def test_scaled_logistic_regression(cells, scaling):
    counts, labels = cells
    settings = LogisticSettings(scaling=scaling)
    found = logistic_regression(counts[:200], labels[:200], counts[200:], settings)
    assert np.mean(found.labels == labels[200:]) > 0.9


def test_one_class_is_all_there_is_to_say(cells):
    counts, _ = cells
    found = logistic_regression(counts[:20], ["x"] * 20, counts[20:25])
    assert list(found.labels) == ["x"] * 5
    assert list(pca_knn(counts[:20], ["x"] * 20, counts[20:25]).labels) == ["x"] * 5


def test_input_that_does_not_fit_is_refused(cells):
    counts, labels = cells
    with pytest.raises(ValueError, match="one a training cell"):
        logistic_regression(counts, labels[:10], counts)
    with pytest.raises(ValueError, match="60 genes to train on, but 30 to test on"):
        pca_knn(counts, labels, counts[:, :30])
    with pytest.raises(ValueError, match="no training cell has one"):
        logistic_regression(counts[:2], [None, ""], counts)
    with pytest.raises(ValueError, match="no gene varies"):
        logistic_regression(counts[[0, 0]], ["x", "y"], counts)
    with pytest.raises(ValueError, match="too small for principal components"):
        pca_knn(counts[:1], ["x"], counts)
