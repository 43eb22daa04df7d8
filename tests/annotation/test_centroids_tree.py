import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lexicell.annotation.centroids import CentroidTree
from lexicell.annotation.linear import along_paths
from lexicell.labels import LabelTree


@pytest.fixture
def planted() -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Two classes of two types; five genes mark a class, four more mark each type."""
    rng = np.random.default_rng(0)
    kind = rng.integers(4, size=300)
    rates = np.full((4, 60), 0.5)
    for one in range(4):
        rates[one, 5 * (one // 2) : 5 * (one // 2) + 5] = 5
        rates[one, 10 + 10 * one : 14 + 10 * one] = 4
    obs = pd.DataFrame({"class": np.where(kind < 2, "a", "b"), "type": np.array(["a1", "a2", "b1", "b2"])[kind]})
    return sparse.csr_matrix(rng.poisson(rates[kind])), obs


def test_planted_types_are_told_apart_down_the_tree(planted):
    counts, obs = planted
    tree = LabelTree.from_frame(obs, ["class", "type"])
    codes = tree.encode(obs)
    model = CentroidTree.fit(counts[:150], codes[:150], tree)
    tables = along_paths(tree, model.log_conditionals(counts[150:]))
    for place, table in enumerate(tables):
        np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-4)
        assert (table.argmax(axis=1) == codes[150:, place]).mean() > 0.9


def test_a_class_is_as_alike_as_its_most_alike_type(planted):
    """Cells of a rare type go to the class that holds it, though the class's mean profile is another type's."""
    counts, obs = planted
    rare = np.flatnonzero(obs["type"] == "b2")
    kept = np.concatenate([np.flatnonzero(obs["type"] != "b2"), rare[:4]])
    tree = LabelTree.from_frame(obs, ["class", "type"])
    model = CentroidTree.fit(counts[kept], tree.encode(obs)[kept], tree)
    called = model.log_conditionals(counts[rare[4:]])[0].argmax(axis=1)
    assert (called == 1).mean() > 0.9


def test_labels_without_a_cell_are_never_called(planted):
    counts, obs = planted
    tree = LabelTree.from_frame(obs, ["class", "type"])
    codes = tree.encode(obs)
    kept = codes[:, 1] != 3
    model = CentroidTree.fit(counts[kept], codes[kept], tree)
    assert (model.log_conditionals(counts)[1][:, 3] == -np.inf).all()
    codes[::2, 1] = -1  # cells that are labelled on the coarse level alone still teach it
    half = CentroidTree.fit(counts, codes, tree)
    assert (half.log_conditionals(counts)[0].argmax(axis=1) == codes[:, 0]).mean() > 0.95
