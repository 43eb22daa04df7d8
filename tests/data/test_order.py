from __future__ import annotations

import numpy as np
import pytest

from lexicell.data.order import CellOrder, OrderConfig

CONFIG = OrderConfig(block_size=4, pool_blocks=5)


def order(n: int, seed: int = 0, panels: int = 1, **options) -> CellOrder:
    return CellOrder(np.arange(n) % panels, CONFIG, seed, **options)


@pytest.mark.parametrize("n", [1, 3, 4, 21, 103])
def test_an_epoch_holds_every_cell_once(n: int) -> None:
    cells = order(n)
    for epoch in range(3):
        draw = cells.take(epoch * n, (epoch + 1) * n)
        assert sorted(draw.cells) == list(range(n))
        np.testing.assert_array_equal(draw.position, np.arange(epoch * n, (epoch + 1) * n))


def test_any_slice_is_the_same_as_a_slice_of_the_whole() -> None:
    whole = order(103).take(0, 309)
    for start, stop in [(0, 7), (95, 130), (205, 209), (300, 309)]:
        part = order(103).take(start, stop)
        for name in ("cells", "hand", "position"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[start:stop])


def test_epochs_and_seeds_differ() -> None:
    first = order(103).take(0, 206).cells
    assert not np.array_equal(first[:103], first[103:])
    assert not np.array_equal(first, order(103, seed=1).take(0, 206).cells)


def test_hands_count_the_cells_of_a_panel_without_a_gap() -> None:
    draw = order(103, panels=3).take(0, 309)
    for panel in range(3):
        np.testing.assert_array_equal(draw.hand[draw.cells % 3 == panel], np.arange((draw.cells % 3 == panel).sum()))


def test_without_shuffling_cells_come_as_they_lie() -> None:
    np.testing.assert_array_equal(order(50, shuffle=False).take(0, 50).cells, np.arange(50))


def test_a_pool_mixes_blocks_from_all_over() -> None:
    draw = order(2000).take(0, 20)
    assert np.ptp(draw.cells) > 500
    assert len(np.unique(draw.cells // CONFIG.block_size)) > 3
