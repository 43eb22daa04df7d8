"""Binomial thinning: a cell as if it had been sequenced less deeply.

Each molecule is kept with the same chance, so that counts, zeros and depth stay those of a real cell; a model that
is trained on thinned cells meets more depths than its data hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from lexicell.data.gene_draws import next_number
from lexicell.data.gene_sampler import GeneSample
from lexicell.randomness import integer_seed, uniforms

Int64 = npt.NDArray[np.int64]

LOWEST_RATE = 0.2


@dataclass(frozen=True)
class Thinning:
    """Thins some cells of a batch; a pure function of the seed and a cell's place in the global order.

    Parameters
    ----------
    chance
        Chance that a cell is thinned; the share of its molecules that stays is then uniform from 0.2 to 1.
    seed
        Names all draws.
    """

    chance: float
    seed: int

    def rates(self, position: Int64) -> npt.NDArray[np.float64]:
        """Return the share of molecules that stays, (b,), for cells at places of the global order."""
        chosen = uniforms(integer_seed(self.seed, "thinned cells"), position) < self.chance
        rate = LOWEST_RATE + (1 - LOWEST_RATE) * uniforms(integer_seed(self.seed, "thinning rates"), position)
        return np.where(chosen, rate, 1.0)

    def thin(
        self, sample: GeneSample, depth: npt.NDArray[np.float32], position: Int64
    ) -> tuple[GeneSample, npt.NDArray[np.float32]]:
        """Return a batch's sample with thinned counts, and the depths that are expected of the thinned cells.

        Parameters
        ----------
        sample
            Genes and raw counts, as drawn; not changed.
        depth
            (b,) total counts.
        position
            (b,) places in the global order.
        """
        rates = self.rates(position)
        keys = position.astype(np.uint64) + np.uint64(integer_seed(self.seed, "thinning"))
        shown = np.moveaxis(sample.counts, 1, 0).reshape(len(rates), -1)
        counts = np.concatenate([shown, sample.query_counts], axis=1)
        _thin(counts, rates, keys)
        n_shown = shown.shape[1]
        shown = np.moveaxis(counts[:, :n_shown].reshape(len(rates), *sample.counts[:, 0].shape), 0, 1)
        thinned = GeneSample(
            sample.genes, np.ascontiguousarray(shown), sample.query_genes, np.ascontiguousarray(counts[:, n_shown:])
        )
        return thinned, np.where(rates < 1, np.maximum(np.round(depth * rates), 1), depth).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _thin(counts, rates, keys):
    """Keep each molecule with its cell's rate, in place: counts (b, n), rates (b,), keys (b,)."""
    for i in range(len(rates)):
        if rates[i] >= 1:
            continue
        limit = np.uint64(rates[i] * 2.0**53)
        state = keys[i]
        for j in range(counts.shape[1]):
            for _ in range(counts[i, j]):
                state, number = next_number(state)
                counts[i, j] -= (number >> np.uint64(11)) >= limit
