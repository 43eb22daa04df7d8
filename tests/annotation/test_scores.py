import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from lexicell.annotation.scores import accuracy, class_f1, confusion, coverage, macro_f1


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.choice(["a", "b", "c", "d"], p=[0.6, 0.3, 0.08, 0.02], size=400).astype(object)
    predicted = np.where(rng.random(400) < 0.7, truth, rng.choice(["a", "b", "e"], size=400))
    return truth, predicted


def test_agrees_with_scikit_learn(labels):
    truth, predicted = labels
    present = np.unique(truth)
    assert accuracy(truth, predicted) == pytest.approx(metrics.accuracy_score(truth, predicted))
    expected = metrics.f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert macro_f1(truth, predicted) == pytest.approx(expected)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=present, zero_division=0
    )
    table = class_f1(truth, predicted)
    assert list(table["label"]) == list(present)
    np.testing.assert_allclose(table[["precision", "recall", "f1"]], np.stack([precision, recall, f1], axis=1))
    np.testing.assert_array_equal(table["n_cells"], support)


def test_confusion_agrees_with_scikit_learn(labels):
    truth, predicted = labels
    names = np.unique(np.concatenate([truth, predicted]))
    table = confusion(truth, predicted).pivot_table(index="truth", columns="predicted", values="n", fill_value=0)
    expected = pd.DataFrame(metrics.confusion_matrix(truth, predicted, labels=names), names, names)
    np.testing.assert_array_equal(table, expected.loc[table.index, table.columns])
    assert table.to_numpy().sum() == len(truth)


def test_a_hand_worked_case_with_missing_labels():
    truth = pd.Series(["a", "a", "b", np.nan, ""])
    predicted = pd.Series(["a", None, "a", "b", "b"])
    assert accuracy(truth, predicted) == pytest.approx(1 / 3)
    assert coverage(truth, predicted) == pytest.approx(2 / 3)
    assert macro_f1(truth, predicted) == pytest.approx((2 * 1 / (2 + 2) + 0) / 2)
    assert confusion(truth, predicted).isna().sum().to_dict() == {"truth": 0, "predicted": 1, "n": 0}


def test_codes_and_categories_and_texts_are_one():
    truth, predicted = ["a", "b", "b", "c"], ["a", "b", "c", "c"]
    expected = macro_f1(truth, predicted)
    assert macro_f1(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])) == expected
    assert macro_f1(pd.Categorical(truth), pd.Categorical(predicted)) == expected
    assert accuracy(np.array([0, -1]), np.array([-1, 0])) == 0


def test_without_any_truth_scores_are_nan():
    truth, predicted = [None, np.nan], ["a", "b"]
    assert np.isnan(accuracy(truth, predicted))
    assert np.isnan(macro_f1(truth, predicted))
    assert np.isnan(coverage(truth, predicted))


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="truth: 2 labels, but predicted has 1"):
        accuracy(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="one label a cell"):
        accuracy([["a", "b"]], [["a", "b"]])
