from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lexicell.gene_space.gene_pairs import mean_interval, partner_auroc, product_corrected, symmetric, top_partners


def test_popularity_alone_is_corrected_away() -> None:
    popular = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    scores = np.outer(popular, popular)
    planted = scores.copy()
    planted[1, 3] = planted[3, 1] = scores[1, 3] * 2
    corrected = product_corrected(planted)
    assert np.isnan(np.diagonal(corrected)).all()
    assert np.nanargmax(corrected) in (1 * 5 + 3, 3 * 5 + 1)
    even = product_corrected(np.full((4, 4), 2.0))
    np.testing.assert_allclose(even[~np.eye(4, dtype=bool)], 0)


def test_both_directions_are_averaged() -> None:
    scores = np.array([[0.0, 1.0], [3.0, np.nan]])
    np.testing.assert_allclose(symmetric(scores), [[0, 2], [2, np.nan]])


def test_aurocs_are_those_of_sklearn_gene_by_gene() -> None:
    rng = np.random.default_rng(0)
    n = 40
    scores, partners = rng.standard_normal((n, n)).round(1), rng.random((n, n)) < 0.2
    asked, bins = rng.random((n, n)) < 0.8, rng.integers(0, 3, n)
    scores[rng.random((n, n)) < 0.05] = np.nan
    found = partner_auroc(scores, partners, asked, bins)
    for gene in range(n):
        at = asked[gene] & ~np.isnan(scores[gene]) & (np.arange(n) != gene)
        assert found["auroc"][gene] == pytest.approx(roc_auc_score(partners[gene, at], scores[gene, at]))
        won = pairs = 0.0
        for b in range(3):
            hits = scores[gene, at & partners[gene] & (bins == b)]
            rest = scores[gene, at & ~partners[gene] & (bins == b)]
            won += (hits[:, None] > rest).sum() + (hits[:, None] == rest).sum() / 2
            pairs += len(hits) * len(rest)
        assert found["auroc_matched"][gene] == pytest.approx(won / pairs)


def test_a_score_that_is_level_alone_is_chance_within_bins() -> None:
    level = np.repeat([0.0, 1.0, 2.0], 20)
    partners = np.zeros((60, 60), bool)
    partners[:, 40:50] = True
    found = partner_auroc(np.tile(level, (60, 1)), partners, np.ones((60, 60), bool), level.astype(np.int64))
    assert found["auroc"].mean() > 0.85
    np.testing.assert_allclose(found["auroc_matched"], 0.5)


def test_genes_without_partners_have_no_score() -> None:
    found = partner_auroc(np.eye(3), np.zeros((3, 3), bool), np.ones((3, 3), bool), np.zeros(3, np.int64))
    assert found["auroc"].isna().all()
    assert np.isnan(mean_interval(found["auroc"].to_numpy(), np.random.default_rng(0))[0])


def test_the_interval_holds_the_mean() -> None:
    values = np.append(np.random.default_rng(1).normal(0.6, 0.1, 200), np.nan)
    mean, low, high = mean_interval(values, np.random.default_rng(0))
    assert mean == pytest.approx(np.nanmean(values))
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(200), rel=0.2)
    assert low < mean < high


def test_the_greatest_scores_come_first() -> None:
    scores = np.array([[9.0, 1.0, 2.0], [np.nan, 9.0, 5.0], [np.nan, np.nan, 9.0]])
    rows, columns = top_partners(scores, 2)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 2), (0, 1), (1, 2)]
