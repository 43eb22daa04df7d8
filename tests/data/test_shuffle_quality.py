from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from lexicell.data.order import OrderConfig
from lexicell.data.shuffle_quality import batch_entropy, shuffle_quality


def test_entropy_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2, 5])  # a half and a half; one label; a rest
    assert batch_entropy(labels, 4) == pytest.approx(np.log(2) / 2)


def test_entropy_against_scipy() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 320)
    expected = np.mean([entropy(np.bincount(batch, minlength=7)) for batch in labels.reshape(-1, 32)])
    assert batch_entropy(labels, 32) == pytest.approx(expected)


def test_fewer_cells_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="only 3 cells"):
        batch_entropy(np.zeros(3, np.int64), 4)


def test_the_default_is_nearly_perfect_on_sorted_types_and_a_small_pool_is_not() -> None:
    labels = np.repeat(np.arange(100), 1000)
    assert shuffle_quality(labels, OrderConfig(), 256, seed=0).share > 0.98
    assert shuffle_quality(labels, OrderConfig(block_size=256, pool_blocks=2), 256, seed=0).share < 0.6


def test_one_label_is_as_mixed_as_can_be() -> None:
    assert shuffle_quality(np.zeros(64, np.int64), OrderConfig(), 8, seed=0).share == 1.0
