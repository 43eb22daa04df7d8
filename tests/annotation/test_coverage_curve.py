from __future__ import annotations

import numpy as np
import pytest

from lexicell.annotation.coverage_curve import coverage_curve


def test_a_curve_by_hand() -> None:
    probs = np.array([0.5, 0.9, 0.5, 0.8, 0.0])
    found = coverage_curve(probs, np.array([False, True, True, False, False]))
    np.testing.assert_allclose(found["threshold"], [0.9, 0.8, 0.5])
    np.testing.assert_allclose(found["coverage"], [0.2, 0.4, 0.8])  # ties together; the cell without a call never
    np.testing.assert_allclose(found["error"], [0, 0.5, 0.5])


def test_points_are_thinned_and_no_cell_gives_no_curve() -> None:
    rng = np.random.default_rng(0)
    found = coverage_curve(rng.random(1000), rng.random(1000) < 0.7, points=20)
    assert len(found) == 20
    assert found["coverage"].is_monotonic_increasing
    assert found["coverage"].iloc[-1] == 1
    assert found["error"].iloc[-1] == pytest.approx(0.3, abs=0.05)
    assert not len(coverage_curve(np.zeros(0), np.zeros(0, bool)))
