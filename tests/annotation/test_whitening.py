import numpy as np

from lexicell.annotation.whitening import STRENGTH, WhitenedParts, Whitening


def test_components_have_nearly_the_same_variance_and_no_correlation() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((500, 6)) @ np.diag([100, 10, 3, 1, 0.5, 0]) @ rng.standard_normal((6, 6)) + 5
    whitened = Whitening.fit(points)(points)
    assert whitened.shape == (500, 5)  # one direction is empty
    covariance, before = np.cov(whitened.T, bias=True), np.linalg.eigvalsh(np.cov(points.T, bias=True))[1:]
    np.testing.assert_allclose(covariance, np.diag(before ** (1 - STRENGTH)), atol=1e-3 * covariance.max())
    assert Whitening.fit(points, most=2)(points).shape == (500, 2)


def test_neighbours_are_told_by_more_than_the_loudest_direction() -> None:
    rng = np.random.default_rng(1)
    kind = np.arange(400) % 2
    points = np.stack([rng.standard_normal(400) * 5000, kind + 0.1 * rng.standard_normal(400)], axis=1)
    whitened = Whitening.fit(points)(points)

    def shared(space: np.ndarray) -> float:
        gaps = np.square(space[:, None] - space).sum(-1)
        np.fill_diagonal(gaps, np.inf)
        return float((kind[gaps.argmin(1)] == kind).mean())

    assert shared(points) < 0.8
    assert shared(whitened) > 0.9


def test_cells_all_alike_stay_as_they_are() -> None:
    points = np.ones((3, 4))
    np.testing.assert_array_equal(Whitening.fit(points)(points), points)


def test_few_cells_keep_their_distances() -> None:
    rng = np.random.default_rng(2)
    points = np.repeat(np.eye(96)[:3], 9, axis=0) + 0.05 * rng.standard_normal((27, 96))
    kind = np.repeat(np.arange(3), 9)
    whitened = Whitening.fit(points)(points)
    assert whitened.shape == (27, 2)
    gaps = np.square(whitened[:, None] - whitened).sum(-1)
    np.fill_diagonal(gaps, np.inf)
    assert (kind[gaps.argmin(1)] == kind).all()
    np.testing.assert_allclose(Whitening.fit(points[:12])(points), points, rtol=1e-6)


def test_one_part_cannot_drown_the_other() -> None:
    rng = np.random.default_rng(3)
    kind = np.arange(400) % 2
    told = np.stack([kind + 0.1 * rng.standard_normal(400), 0.1 * rng.standard_normal(400)], axis=1)
    points = np.hstack([100 * rng.standard_normal((400, 30)), told])

    def shared(space: WhitenedParts) -> float:
        components = space(points)
        gaps = -components @ components.T
        np.fill_diagonal(gaps, np.inf)
        return float((kind[gaps.argmin(1)] == kind).mean())

    apart = WhitenedParts.fit(points, (30, 2))
    np.testing.assert_allclose(np.square(apart(points)).sum(axis=1), 2, rtol=1e-5)
    assert shared(WhitenedParts.fit(points)) < 0.7
    assert shared(apart) > 0.9
