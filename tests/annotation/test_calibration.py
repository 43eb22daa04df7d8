import numpy as np
import pytest
from scipy.special import softmax

from lexicell.annotation.calibration import (
    Temperatures,
    called_right,
    expected_calibration_error,
    fit_temperatures,
    log_conditionals,
    reliability,
)
from lexicell.annotation.linear import along_paths, log_softmax_among_siblings
from lexicell.annotation.tree import call_labels
from lexicell.labels import LabelTree

TREE = LabelTree(("class", "type"), (("a", "b"), ("p", "q", "r")), (np.empty(0, np.int64), np.array([0, 1, 0])))


def test_the_temperature_that_spoiled_the_probabilities_is_found():
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(20_000, 2)), rng.normal(size=(20_000, 3))]
    conditionals = [log_softmax_among_siblings(TREE, place, scores) for place, scores in enumerate(logits)]
    top = (rng.uniform(size=20_000) > np.exp(conditionals[0][:, 0])).astype(int)
    inside = np.where(rng.uniform(size=20_000) < np.exp(conditionals[1][:, 0]), 0, 2)
    codes = np.stack([top, np.where(top == 0, inside, 1)], axis=1)
    spoiled = along_paths(
        TREE, [log_softmax_among_siblings(TREE, place, 3 * logs) for place, logs in enumerate(conditionals)]
    )
    found = fit_temperatures(TREE, spoiled, codes)
    assert found.values == pytest.approx((3, 3), rel=0.1)
    mended = found.apply(TREE, spoiled)
    np.testing.assert_allclose(mended[0], softmax(logits[0], axis=1), atol=0.03)
    np.testing.assert_allclose(mended[1][:, [0, 2]].sum(axis=1), mended[0][:, 0], atol=1e-5)
    for place in range(2):
        raw = expected_calibration_error(*called_right(call_labels(TREE, spoiled), codes, place))
        assert expected_calibration_error(*called_right(call_labels(TREE, mended), codes, place)) < 0.03 < raw


def test_a_level_without_a_choice_keeps_its_temperature():
    single = LabelTree(("a", "b"), (("x",), ("y",)), (np.empty(0, np.int64), np.array([0])))
    tables = [np.ones((5, 1), np.float32)] * 2
    assert fit_temperatures(single, tables, np.zeros((5, 2), int)).values == (1, 1)
    assert Temperatures((1.0, 1.0)).apply(single, tables)[1].tolist() == [[1]] * 5


def test_labels_without_probability_stay_so():
    tables = [np.array([[1.0, 0]]), np.array([[0.7, 0, 0.3]])]
    assert log_conditionals(TREE, tables)[1][0, 1] == -np.inf
    softer = Temperatures((2.0, 2.0)).apply(TREE, tables)
    np.testing.assert_allclose(softer[0], [[1, 0]])
    expected = np.sqrt([0.7, 0.3]) / np.sqrt([0.7, 0.3]).sum()
    np.testing.assert_allclose(softer[1], [[expected[0], 0, expected[1]]], atol=1e-6)


def test_calibration_error_by_hand():
    probs = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, False, True, True])
    assert expected_calibration_error(probs, right) == pytest.approx((0.45 + 0.45) / 2)
    table = reliability(probs, right)
    assert table["n_cells"].tolist() == [2, 2]
    assert table["accuracy"].tolist() == [1.0, 0.5]
    assert np.isnan(expected_calibration_error(np.empty(0), np.empty(0, bool)))
    assert reliability(np.array([0.0, 1.0]), np.array([True, True]))["low"].tolist() == pytest.approx([0, 0.9])
