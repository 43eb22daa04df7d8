from __future__ import annotations

import numpy as np
from scipy.sparse import csc_matrix

from lexicell.gene_space.profiles import expression_profile


def test_profile_by_hand() -> None:
    expression = csc_matrix(np.array([[0, 1, 3.0], [0, 1, 0], [0, 1, 0], [0, 1, 2]]))
    profile = expression_profile(expression)
    np.testing.assert_allclose(profile[:, 0], np.array([0.5, 1.5, 2.5]) / 3)  # means 0, 1, 1.25
    np.testing.assert_allclose(profile[:, 1], np.array([0.5, 2.5, 1.5]) / 3)  # detection 0, 1, 1/2
    np.testing.assert_allclose(profile[:, 2], np.array([1.0, 1.0, 2.5]) / 3)  # spread 0, 0, more
    np.testing.assert_allclose(profile[:, -1], np.array([0.5, 1.5, 2.5]) / 3)  # maximum 0, 1, 3


def test_profile_does_not_depend_on_the_scale() -> None:
    rng = np.random.default_rng(0)
    expression = rng.poisson(rng.gamma(1, 1, (1, 40)), (60, 40)).astype(float)
    np.testing.assert_allclose(
        expression_profile(csc_matrix(expression)), expression_profile(csc_matrix(expression * 4))
    )
