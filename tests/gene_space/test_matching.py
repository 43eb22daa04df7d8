from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lexicell.gene_space.matching import LOCAL, MatchConfidence, Matches, _check, match_genes


def planted(noise: float, n: int = 300, width: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((n, width))
    return first, first + noise * rng.standard_normal((n, width))


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    unit = [rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (first, second)]
    return unit[0] @ unit[1].T


def test_csls_is_as_defined() -> None:
    first, second = planted(1.0, n=40)
    table = cosines(first, second)
    around = [np.sort(t, axis=1)[:, -LOCAL:].mean(axis=1) for t in (table, table.T)]
    expected = 2 * table - around[0][:, None] - around[1]
    found = match_genes(first, second, k=3)
    np.testing.assert_array_equal(found.indices, np.argsort(-expected, axis=1)[:, :3])
    rows = np.arange(40)[:, None]
    np.testing.assert_allclose(found.csls, expected[rows, found.indices], atol=1e-5)
    np.testing.assert_allclose(found.cosine, table[rows, found.indices], atol=1e-5)
    best = expected.argmax(axis=0)
    np.testing.assert_array_equal(found.mutual, best[found.indices] == rows)


def test_hubs_do_not_take_all() -> None:
    first, second = planted(0.6)
    hub = first.mean(axis=0) + 5  # near to everything once both species are shifted alike
    shifted, others = first + 3, np.vstack([second + 3, hub + 3])
    plain = cosines(shifted, others).argmax(axis=1)
    found = match_genes(shifted, others, k=1).indices[:, 0]
    truth = np.arange(300)
    assert (found == truth).mean() >= (plain == truth).mean()


def test_the_margin_is_to_the_best_other_candidate() -> None:
    csls = np.array([[0.9, 0.5, 0.1]])
    shape = (1, 3)
    matches = Matches(np.zeros(shape, np.int64), csls, csls, np.zeros(shape, bool))
    np.testing.assert_allclose(matches.margin, [[0.4, -0.4, -0.8]])
    one = Matches(np.zeros((1, 1), np.int64), csls[:, :1], csls[:, :1], np.zeros((1, 1), bool))
    assert one.margin.tolist() == [[0.0]]


def test_confidence_foretells_which_matches_are_right() -> None:
    first, second = planted(1.4, n=800)
    matches = match_genes(first, second, k=5)
    fitted = MatchConfidence.fit(matches, np.arange(800))
    assert fitted is not None
    model, check = fitted
    assert check.genes == 400
    assert 0.2 < check.right < 0.9  # hard enough to be a test
    assert check.expected == pytest.approx(check.right, abs=0.06)
    assert check.calibration_error < 0.08
    assert check.auroc > 0.75
    confidence = model.of(matches)
    assert (confidence[:, 0] >= confidence[:, 1]).mean() > 0.95


def test_without_signal_confidence_is_low_everywhere() -> None:
    rng = np.random.default_rng(0)
    matches = match_genes(rng.standard_normal((400, 16)), rng.standard_normal((400, 16)), k=5)
    fitted = MatchConfidence.fit(matches, np.arange(400))
    if fitted is not None:
        assert fitted[0].of(matches).mean() < 0.05


def test_too_few_orthologs_give_no_confidence() -> None:
    first, second = planted(0.5, n=30)
    known = np.where(np.arange(30) < 10, np.arange(30), -1)
    assert MatchConfidence.fit(match_genes(first, second), known) is None


def test_the_check_by_hand() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(500)
    right = rng.random(500) < confidence
    found = _check(confidence, right)
    assert found.auroc == pytest.approx(roc_auc_score(right, confidence))
    assert found.calibration_error < 0.1
    assert _check(1 - confidence, right).calibration_error > 0.3
    assert np.isnan(_check(confidence, np.ones(500, bool)).auroc)
