from __future__ import annotations

import pytest
import torch

from lexicell.errors import InputError
from lexicell.model.counts import CountClasses, CountConfig, lower_edges


def test_small_counts_have_classes_of_their_own_and_large_ones_share() -> None:
    classes = CountClasses(CountConfig(exact_max=4, max_count=64, bins_per_octave=1))
    # By hand: 0 1 2 3 4 | 5-9 | 10-19 | 20-39 | 40-
    assert classes.edges.tolist() == [0, 1, 2, 3, 4, 5, 10, 20, 40]
    counts = torch.tensor([0, 1, 4, 5, 9, 10, 19, 39, 40, 64, 10**6])
    assert classes(counts).tolist() == [0, 1, 4, 5, 5, 6, 6, 7, 8, 8, 8]


def test_every_count_lies_in_its_class() -> None:
    config = CountConfig()
    edges, classes = lower_edges(config), CountClasses(config)
    counts = torch.arange(config.max_count + 1)
    of_count = classes(counts)
    assert (torch.diff(of_count) >= 0).all()
    assert of_count.unique().numel() == len(edges) == classes.n_classes
    assert (counts >= classes.edges[of_count]).all()
    assert (of_count[: config.exact_max + 1] == counts[: config.exact_max + 1]).all()


def test_clamped_counts_are_counted() -> None:
    classes = CountClasses(CountConfig(max_count=100))
    assert classes.clamped(torch.tensor([100, 101, 5, 4000])) == 2


def test_centres_are_exact_for_small_counts_and_rise() -> None:
    classes = CountClasses(CountConfig(exact_max=4, max_count=64, bins_per_octave=1))
    assert classes.centres()[:7].tolist() == [0, 1, 2, 3, 4, 7, 14.5]
    assert (torch.diff(CountClasses(CountConfig()).centres()) > 0).all()


def test_impossible_bins_are_refused() -> None:
    with pytest.raises(InputError, match="exact_max < max_count"):
        CountConfig(exact_max=50, max_count=50)
