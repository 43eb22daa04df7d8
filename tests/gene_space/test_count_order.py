from __future__ import annotations

import numpy as np
import pytest

from lexicell.gene_space.count_order import count_order, merged_from


def test_classes_along_a_line_are_in_order() -> None:
    counts = np.arange(12.0)
    points = np.log1p(counts)[:, None] * np.array([[0.6, -0.8, 0.0]])
    found = count_order(points, counts, np.ones(12, bool))
    assert found.spearman == pytest.approx(1.0)
    assert found.distance_spearman == pytest.approx(1.0, abs=1e-3)  # but for digits of tied distances
    assert found.explained == pytest.approx(1.0)
    assert found.in_order == 1.0
    np.testing.assert_allclose(found.classes["step"][:-1], np.diff(np.log1p(counts)))
    assert np.isnan(found.classes["step"].iloc[-1])


def test_classes_in_disorder_are_told_and_unseen_ones_left_out() -> None:
    counts = np.arange(6.0)
    points = np.array([0.0, 3.0, 1.0, 4.0, 2.0, 0.01])[:, None] * np.array([[1.0, 0.0]])
    found = count_order(points, counts, np.array([True] * 5 + [False]))
    assert found.spearman == pytest.approx(0.5)  # ranks 1 4 2 5 3: squared differences 0 4 1 1 4, 1 - 6 * 10 / 120
    np.testing.assert_array_equal(found.classes["nearest"][:5], [2, 3, 0, 1, 1])
    assert not found.classes["in_order"].any()
    assert np.isnan(found.classes["nearest"].iloc[5])


def test_too_few_classes_give_no_order() -> None:
    found = count_order(np.eye(4), np.arange(4.0), np.array([True, True, False, False]))
    assert np.isnan(found.spearman)
    assert np.isnan(found.in_order)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ([np.nan, 0.5, 0.2, 0.01, 0.02], 3),
        ([np.nan, 0.5, 0.01, 0.2, 0.02], 4),
        ([np.nan, 0.5, 0.3, np.nan], None),
        ([0.01, 0.02], 0),
        ([np.nan, np.nan], None),
    ],
)
def test_classes_merge_after_the_last_step_that_counts(share: list[float], expected: int | None) -> None:
    assert merged_from(np.array(share), 0.05) == expected
