from __future__ import annotations

import numpy as np
import pytest

from lexicell.data.order import CellOrder, OrderConfig
from lexicell.data.weights import NO_VALUE, GroupShares, WeightConfig, group_shares
from lexicell.errors import InputError

CONFIG = OrderConfig(block_size=4, pool_blocks=5)
GROUP = np.repeat([0, 1, 2], [70, 27, 3])
NAMES = ("common", "rare", "rarest")


def shares_of(**options) -> GroupShares:
    return group_shares(NAMES, GROUP, WeightConfig(by="type", **options))


def order(shares: GroupShares, panels: int = 1, seed: int = 0) -> CellOrder:
    return CellOrder(np.arange(len(GROUP)) % panels, CONFIG, seed, shares=shares)


def test_temperature_by_hand() -> None:
    np.testing.assert_allclose(shares_of(temperature=1).shares, [0.7, 0.27, 0.03])
    roots = np.sqrt([0.7, 0.27, 0.03])
    np.testing.assert_allclose(shares_of(temperature=2).shares, roots / roots.sum())
    np.testing.assert_allclose(shares_of(temperature=float("inf")).shares, [1 / 3] * 3)
    np.testing.assert_allclose(shares_of(weights={"rarest": 10, "common": 0}).shares, [0, 0.27 / 0.57, 0.3 / 0.57])


def test_groups_that_do_not_occur_have_no_share_and_missing_values_are_a_group() -> None:
    shares = group_shares(("a", "b", "c"), np.array([2, 0, -1, 2]), WeightConfig(by="x", weights={NO_VALUE: 2}))
    assert shares.names == ("a", "c", NO_VALUE)
    np.testing.assert_allclose(shares.shares, [0.2, 0.4, 0.4])


@pytest.mark.parametrize("temperature", [1.0, 3.0, float("inf")])
def test_every_group_is_read_as_often_as_its_share_says(temperature: float) -> None:
    shares = shares_of(temperature=temperature)
    n_epochs, n = 40, len(GROUP)
    drawn = GROUP[order(shares).take(0, n_epochs * n).cells]
    counts = np.bincount(drawn, minlength=3)
    assert np.abs(counts - n_epochs * n * shares.shares).max() <= n_epochs
    for epoch in range(n_epochs):  # nor is it off in any one epoch
        counts = np.bincount(drawn[epoch * n : (epoch + 1) * n], minlength=3)
        assert np.abs(counts - n * shares.shares).max() < 1 + 1e-9


def test_a_group_is_dealt_out_before_any_of_its_cells_comes_again() -> None:
    cells = order(shares_of(temperature=float("inf"))).take(0, 600).cells
    for group in range(3):
        seen = np.bincount(cells[GROUP[cells] == group], minlength=len(GROUP))[group == GROUP]
        assert seen.max() - seen.min() <= 1


def test_without_effect_every_cell_comes_once_an_epoch() -> None:
    cells = order(shares_of(), panels=2).take(0, 500).cells
    assert set(np.bincount(cells)) == {5}


def test_any_slice_is_the_same_as_a_slice_of_the_whole() -> None:
    shares = shares_of(temperature=4)
    whole = order(shares, panels=3).take(0, 500)
    for start, stop in [(0, 7), (95, 230), (205, 209), (499, 500)]:
        part = order(shares, panels=3).take(start, stop)
        for name in ("cells", "hand", "position"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[start:stop])


def test_hands_count_the_cells_of_a_panel_without_a_gap() -> None:
    draw = order(shares_of(temperature=4), panels=3).take(0, 500)
    np.testing.assert_array_equal(draw.position, np.arange(500))
    for panel in range(3):
        hands = draw.hand[draw.cells % 3 == panel]
        np.testing.assert_array_equal(hands, np.arange(len(hands)))


def test_groups_are_mixed_and_seeds_differ() -> None:
    shares = shares_of(temperature=float("inf"))
    first = order(shares).take(0, 100).cells
    assert len(set(GROUP[first[:20]])) == 3
    assert not np.array_equal(first, order(shares, seed=1).take(0, 100).cells)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.5}, "at least 1"),
        ({"temperature": float("nan")}, "at least 1"),
        ({"weights": {"rare": -1}}, "those of rare are not"),
        ({"by": "", "temperature": 2}, "set data.weights.by"),
    ],
)
def test_senseless_settings_are_refused(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        WeightConfig(**({"by": "type"} | options))


def test_unknown_groups_and_no_group_at_all_are_refused() -> None:
    with pytest.raises(InputError, match=r"'?typo'?; there are common, rare, rarest"):
        shares_of(weights={"typo": 2})
    with pytest.raises(InputError, match="nothing left"):
        shares_of(weights=dict.fromkeys(NAMES, 0))
