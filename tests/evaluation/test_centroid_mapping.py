import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lexicell.errors import InputError
from lexicell.evaluation.centroid_mapping import MappingSettings, map_to_centroids


def cells(n: int, seed: int) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Cells of two classes of two types; genes 0-9 mark a class, ten more mark each type."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(4, size=n)
    rates = np.full((4, 60), 0.5)
    for one in range(4):
        rates[one, 5 * (one // 2) : 5 * (one // 2) + 5] = 5
        rates[one, 10 + 10 * one : 14 + 10 * one] = 2
    types = np.array(["a1", "a2", "b1", "b2"])
    paths = pd.DataFrame({"class": np.where(kind < 2, "a", "b"), "type": types[kind]})
    return sparse.csr_matrix(rng.poisson(rates[kind])), paths


def test_planted_types_are_found_down_the_tree():
    train, paths = cells(300, 0)
    test, truth = cells(200, 1)
    found = map_to_centroids(train, paths, test)
    assert (found.labels["type"].to_numpy() == truth["type"].to_numpy()).mean() > 0.85
    assert (found.labels["class"].str[0] == found.labels["type"].str[0]).all()
    assert (found.aggregate_probability[:, 1] <= found.probability[:, 0] + 1e-6).all()
    right = found.labels["type"].to_numpy() == truth["type"].to_numpy()
    assert found.aggregate_probability[right, 1].mean() > found.aggregate_probability[~right, 1].mean()


def test_the_seed_names_the_draws():
    train, paths = cells(200, 0)
    test, _ = cells(60, 2)
    few = MappingSettings(rounds=5, marker_share=0.3)
    first, again, other = (map_to_centroids(train, paths, test, seed, few) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.probability, again.probability)
    assert (first.probability != other.probability).any()


def test_cells_without_a_whole_path_teach_nothing():
    train, paths = cells(200, 0)
    test, _ = cells(50, 3)
    paths.loc[:99, "type"] = None
    found = map_to_centroids(train, paths, test)
    again = map_to_centroids(train[100:], paths.iloc[100:], test)
    pd.testing.assert_frame_equal(found.labels, again.labels)


def test_no_whole_path_at_all_is_refused():
    train, paths = cells(200, 0)
    paths.loc[:99, "type"] = None
    paths.loc[100:, "class"] = None
    with pytest.raises(InputError, match="no cell says under which 'class'"):
        map_to_centroids(train, paths, train)


def test_an_only_child_is_sure():
    train, paths = cells(100, 0)
    paths["type"] = paths["class"] + "-only"
    found = map_to_centroids(train, paths, train)
    assert (found.probability[:, 1] == 1).all()
    assert (found.labels["type"] == found.labels["class"] + "-only").all()
