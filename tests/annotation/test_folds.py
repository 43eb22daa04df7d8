import numpy as np
import pandas as pd

from lexicell.annotation.folds import reference_folds
from lexicell.annotation.methods import KnnMethod, SeenCells, cross_fit
from lexicell.labels import LabelTree


def test_donors_stay_whole_and_folds_even():
    donors = np.repeat(["a", "b", "c", "d", "e", "f"], [50, 40, 10, 10, 10, 10]).astype(object)
    donors[-5:] = None  # cells of an unknown donor are never held out
    folds, by_donor = reference_folds(donors, np.zeros((130, 1), int), most=3)
    assert by_donor
    assert sorted(np.concatenate(folds)) == list(range(125))
    whose = [{str(donor) for donor in donors[fold]} for fold in folds]
    assert not set.intersection(*whose)
    assert sorted(map(len, folds)) == [35, 40, 50]


def test_one_known_donor_or_few_known_cells_are_no_donors_to_hold_out():
    one = np.array(["a"] * 60 + [None] * 10, dtype=object)
    few = np.array(["a"] * 10 + ["b"] * 10 + [None] * 50, dtype=object)
    for donors in (one, few):
        folds, by_donor = reference_folds(donors, np.zeros((70, 1), int))
        assert not by_donor
        assert sorted(np.concatenate(folds)) == list(range(70))


def test_without_donors_every_label_is_in_every_fold():
    codes = np.repeat([[0], [1], [-1]], [50, 10, 10], axis=0)
    for donors in (None, np.full(70, "one", dtype=object)):
        folds, by_donor = reference_folds(donors, codes)
        assert not by_donor
        assert sorted(np.concatenate(folds)) == list(range(70))
        for fold in folds:
            assert np.bincount(codes[fold, 0] + 1).tolist() == [2, 10, 2]


def test_a_fold_is_labelled_by_the_others():
    points = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    obs = pd.DataFrame({"type": np.repeat(["a", "b", "c"], 4)})
    tree = LabelTree.from_frame(obs, ["type"])
    codes = tree.encode(obs)
    folds = [np.arange(0, 4), np.arange(4, 12, 2), np.arange(5, 12, 2)]
    judged = np.ones(12, dtype=bool)
    judged[11] = False
    found = cross_fit(KnnMethod(), SeenCells(points), codes, tree, folds, judge=judged)
    assert found.rows.tolist() == list(range(11))
    called = found.tables[0].argmax(axis=1)
    assert (called[4:] == codes[4:11, 0]).all()
    assert (called[:4] != 0).all()  # type a is in no other fold
