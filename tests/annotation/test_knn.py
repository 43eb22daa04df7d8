import numpy as np
import pandas as pd
import pytest

from lexicell.annotation.knn import KnnSettings, transfer_labels, vote
from lexicell.labels import LabelTree


@pytest.fixture
def cells() -> tuple[np.ndarray, pd.DataFrame]:
    """Four clusters of cells on a tree of two classes with two types each."""
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(4) * 8 + np.repeat(np.eye(4)[[0, 2]], 2, axis=0) * 4, 25, axis=0)
    types = np.repeat(["a1", "a2", "b1", "b2"], 25)
    obs = pd.DataFrame({"class": [name[0] for name in types], "type": types})
    return (centres + rng.normal(size=centres.shape)).astype(np.float32), obs


def test_labels_follow_the_nearest_cells_down_the_tree(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, ["class", "type"])
    codes = tree.encode(obs)
    calls = transfer_labels(points[::2], codes[::2], points[1::2], tree)
    np.testing.assert_array_equal(calls.codes, codes[1::2])
    assert (np.diff(calls.probs, axis=1) <= 1e-6).all()
    assert (calls.probs > 0.5).all()


def test_a_cell_is_labelled_alike_whatever_comes_with_it(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, ["class", "type"])
    query = points + np.random.default_rng(1).normal(scale=4, size=points.shape).astype(np.float32)
    whole = transfer_labels(points, tree.encode(obs), query, tree)
    alone = transfer_labels(points, tree.encode(obs), query[7:8], tree)
    np.testing.assert_array_equal(alone.codes[0], whole.codes[7])
    np.testing.assert_array_equal(alone.probs[0], whole.probs[7])


def test_neighbours_without_a_fine_label_vote_on_the_coarse_one_only():
    obs = pd.DataFrame({"class": ["a", "a", "a", "b"], "type": ["a1", None, None, "b1"]})
    tree = LabelTree.from_frame(obs, ["class", "type"])
    tables = vote(np.array([[0, 1, 2, 3]]), np.ones((1, 4)), tree.encode(obs), tree)
    np.testing.assert_allclose(tables[0], [[0.75, 0.25]])
    np.testing.assert_allclose(tables[1], [[0.75, 0.25]])


def test_balance_lets_a_rare_type_win_among_its_own():
    angles = np.radians([0, 1, 2, 3, 4, 5, 60, 61, 62, 63, 64, 65, 66, 67])
    reference = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    obs = pd.DataFrame({"type": ["rare", "rare", *["common"] * 12]})
    tree = LabelTree.from_frame(obs, ["type"])
    query = reference[:1] * 2

    def called(balance: float) -> str:
        settings = KnnSettings(k=6, power=0, balance=balance)
        calls = transfer_labels(reference, tree.encode(obs), query, tree, settings)
        return tree.names[0][calls.codes[0, 0]]

    assert called(0.0) == "common"
    assert called(1.0) == "rare"


def test_unlabelled_reference_cells_are_left_out(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, ["class", "type"])
    codes = tree.encode(obs)
    codes[50:] = -1
    calls = transfer_labels(points, codes, points, tree, KnnSettings(k=500))
    assert set(calls.codes[:, 0]) == {0}


def test_no_query_cells_give_no_calls(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, ["class"])
    assert transfer_labels(points, tree.encode(obs), points[:0], tree).codes.shape == (0, 1)


def test_arrays_that_do_not_fit_are_refused(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, ["class", "type"])
    with pytest.raises(ValueError, match="codes: expected the shape"):
        transfer_labels(points, tree.encode(obs)[:, :1], points, tree)
    with pytest.raises(ValueError, match="no reference cell has a label on the level 'class'"):
        transfer_labels(points, np.full((100, 2), -1), points, tree)


def test_labels_stay_when_the_search_becomes_approximate(cells, monkeypatch):
    points, obs = cells
    tree = LabelTree.from_frame(obs, ["class", "type"])
    codes = tree.encode(obs)
    exact = transfer_labels(points[::2], codes[::2], points[1::2], tree)
    monkeypatch.setattr("lexicell.neighbors.EXACT_UP_TO", 10)
    np.testing.assert_array_equal(transfer_labels(points[::2], codes[::2], points[1::2], tree).codes, exact.codes)
