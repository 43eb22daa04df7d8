import numpy as np
import pandas as pd
import pytest

from lexicell.annotation.tree import SIBLINGS, Calls, call_labels, consistent, from_leaves
from lexicell.labels import LabelTree


@pytest.fixture
def tree() -> LabelTree:
    obs = pd.DataFrame(
        {"class": ["glia", "glia", "neuron", "neuron", "neuron"], "type": ["as", "ol", "ex", "in", "xx"]}
    )
    return LabelTree.from_frame(obs, ["class", "type"])


def test_children_add_up_to_their_parents(tree):
    rng = np.random.default_rng(0)
    tables = consistent(tree, [rng.random((20, 2)), rng.random((20, 5))])
    np.testing.assert_allclose(tables[0].sum(axis=1), 1, rtol=1e-6)
    for parent in range(2):
        np.testing.assert_allclose(tables[1][:, tree.parents[1] == parent].sum(axis=1), tables[0][:, parent], rtol=1e-5)


def test_consistent_tables_stay_as_they_are(tree):
    leaves = np.random.default_rng(1).dirichlet(np.ones(5), size=30)
    tables = from_leaves(tree, leaves)
    for before, after in zip(tables, consistent(tree, tables), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_parent_without_known_children_keeps_its_probability(tree):
    coarse, fine = consistent(tree, [np.array([[3.0, 1.0]]), np.array([[0, 0, 2.0, 0, 0]])])
    np.testing.assert_allclose(coarse, [[0.75, 0.25]])
    np.testing.assert_allclose(fine, [[0, 0, 0.25, 0, 0]])
    calls = call_labels(tree, [coarse, fine])
    np.testing.assert_array_equal(calls.codes, [[0, -1]])
    np.testing.assert_array_equal(calls.runners_up, [[1, 2]])
    np.testing.assert_allclose(calls.probs, [[0.75, 0]])


def test_the_path_never_jumps_between_branches(tree):
    # The best leaf (glia's "as", .4) lies outside the best class (neuron, .6).
    calls = call_labels(tree, from_leaves(tree, np.array([[0.4, 0.3, 0.2, 0.0, 0.1]])))
    np.testing.assert_array_equal(calls.codes, [[1, 1]])
    np.testing.assert_allclose(calls.probs, [[0.6, 0.3]], rtol=1e-6)
    np.testing.assert_array_equal(calls.runners_up, [[0, 0]])
    np.testing.assert_allclose(calls.runner_up_probs, [[0.4, 0.4]], rtol=1e-6)


def test_siblings_lie_under_the_called_parent_best_first(tree):
    calls = call_labels(tree, from_leaves(tree, np.array([[0.4, 0.3, 0.2, 0.0, 0.1]])))
    under = np.flatnonzero((tree.parents[1] == 1) & (np.array([0.4, 0.3, 0.2, 0.0, 0.1]) > 0))
    np.testing.assert_array_equal(calls.siblings[0, 1, : len(under) - 1], under[1:])
    np.testing.assert_allclose(calls.sibling_probs[0, 1, : len(under) - 1], [0.2, 0.1], rtol=1e-6)
    assert (calls.siblings[0, 1, len(under) - 1 :] == -1).all()
    np.testing.assert_array_equal(calls.siblings[0, 0], [0, *[-1] * (SIBLINGS - 1)])
    many = LabelTree(("type",), (tuple("abcdefghij"),), (np.zeros(0, np.int64),))
    leaves = np.random.default_rng(4).dirichlet(np.ones(10), size=50).astype(np.float32)
    kept = call_labels(many, [leaves])
    np.testing.assert_array_equal(kept.siblings[:, 0], np.argsort(-leaves, axis=1)[:, 1 : SIBLINGS + 1])


def test_nothing_is_known_of_some_cells_and_withheld_of_others(tree):
    calls = call_labels(tree, from_leaves(tree, np.random.default_rng(5).dirichlet(np.ones(5), size=4)))
    cells = np.array([True, False, False, False])
    gone, held = calls.unknown_of(cells), calls.withheld(cells)
    assert (gone.codes[0] == -1).all()
    assert (gone.probs[0] == 0).all()
    assert (gone.siblings[0] == -1).all()
    assert (held.codes[0] == -1).all()
    np.testing.assert_array_equal(held.probs, calls.probs)
    for found in (gone, held):
        np.testing.assert_array_equal(found.codes[1:], calls.codes[1:])


def test_random_calls_are_paths_with_falling_probabilities(tree):
    leaves = np.random.default_rng(2).dirichlet(np.full(5, 0.3), size=200)
    calls = call_labels(tree, from_leaves(tree, leaves))
    np.testing.assert_array_equal(tree.parents[1][calls.codes[:, 1]], calls.codes[:, 0])
    assert (np.diff(calls.probs, axis=1) <= 1e-6).all()
    assert (calls.codes != calls.runners_up).all()


def test_no_weight_gives_no_label(tree):
    calls = call_labels(tree, consistent(tree, [np.zeros((2, 2)), np.zeros((2, 5))]))
    assert (calls.codes == -1).all()
    assert (calls.runners_up == -1).all()


def test_calls_join_and_drop_levels(tree):
    leaves = np.random.default_rng(3).dirichlet(np.ones(5), size=9)
    whole = call_labels(tree, from_leaves(tree, leaves))
    parts = [call_labels(tree, from_leaves(tree, leaves[rows])) for rows in (slice(4), slice(4, 9))]
    np.testing.assert_array_equal(Calls.join(parts).codes, whole.codes)
    np.testing.assert_array_equal(whole.take_levels([1]).probs, whole.probs[:, 1:])


def test_tables_of_the_wrong_shape_are_refused(tree):
    with pytest.raises(ValueError, match="expected the shapes"):
        call_labels(tree, [np.ones((3, 2)), np.ones((3, 4))])
    with pytest.raises(ValueError, match="expected the shapes"):
        consistent(tree, [])
