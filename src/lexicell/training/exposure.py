"""How often training showed each gene and asked for it: no gene goes untrained unseen."""

from __future__ import annotations

import torch
from torch import Tensor

from lexicell.batch import CellBatch
from lexicell.model.counts import CountClasses
from lexicell.training.ranks import rank, sum_over_ranks

AS_EXPRESSED, AS_ZERO, AS_QUERY = 0, 1, 2


class Exposure:
    """Counts this process's share; totals are summed over processes.

    It is no part of a module: what a module holds is made equal over processes when a run begins.
    """

    def __init__(self, n_genes: int) -> None:
        self.n_genes = n_genes
        # Shown while expressed, shown while silent, asked for, of each gene; last the counts that were clamped.
        self._tallies = torch.zeros(n_genes * 3 + 1, dtype=torch.long)

    def to(self, device: torch.device) -> None:
        """Go on counting on a device."""
        self._tallies = self._tallies.to(device)

    def count(self, batch: CellBatch, classes: CountClasses) -> None:
        """Add a batch."""
        kind = torch.where(batch.counts > 0, AS_EXPRESSED, AS_ZERO)
        shown = batch.genes * 3 + kind
        asked = batch.query_genes * 3 + AS_QUERY
        places = torch.cat([shown.flatten(), asked.flatten()])
        self._tallies.scatter_add_(0, places, torch.ones_like(places))
        self._tallies[-1] += classes.clamped(batch.counts)

    def total(self) -> tuple[Tensor, int]:
        """Return exposure over all processes (n_genes, 3), and how many counts were clamped; all must call it."""
        totals = sum_over_ranks(self._tallies).cpu()
        return totals[:-1].view(self.n_genes, 3), int(totals[-1])

    def load(self, exposure: Tensor, n_clamped: int) -> None:
        """Go on from totals: the first process takes them over, so that each is counted once."""
        if rank() == 0:
            totals = torch.cat([exposure.flatten(), torch.tensor([n_clamped])])
        else:
            totals = torch.zeros_like(self._tallies)
        self._tallies = totals.to(self._tallies)
