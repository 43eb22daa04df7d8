import numpy as np
import pandas as pd
import pytest

from lexicell.errors import InputError
from lexicell.evaluation.splits import hold_out, leave_group_out, stratified_folds


def test_each_group_is_held_out_once():
    groups = pd.Series(["a", "b", None, "a", "c"], dtype="category")
    folds = leave_group_out(groups)
    assert [fold.name for fold in folds] == ["a", "b", "c"]
    np.testing.assert_array_equal(folds[0].test, [0, 3])
    np.testing.assert_array_equal(folds[0].train, [1, 4])


def test_named_groups_are_held_out():
    fold = hold_out(["a", "b", "", "a", "c"], ["c", "b"])
    assert fold.name == "b+c"
    np.testing.assert_array_equal(fold.test, [1, 4])
    np.testing.assert_array_equal(fold.train, [0, 3])


def test_stratified_folds_are_even_in_every_label_and_test_every_cell_once():
    labels = np.repeat(["a", "b", "c", "d"], [50, 23, 4, 1])
    folds = stratified_folds(labels, 5, seed=3)
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(np.sort(tested), np.arange(78))
    for label in "abcd":
        sizes = [int((labels[fold.test] == label).sum()) for fold in folds]
        assert max(sizes) - min(sizes) <= 1
    assert max(len(fold.test) for fold in folds) - min(len(fold.test) for fold in folds) <= 1
    for fold in folds:
        assert not np.intersect1d(fold.train, fold.test).size
        assert len(fold.train) + len(fold.test) == 78


def test_the_deal_is_keyed():
    labels = np.repeat(["a", "b"], 30)
    first, again, other = (stratified_folds(labels, 3, seed)[0].test for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_cannot_be_split_is_refused():
    with pytest.raises(InputError, match="at least two to hold one out, found a"):
        leave_group_out(["a", "a"])
    with pytest.raises(InputError, match="'x' not found among 'a', 'b'"):
        hold_out(["a", "b"], ["x"])
    with pytest.raises(InputError, match="leaves nothing to train on"):
        hold_out(["a", "b"], ["a", "b"])
    with pytest.raises(InputError, match="expected 2 to 2"):
        stratified_folds(["a", "b"], 3, seed=0)
