import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from lexicell.annotation.linear import LinearSettings, along_paths, fit_linear_tree, log_softmax_among_siblings
from lexicell.labels import LabelTree

LEVELS = ["class", "type"]


@pytest.fixture
def cells() -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(0)
    centres = np.array([[4.0, 1, 0], [4, -1, 0], [-4, 0, 1], [-4, 0, -1], [0, 4, 4]])
    place = np.repeat(np.arange(5), [30, 30, 30, 10, 20])
    types = np.array(["a1", "a2", "b1", "b2", "c1"])[place]
    obs = pd.DataFrame({"class": [name[0] for name in types], "type": types})
    return (centres[place] + rng.normal(size=(len(place), 3))).astype(np.float32), obs


def test_each_family_is_a_logistic_regression_of_its_own_cells(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, LEVELS)
    fitted = fit_linear_tree(points, tree.encode(obs), tree, LinearSettings(balance=0))
    tables = fitted.tables(points)
    inside = (obs["class"] == "b").to_numpy()
    alone = LogisticRegression(max_iter=1000).fit(points[inside], obs["type"][inside])
    np.testing.assert_allclose(
        tables[1][inside][:, 2:4] / tables[0][inside][:, 1:2], alone.predict_proba(points[inside]), atol=1e-4
    )
    top = LogisticRegression(max_iter=1000).fit(points, obs["class"])
    np.testing.assert_allclose(tables[0], top.predict_proba(points), atol=1e-4)


def test_probabilities_are_consistent_down_the_tree(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, LEVELS)
    tables = fit_linear_tree(points, tree.encode(obs), tree).tables(points)
    np.testing.assert_allclose(tables[0].sum(axis=1), 1, atol=1e-5)
    for parent in range(3):
        children = tables[1][:, tree.parents[1] == parent].sum(axis=1)
        np.testing.assert_allclose(children, tables[0][:, parent], atol=1e-5)


def test_balance_is_scikit_learns_balanced_weighting(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, ["type"])
    tables = fit_linear_tree(points, tree.encode(obs), tree).tables(points)
    same = LogisticRegression(max_iter=1000, class_weight="balanced").fit(points, obs["type"])
    np.testing.assert_allclose(tables[0], same.predict_proba(points), atol=1e-3)


def test_a_label_without_a_cell_is_never_called(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, LEVELS)
    codes = tree.encode(obs)
    left = (obs["type"] != "b2").to_numpy()
    tables = fit_linear_tree(points[left], codes[left], tree).tables(points)
    assert (tables[1][:, 3] == 0).all()
    np.testing.assert_allclose(tables[1][:, 2], tables[0][:, 1])
    codes[:, 1] = -1  # a coarse level alone
    tables = fit_linear_tree(points, codes, tree).tables(points)
    assert (tables[1] == 0).all()
    np.testing.assert_allclose(tables[0].sum(axis=1), 1, atol=1e-5)


def test_softmax_runs_among_siblings_in_any_order():
    tree = LabelTree(("u", "l"), (("a", "b"), ("p", "q", "r")), (np.empty(0, np.int64), np.array([1, 0, 1])))
    scores = np.array([[0.0, 5.0, np.log(3)], [-np.inf, -np.inf, 2.0]])
    shares = np.exp(log_softmax_among_siblings(tree, 1, scores))
    np.testing.assert_allclose(shares, [[0.25, 1, 0.75], [0, 0, 1]], atol=1e-6)
    tables = along_paths(tree, [np.log([[0.4, 0.6]]), np.log(shares[:1])])
    np.testing.assert_allclose(tables[1], [[0.15, 0.4, 0.45]], atol=1e-6)


def test_arrays_that_do_not_fit_are_refused(cells):
    points, obs = cells
    tree = LabelTree.from_frame(obs, LEVELS)
    with pytest.raises(ValueError, match="expected the shape"):
        fit_linear_tree(points, tree.encode(obs)[:, :1], tree)
    with pytest.raises(ValueError, match="no cell has a label"):
        fit_linear_tree(points, np.full((len(points), 2), -1), tree)
