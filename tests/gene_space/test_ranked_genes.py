from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csc_matrix
from scipy.stats import ttest_ind
from sklearn.metrics import roc_auc_score

from lexicell.gene_space.ranked_genes import marker_score, welch_t


def test_t_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    values = rng.poisson(0.7, (60, 8)).astype(np.float64)
    values[:20, 0] += 2
    values[:, 7] = 0
    own = np.arange(60) < 20
    t, difference = welch_t(csc_matrix(values), own)
    expected = ttest_ind(values[own, :7], values[~own, :7], equal_var=False).statistic
    np.testing.assert_allclose(t[:7], expected, atol=1e-9)
    np.testing.assert_allclose(difference, values[own].mean(axis=0) - values[~own].mean(axis=0), atol=1e-12)
    assert t[7] == 0


def test_markers_are_scored_as_by_hand_and_by_sklearn() -> None:
    score = np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    markers = np.isin(np.arange(10), [0, 2, 9])
    found = marker_score(score, markers, k=4)
    assert (found.markers, found.hits) == (3, 2)
    assert found.recall == pytest.approx(2 / 3)
    assert found.auroc == pytest.approx(roc_auc_score(markers, score))
    assert marker_score(score, markers, k=2).recall == pytest.approx(1 / 2)


def test_ties_do_not_help_and_no_marker_gives_no_score() -> None:
    markers = np.array([True, False, False, True])
    assert marker_score(np.zeros(4), markers, k=2).hits == 0
    assert marker_score(np.zeros(4), markers, k=2).auroc == 0.5
    assert np.isnan(marker_score(np.zeros(4), np.zeros(4, bool)).recall)
