from __future__ import annotations

import numpy as np
import pytest

from lexicell.gene_space.matched_controls import against_controls, nearest_controls
from lexicell.gene_space.multiple_testing import benjamini_hochberg


def test_controls_are_the_nearest_genes_that_are_not_asked_about() -> None:
    level = np.arange(10.0)
    found = nearest_controls(np.stack([level, level**2], axis=1), np.array([0, 9]), 2)
    assert [set(row) for row in found.tolist()] == [{1, 2}, {7, 8}]
    assert nearest_controls(level[:, None], np.arange(8), 5).shape == (8, 2)
    assert nearest_controls(level[:, None], np.array([0]), 1).tolist() == [[1]]


def test_a_value_is_standardised_as_a_new_draw() -> None:
    controls = np.array([[1.0, 2, 3, 4, 5, np.nan]])
    z, _ = against_controls(np.array([6.0]), controls, two_sided=False)
    assert z[0] == pytest.approx((6 - 3) / np.sqrt(2.5 * (1 + 1 / 5)))
    z, p = against_controls(np.array([6.0]), controls[:, :4], two_sided=False)
    assert np.isnan(z[0])  # four controls tell no spread
    assert np.isnan(p[0])


@pytest.mark.parametrize("two_sided", [False, True])
def test_p_values_are_uniform_when_a_gene_is_like_its_controls(two_sided: bool) -> None:
    rng = np.random.default_rng(0)
    scale = rng.lognormal(size=(2000, 1))
    draws = scale * rng.gamma(4.0, size=(2000, 16))
    _, p = against_controls(draws[:, 0], draws[:, 1:], two_sided=two_sided)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 2000))


def test_planted_effects_are_called_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(5.0, 1.0, size=(300, 21))
    draws[:20, 0] += 8
    _, p = against_controls(draws[:, 0], draws[:, 1:], two_sided=False)
    called = benjamini_hochberg(p) <= 0.05
    assert called[:20].mean() > 0.9
    assert called[20:].mean() < 0.02
    _, low = against_controls(-draws[:, 0], -draws[:, 1:], two_sided=False)
    assert (low[:20] > 0.9).all()  # one-sided: a small effect is none
