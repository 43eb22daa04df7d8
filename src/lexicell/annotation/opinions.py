"""Several experts' opinions on a cell, made to mean what they say, and averaged.

An expert says log P(label | parent). Each is first divided by a temperature of its own, fitted on held-out cells with
all labels counting alike; then probabilities are averaged among siblings, by fixed shares (a linear opinion pool,
Stone 1961; Genest & Zidek 1986). In a product any expert can veto a label by being sure of itself, and a regression
is, of cells unlike those it learned from; in an average it takes two. Measured on ten tasks beside products of experts
with weights fixed, chosen and fitted; the figures are in LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from lexicell.annotation.calibration import Temperatures, conditional_temperatures
from lexicell.annotation.linear import Float32, Int64, along_paths, log_softmax_among_siblings
from lexicell.annotation.tree import Tables
from lexicell.labels import LabelTree

Opinion = Sequence[Float32]  # log P(label | parent), one table (n_cells, n_labels) a level
LAST_SHARES = (0.0, 0.1, 0.2)  # of the last expert, the model: one is chosen
_UNLIKELY = -12.0


@dataclass(frozen=True)
class OpinionPool:
    """How opinions are averaged.

    Attributes
    ----------
    shares
        Of each expert; they add up to 1.
    temperatures
        Of each expert, one a level.
    """

    shares: tuple[float, ...]
    temperatures: tuple[Temperatures, ...]

    @classmethod
    def unfitted(cls, shares: Sequence[float], tree: LabelTree) -> Self:
        """Return a pool that takes opinions as they are."""
        return cls(tuple(shares), tuple(Temperatures((1.0,) * len(tree.levels)) for _ in shares))

    @classmethod
    def fit(
        cls,
        tree: LabelTree,
        experts: Sequence[Opinion],
        codes: Int64,
        shares: Sequence[float],
        last: float | None = None,
    ) -> Self:
        """Fit temperatures, and choose the last expert's share, on held-out cells.

        Of `LAST_SHARES` the one is chosen whose average explains held-out labels best, all labels counting alike: a
        model has little to say of cells that it knows little of. It never has more than a fifth: cells held out of the
        donors that were learned from say too much good of an opinion that does not carry over to new ones.

        Parameters
        ----------
        tree
            The label tree.
        experts
            Their opinions of held-out cells.
        codes
            These cells' labels (n_cells, n_levels); -1 is missing.
        shares
            Of each expert but the last, in what the last one leaves.
        last
            The last expert's share, where it is not to be chosen.
        """
        temperatures = tuple(conditional_temperatures(tree, expert, codes, alike=True) for expert in experts)
        if last is not None:
            return cls(shares_beside(shares, last), temperatures)
        pools = [cls(shares_beside(shares, share), temperatures) for share in LAST_SHARES]
        misfits = [_misfits(tree, pool.log_conditionals(tree, experts), codes) for pool in pools]
        return pools[int(np.argmin([misfit.mean() for misfit in misfits]))]

    def log_conditionals(self, tree: LabelTree, experts: Sequence[Opinion]) -> list[Float32]:
        """Return the average opinion, log P(label | parent); -inf where no expert knows a label."""
        average = []
        for place, size in enumerate(tree.sizes):
            chance = np.zeros((len(experts[0][place]), size))
            for expert, share, cooled in zip(experts, self.shares, self.temperatures, strict=True):
                if share:
                    logs = log_softmax_among_siblings(tree, place, expert[place] / cooled.values[place])
                    chance += share * np.exp(logs, dtype=np.float64)
            with np.errstate(divide="ignore"):
                average.append(log_softmax_among_siblings(tree, place, np.log(chance)))
        return average

    def tables(self, tree: LabelTree, experts: Sequence[Opinion]) -> Tables:
        """Return the average opinion as consistent probabilities, one table (n_cells, n_labels) a level."""
        return along_paths(tree, self.log_conditionals(tree, experts))


def shares_beside(shares: Sequence[float], last: float) -> tuple[float, ...]:
    """Return all shares, given those of all but the last expert in what the last one leaves."""
    return (*(share * (1 - last) for share in shares), last)


def _misfits(tree: LabelTree, opinion: Opinion, codes: Int64) -> npt.NDArray[np.float64]:
    """Return the mean cross-entropy of each label's held-out cells; one that nobody knows counts as very unlikely."""
    misfits = []
    for place, logs in enumerate(opinion):
        known = codes[:, place] >= 0
        truth = codes[known, place]
        likely = np.maximum(logs[known][np.arange(len(truth)), truth], _UNLIKELY)
        sizes = np.bincount(truth, minlength=tree.sizes[place])
        sums = np.bincount(truth, weights=-likely.astype(np.float64), minlength=tree.sizes[place])
        misfits.append(sums[sizes > 0] / sizes[sizes > 0])
    return np.concatenate(misfits)
