"""How well an order of cells mixes labels: the entropy of the labels in a batch, against a perfect shuffle.

Atlases lie sorted by type on disk, and reading them in runs is what makes reading fast: so it is measured what that
costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lexicell.data.order import CellOrder, OrderConfig
from lexicell.randomness import permutation

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShuffleQuality:
    """Mean entropy (nats) of the labels in a batch of an order, and of a perfect shuffle of the same cells."""

    entropy: float
    perfect: float

    @property
    def share(self) -> float:
        """Share of the perfect shuffle's entropy; 1 where there is but one label."""
        return self.entropy / self.perfect if self.perfect else 1.0


def batch_entropy(labels: npt.NDArray[np.integer], batch_size: int) -> float:
    """Return the mean entropy (nats) of the labels in each whole batch of consecutive cells.

    Parameters
    ----------
    labels
        (n,) label code of each cell, not negative, in the order in which the cells are read.
    batch_size
        Cells in a batch; a rest at the end is left out.
    """
    n_batches = len(labels) // batch_size
    if not n_batches:
        raise ValueError(f"batch_size: {batch_size}, but there are only {len(labels)} cells.")
    rows = np.sort(labels[: n_batches * batch_size].reshape(n_batches, batch_size), axis=1)
    # A run of one label in a sorted batch is that label's share of it.
    begins = np.ones(rows.shape, dtype=bool)
    begins[:, 1:] = rows[:, 1:] != rows[:, :-1]
    places = np.flatnonzero(begins)
    share = np.diff(np.append(places, rows.size)) / batch_size
    return float(-(share * np.log(share)).sum() / n_batches)


def shuffle_quality(labels: npt.NDArray[np.integer], config: OrderConfig, batch_size: int, seed: int) -> ShuffleQuality:
    """Measure one epoch of a block shuffle.

    Parameters
    ----------
    labels
        (n,) label code of each cell, not negative, as the cells lie on disk.
    config
        Block and pool sizes.
    batch_size
        Cells in a batch.
    seed
        Names both shuffles.
    """
    order = CellOrder(np.zeros(len(labels), np.int64), config, seed)
    mixed = labels[order.take(0, len(labels)).cells]
    perfect = labels[permutation(seed, "perfect shuffle", n=len(labels))]
    return ShuffleQuality(batch_entropy(mixed, batch_size), batch_entropy(perfect, batch_size))
