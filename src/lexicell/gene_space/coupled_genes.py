"""Genes of two coupled species: which gene of the first each gene of the second is most alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lexicell.gene_space.coupling import ComparedGenes, Coupling, CouplingConfig, profile_cost, ranks_cost, softmin

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MatchedGenes:
    """For each gene of the second species its nearest genes of the first."""

    genes: Int64  # (n_second, k) places in the first species, nearest first
    weights: Float32  # (n_second, k) shares, summing to 1 over a row
    cost: Float32  # (n_second, k)


def match_genes(
    couplings: list[Coupling], config: CouplingConfig | None = None, *, pairs: Int64 | None = None, k: int = 15
) -> MatchedGenes:
    """Match all genes of two coupled species.

    Parameters
    ----------
    couplings
        What `couple_species` found.
    config
        The scales of genes' differences.
    pairs
        (n_pairs, 2) genes that are known to correspond, with which the species were coupled: they match each other
        alone.
    k
        Genes of the first species to keep for each of the second.
    """
    config = config or CouplingConfig()
    n_second = couplings[0].second.logs.shape[1]
    k = min(k, couplings[0].first.logs.shape[1])
    genes, cost = np.empty((n_second, k), np.int64), np.empty((n_second, k), np.float32)
    for start in range(0, n_second, 1000):
        block = slice(start, start + 1000)
        whole = gene_cost(couplings, config, block)
        nearest = np.argpartition(whole, k - 1, axis=0)[:k].T
        values = np.take_along_axis(whole.T, nearest, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        genes[block], cost[block] = np.take_along_axis(nearest, order, 1), np.take_along_axis(values, order, 1)
    weights = softmin(cost, axis=1)
    if pairs is not None:
        genes[pairs[:, 1], 0], weights[pairs[:, 1]], cost[pairs[:, 1], 0] = pairs[:, 0], np.eye(1, k), 0
    return MatchedGenes(genes, weights, cost)


def gene_cost(couplings: list[Coupling], config: CouplingConfig, block: slice) -> Float32:
    """Return how unlike genes are, the mean over couplings: (n_first, genes of the block)."""
    ranks = couplings[0].first.ranks, couplings[0].second.ranks[block]
    cost = ranks_cost(*ranks, config.profile_scale)
    for coupling in couplings:
        plan = coupling.plan / coupling.plan.sum()
        part = ComparedGenes(coupling.first.logs, coupling.second.logs[:, block], cost)
        cost += profile_cost(*part.centred(plan), plan, config.expression_scale) / np.float32(len(couplings))
    return cost
