from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import false_discovery_control, hypergeom, kstest
from sklearn.metrics import roc_auc_score

from lexicell.gene_space.coherence import expression_bins, matched_random_sets, set_coherence
from lexicell.gene_space.enrichment import neighbour_enrichment, stratified_tail
from lexicell.gene_space.gene_views import centred, side_by_side, standardised, whitened, without_level
from lexicell.gene_space.leave_one_out import leave_one_out_auroc, unit_rows
from lexicell.gene_space.multiple_testing import benjamini_hochberg, empirical_p
from lexicell.gene_space.probes import held_out_scores, probe, resampled_aurocs, stratified_auroc
from lexicell.neighbors import find_neighbors


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def by_hand(points: np.ndarray, members: csr_matrix, bins: np.ndarray) -> np.ndarray:
    """The same by scikit-learn, one held-out member at a time."""
    x, out = unit_rows(points).astype(float), []
    for s in range(members.shape[0]):
        own = members[s].indices
        rest = np.setdiff1d(np.arange(len(x)), own)
        both: tuple[list[float], list[float]] = ([], [])
        for held in own:
            score = x @ (x[own].sum(axis=0) - x[held])
            for scores, among in zip(both, (rest, rest[bins[rest] == bins[held]]), strict=True):
                if len(among):
                    truth = np.r_[1, np.zeros(len(among))]
                    scores.append(float(roc_auc_score(truth, np.r_[score[held], score[among]])))
        out.append([np.mean(scores) if scores else np.nan for scores in both])
    return np.array(out).T


def test_auroc_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    points, bins = rng.standard_normal((150, 6)) + 0.5, rng.integers(0, 4, 150)
    members = csr_matrix(rng.random((12, 150)) < 0.06)
    np.testing.assert_allclose(leave_one_out_auroc(points, members, bins), by_hand(points, members, bins), atol=1e-6)


def test_ties_count_half_and_a_single_gene_has_no_score() -> None:
    points = np.ones((10, 3))
    members = csr_matrix(np.stack([np.arange(10) < 4, np.arange(10) < 1]))
    auroc, matched = leave_one_out_auroc(points, members)
    assert auroc[0] == matched[0] == 0.5
    assert np.isnan(auroc[1])
    assert np.isnan(matched[1])


def test_bins_take_the_confounder_away(rng: np.random.Generator) -> None:
    level = rng.random(600)
    points = np.column_stack([np.cos(3 * level), np.sin(3 * level)])  # the level, and nothing else
    high = np.argsort(-level)[:120]
    sets = np.zeros((6, 600), bool)
    for row in sets:
        row[rng.choice(high, 20, replace=False)] = True
    auroc, matched = leave_one_out_auroc(points, csr_matrix(sets), expression_bins(level, 20))
    assert auroc.min() > 0.85
    assert abs(matched.mean() - 0.5) < 0.08
    found = set_coherence(points, csr_matrix(sets), expression_bins(level, 20), rng, nulls=20)
    assert (found["null_auroc"] > 0.8).all()  # random sets of the same levels do as well


def test_random_sets_match_size_and_bins(rng: np.random.Generator) -> None:
    bins = rng.integers(0, 5, 200)
    members = csr_matrix(rng.random((8, 200)) < 0.1)
    drawn = matched_random_sets(members, bins, rng)
    for s in range(8):
        np.testing.assert_array_equal(
            np.bincount(bins[drawn[s].indices], minlength=5), np.bincount(bins[members[s].indices], minlength=5)
        )
        assert len(set(drawn[s].indices)) == drawn[s].nnz


def test_planted_sets_are_found_and_random_ones_are_not(rng: np.random.Generator) -> None:
    n_genes, n_sets = 800, 60
    centres = rng.standard_normal((n_sets, 20))
    points, members = rng.standard_normal((n_genes, 20)), np.zeros((n_sets, n_genes), bool)
    for s in range(n_sets):
        members[s, rng.choice(n_genes, 20, replace=False)] = True
    for s in range(n_sets // 2):
        points[members[s]] += 1.5 * centres[s]
    found = set_coherence(points, csr_matrix(members), rng.integers(0, 5, n_genes), rng, nulls=10)
    planted = np.arange(n_sets) < n_sets // 2
    assert (found.loc[planted, "fdr"] < 0.05).all()
    assert (found.loc[planted, "nn_fdr_matched"] < 0.05).mean() > 0.9
    assert (found.loc[~planted, "fdr"] < 0.05).sum() <= 3
    assert (found.loc[~planted, "nn_fdr_matched"] < 0.05).sum() <= 3


def test_p_values_are_uniform_where_nothing_is_planted(rng: np.random.Generator) -> None:
    points, members = rng.standard_normal((500, 10)), csr_matrix(rng.random((300, 500)) < 0.04)
    found = set_coherence(points, members, rng.integers(0, 4, 500), rng, nulls=4)
    assert kstest(found["p"], "uniform").pvalue > 0.001
    assert 0.45 < found["auroc"].mean() < 0.55


def test_enrichment_is_exact_where_neighbours_are_mutual(rng: np.random.Generator) -> None:
    # Genes in pairs that are each other's neighbours: hits come two at a time, unless one half alone points.
    neighbours = (np.arange(400) ^ 1)[:, None]
    sets = csr_matrix(rng.random((3000, 400)) < 0.1)
    p = neighbour_enrichment(neighbours, sets, rng.integers(0, 3, 400))
    for column in ("p", "p_matched"):
        for limit in (0.01, 0.05, 0.2):
            assert (p[column] <= limit).mean() <= limit + 3 * np.sqrt(limit / 3000)


def test_a_hand_worked_enrichment() -> None:
    # Ten genes, of which two are the set: one points at gene 5 and at the other member, which alone is sought.
    neighbours = np.full((10, 2), 5)
    neighbours[0], neighbours[1] = (1, 5), (0, 5)
    row = neighbour_enrichment(neighbours, csr_matrix(np.arange(10)[None] < 2), np.zeros(10, np.int64)).iloc[0]
    assert (row["near"], row["found"], row["expected"]) == (2, 1, pytest.approx(2 * 1 / 9))
    assert row["p"] == pytest.approx(2 / 9)
    assert row["p_matched"] == pytest.approx(2 / 9)


def test_the_tail_over_strata() -> None:
    whole = stratified_tail(3, np.array([20]), np.array([6]), np.array([5]))
    assert whole == pytest.approx(hypergeom.sf(2, 20, 6, 5))
    assert stratified_tail(0, np.array([20, 5]), np.array([6, 1]), np.array([5, 1])) == 1.0
    both = stratified_tail(2, np.array([4, 4]), np.array([1, 1]), np.array([2, 2]))
    assert both == pytest.approx(0.25)  # each is drawn with probability one half


def test_benjamini_hochberg_is_that_of_scipy(rng: np.random.Generator) -> None:
    p = rng.random(50)
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p))
    with_gap = benjamini_hochberg(np.r_[p, np.nan])
    np.testing.assert_allclose(with_gap[:-1], false_discovery_control(p))
    assert np.isnan(with_gap[-1])


def test_an_empirical_p_is_never_zero() -> None:
    np.testing.assert_allclose(
        empirical_p(np.array([5.0, 2.0, 0.0, np.nan]), np.array([1.0, 2.0, 3.0, np.nan])), [1 / 4, 3 / 4, 1.0, np.nan]
    )


def test_the_level_is_removed(rng: np.random.Generator) -> None:
    level, free = rng.random(300), rng.standard_normal((300, 4))
    points = free + 5 * level[:, None] ** 2
    ranks = np.argsort(np.argsort(level))
    left = without_level(points, level)
    assert max(abs(np.corrcoef(ranks, column)[0, 1]) for column in left.T) < 1e-6
    assert max(abs(np.corrcoef(ranks, column)[0, 1]) for column in points.T) > 0.5


def test_whitening_and_setting_beside(rng: np.random.Generator) -> None:
    points = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5))
    covariance = np.cov(whitened(points).T)
    np.testing.assert_allclose(covariance, np.eye(5) * covariance[0, 0], atol=1e-10)
    unchanged = unit_rows(whitened(points, 0.0))
    np.testing.assert_allclose(unchanged @ unchanged.T, (lambda u: u @ u.T)(unit_rows(centred(points))), atol=1e-4)
    assert side_by_side(points, points[:, :2]).shape == (200, 7)


def test_missing_is_not_zero() -> None:
    expression = csr_matrix(np.array([[1.0, 5.0], [3.0, 0.0], [0.0, 0.0]])).tocsc()
    known = np.array([[True, True], [True, False], [False, False]])
    scaled = standardised(expression, known)
    np.testing.assert_allclose(scaled[0], [-1.0, 1.0, 0.0])  # the third cell did not measure it
    np.testing.assert_allclose(scaled[1], 0.0)


def test_a_probe_reads_a_linear_class_and_nothing_else(rng: np.random.Generator) -> None:
    points = rng.standard_normal((400, 8))
    planted, chance = (points[:, 0] > 0.5).astype(int), rng.integers(0, 2, 400)
    planted[:50] = -1
    bins = rng.integers(0, 5, 400)
    score = probe(points, planted, bins)
    assert score.auroc > 0.95
    assert score.matched > 0.93
    assert score.positives + score.negatives == 350
    assert score.low < score.auroc < score.high < score.low + 0.1
    held_out = held_out_scores(points, planted)
    asked = planted >= 0
    np.testing.assert_array_equal(np.isnan(held_out), ~asked)
    assert score.auroc == pytest.approx(roc_auc_score(planted[asked], held_out[asked]))
    assert 0.35 < probe(points, chance, bins).auroc < 0.65
    assert np.isnan(probe(points, np.r_[np.ones(3), np.zeros(397)].astype(int), bins).auroc)


def test_stratified_auroc(rng: np.random.Generator) -> None:
    score, truth = rng.random(60), rng.random(60) < 0.4
    everywhere = np.zeros(60, np.int64)
    assert stratified_auroc(score, truth, everywhere) == pytest.approx(roc_auc_score(truth, score))
    strata = np.array([0, 0, 1, 1])
    assert stratified_auroc(np.array([2.0, 1, 3, 4]), np.array([1, 0, 1, 0], bool), strata) == 0.5
    assert np.isnan(stratified_auroc(score, np.ones(60, bool), everywhere))


def test_resampled_aurocs_are_those_of_the_genes_drawn(rng: np.random.Generator) -> None:
    truth = rng.random(700) < 0.5
    score, strata = np.round(rng.random(700) + 0.2 * truth, 2), rng.integers(0, 3, 700)  # with ties
    positive, negative = np.flatnonzero(truth), np.flatnonzero(~truth)
    for bins in (np.zeros(700, np.int64), strata):
        found = resampled_aurocs(score, truth, bins, np.random.default_rng(1), draws=20)
        same = np.random.default_rng(1)
        times = [same.multinomial(len(own), np.full(len(own), 1 / len(own)), size=20) for own in (positive, negative)]
        for draw in range(20):
            drawn = np.r_[np.repeat(positive, times[0][draw]), np.repeat(negative, times[1][draw])]
            assert found[draw] == pytest.approx(stratified_auroc(score[drawn], truth[drawn], bins[drawn]), abs=1e-5)


def test_neighbours_of_the_package_fit(rng: np.random.Generator) -> None:
    found = find_neighbors(rng.standard_normal((50, 4)), k=5).indices
    table = neighbour_enrichment(found, csr_matrix(rng.random((4, 50)) < 0.3))
    assert "p_matched" not in table
