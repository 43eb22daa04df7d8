"""Count skill of a network on some cells of a line of runs, against the marginals of these cells' own kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from lexicell.data.gene_sampler import GeneSampler
from lexicell.data.loader import CellStream
from lexicell.data.order import CellOrder
from lexicell.model.network import CellNetwork
from lexicell.randomness import generator
from lexicell.training.extension import LineCells
from lexicell.training.objectives import Forward
from lexicell.training.skill import CountBaseline, SkillMeter, fit_baseline

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SkillTask:
    """Held-out cells, and the baseline that was fitted on training cells of the same kind."""

    data: LineCells
    cells: Int64
    baseline: CountBaseline

    @classmethod
    def of(cls, data: LineCells, learned: Int64, cells: Int64, edges: Int64) -> Self:
        """Fit the baseline.

        Parameters
        ----------
        data
            All cells.
        learned, cells
            Those to fit the baseline on, and those to ask.
        edges
            (n_classes,) smallest count of each class.
        """
        rng = generator(data.seed, "baseline")
        return cls(data, cells, fit_baseline(data.collection, learned, data.shape, edges, rng))

    @torch.inference_mode()
    def measure(self, network: CellNetwork) -> float:
        """Return a network's skill; always the same genes are shown and asked for. Covariates are given."""
        data, device = self.data, next(network.parameters()).device
        baseline, meter = self.baseline.to(device), SkillMeter(device)
        panel = data.collection.panel[self.cells]
        stream = CellStream(
            data.collection,
            self.cells,
            GeneSampler(data.shape, data.collection.panels, len(data.lexicon), data.seed + 1),
            CellOrder(panel, data.config.order, data.seed, shuffle=False),
            batch_size=data.config.batch_size,
            seed=data.seed,
            stop=len(self.cells),
        )
        for batch in stream:
            forward = Forward(network, batch.to(device))
            ce = forward.query_ce.view(batch.n_views, *batch.query_genes.shape)
            classes = network.count_classes(forward.batch.query_counts)
            against = baseline(forward.batch.query_genes, classes, forward.batch.depth).expand_as(ce)
            counts = forward.batch.query_counts.expand(ce.shape)
            meter.update(ce, against, counts, baseline.gene_mean[forward.batch.query_genes].expand(ce.shape))
        return meter.compute()["skill"]
