"""Raw count <-> class: every integer up to ``exact_max``, then geometric bins up to ``max_count``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lexicell.errors import InputError


@dataclass(frozen=True)
class CountConfig:
    """Classes of raw counts."""

    exact_max: int = 15
    """Largest count that is a class of its own."""
    max_count: int = 8192
    """Counts above it fall into the last class (their number is reported)."""
    bins_per_octave: int = 2
    """Geometric bins per doubling of the count, above exact_max."""

    def __post_init__(self) -> None:
        if not (1 <= self.exact_max < self.max_count and self.bins_per_octave >= 1):
            raise InputError(
                "model.counts: need 1 <= exact_max < max_count and bins_per_octave >= 1; got "
                f"exact_max={self.exact_max}, max_count={self.max_count}, bins_per_octave={self.bins_per_octave}"
            )


def lower_edges(config: CountConfig) -> npt.NDArray[np.int64]:
    """Return the smallest count of every class, ascending, from 0."""
    exact = np.arange(config.exact_max + 1)
    first = config.exact_max + 1
    n_bins = int(np.ceil(np.log2(config.max_count / first) * config.bins_per_octave)) if config.max_count > first else 0
    geometric = np.round(first * 2.0 ** (np.arange(n_bins + 1) / config.bins_per_octave)).astype(np.int64)
    geometric = geometric[geometric <= config.max_count]
    return np.unique(np.concatenate([exact, geometric]))


class CountClasses(nn.Module):
    """Turns raw counts into classes, and classes into counts.

    Attributes
    ----------
    n_classes
        Number of classes.
    edges
        (n_classes,) smallest count of each class.
    """

    edges: Tensor

    def __init__(self, config: CountConfig) -> None:
        super().__init__()
        self.max_count = config.max_count
        self.register_buffer("edges", torch.from_numpy(lower_edges(config)), persistent=False)
        self.n_classes = len(self.edges)

    def forward(self, counts: Tensor) -> Tensor:
        """Return the class of each raw count; same shape, int64."""
        return torch.bucketize(counts.contiguous(), self.edges, right=True) - 1

    def centres(self) -> Tensor:
        """Return the middle count of each class, (n_classes,) float32."""
        upper = torch.cat([self.edges[1:] - 1, self.edges.new_tensor([self.max_count])])
        return (self.edges + torch.maximum(upper, self.edges)).float() / 2

    def clamped(self, counts: Tensor) -> Tensor:
        """Return how many counts lie above ``max_count``."""
        return (counts > self.max_count).sum()
