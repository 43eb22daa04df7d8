from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lexicell.gene_space.displacement import (
    PARTS,
    compare_groups,
    displacement,
    jaccard,
    orthogonal_map,
    rank_biased_overlap,
    split_parts,
)

N, WIDTH = 300, 8


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def turned(points: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """The same genes in other coordinates, noisily."""
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    return points @ rotation + noise * rng.standard_normal(points.shape)


def test_a_rotation_displaces_no_gene(rng: np.random.Generator) -> None:
    points = rng.standard_normal((N, WIDTH))
    np.testing.assert_allclose(displacement(points, turned(points, rng, 0.0)), 0, atol=1e-6)


def test_the_map_stands_on_stable_genes(rng: np.random.Generator) -> None:
    points = rng.standard_normal((N, WIDTH))
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    other = points @ rotation
    other[: N // 5] = rng.standard_normal((N // 5, WIDTH))
    np.testing.assert_allclose(orthogonal_map(points, other), rotation, atol=1e-6)


def test_overlaps_by_hand() -> None:
    a = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
    b = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [2, 1, 5, 3]])
    np.testing.assert_allclose(jaccard(a, b), [1, 0, 3 / 5])
    weights = 0.9 ** np.arange(1, 5)
    by_hand = (weights * [0, 1, 2 / 3, 3 / 4]).sum() / weights.sum()
    np.testing.assert_allclose(rank_biased_overlap(a, b), [1, 0, by_hand])


def test_moved_genes_are_found_and_others_are_not(rng: np.random.Generator) -> None:
    first = rng.standard_normal((N, WIDTH))
    second = first.copy()
    moved = np.arange(N) < 20
    second[moved] = rng.standard_normal((20, WIDTH))
    sides = [[turned(points, rng, 0.2) for _ in range(PARTS)] for points in (first, second)]
    table, null = compare_groups(sides[0], sides[1], rng.integers(5, 100, N), k=10)
    for name in ("displacement", "rbo", "jaccard"):
        assert roc_auc_score(moved, table[f"{name}_excess"]) > 0.9
        assert (table.loc[~moved, f"{name}_fdr"] <= 0.05).mean() < 0.02
        assert null[name].shape == (6, N)
    assert (table.loc[moved, "displacement_fdr"] <= 0.05).mean() > 0.8
    assert (table["rbo_within"] > table["rbo_between"]).mean() > 0.5


def test_nothing_is_called_where_nothing_moved(rng: np.random.Generator) -> None:
    points = rng.standard_normal((N, WIDTH))
    sides = [[turned(points, rng, 0.4) for _ in range(PARTS)] for _ in range(2)]
    table, _ = compare_groups(sides[0], sides[1], rng.integers(5, 100, N), k=10)
    for name in ("displacement", "rbo", "jaccard"):
        assert (table[f"{name}_fdr"] <= 0.05).sum() <= 2
        assert (table[f"{name}_p"] <= 0.05).mean() < 0.08


def test_too_few_parts_are_refused(rng: np.random.Generator) -> None:
    points = [rng.standard_normal((N, WIDTH))] * 3
    with pytest.raises(ValueError, match="4 parts"):
        compare_groups(points, points, np.ones(N, np.int64))


def test_donors_stay_whole_where_there_are_enough(rng: np.random.Generator) -> None:
    donors = np.array([f"d{i % 6}" for i in range(90)], dtype=object)
    parts = split_parts(donors, 90, rng)
    assert all(len(set(parts[donors == d])) == 1 for d in set(donors))
    assert set(parts) == set(range(PARTS))
    two = split_parts(donors[donors < "d2"], 30, rng)
    assert set(two[donors[donors < "d2"] == "d0"]).isdisjoint(two[donors[donors < "d2"] == "d1"])
    np.testing.assert_array_equal(np.bincount(split_parts(None, 40, rng)), [10] * PARTS)
