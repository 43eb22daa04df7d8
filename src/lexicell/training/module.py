"""The LightningModule: network, objectives and optimiser put together; no architecture here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor

from lexicell.batch import CellBatch
from lexicell.model.network import CellNetwork
from lexicell.training.objectives import Forward, Objective, total_loss
from lexicell.training.optim import OptimConfig, build_optimizer, lr_scale
from lexicell.training.skill import CountBaseline, SkillMeter

AS_EXPRESSED, AS_ZERO, AS_QUERY = 0, 1, 2


class Pretraining(lightning.LightningModule):
    """One training step, one validation pass, and what is counted on the way.

    Parameters
    ----------
    network
        The network to train, initialised.
    objectives
        Loss terms with their weights.
    baseline
        Count baseline that skill is measured against.
    optim
        Optimiser settings.
    max_steps
        Length of the run, for the learning rate's decay.
    """

    exposure: Tensor
    n_clamped: Tensor

    def __init__(
        self,
        network: CellNetwork,
        objectives: Sequence[tuple[float, Objective]],
        baseline: CountBaseline,
        optim: OptimConfig,
        max_steps: int,
    ) -> None:
        super().__init__()
        self.network, self.baseline = network, baseline
        self.objectives = list(objectives)
        self._optim, self._max_steps = optim, max_steps
        # How often each gene was shown while expressed, shown while silent, and asked for; this process's share.
        self.register_buffer("exposure", torch.zeros(len(network.genes), 3, dtype=torch.long))
        self.register_buffer("n_clamped", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: CellBatch, batch_idx: int) -> Tensor:
        """Return the weighted loss of a batch."""
        forward = Forward(self.network, batch)
        terms = {objective.name: objective.loss(forward) for _, objective in self.objectives}
        loss = total_loss(terms, self.objectives)
        with torch.no_grad():
            self._count(batch)
            ce, baseline_ce = self._query_losses(forward)
            skill = 1 - ce.mean() / baseline_ce.mean()
        values = {"loss": loss, "skill": skill} | terms
        self._log_at(self.global_step + 1, {f"train/{name}": value for name, value in values.items()})
        return loss

    def _query_losses(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the model and of the baseline, (v, b, q) each."""
        batch = forward.batch
        ce = forward.query_ce.view(batch.n_views, *batch.query_genes.shape)
        classes = self.network.count_classes(batch.query_counts)
        return ce, self.baseline(batch.query_genes, classes, batch.depth).expand_as(ce)

    def _count(self, batch: CellBatch) -> None:
        """Keep the exposure counter: no gene goes untrained unseen."""
        kind = torch.where(batch.counts > 0, AS_EXPRESSED, AS_ZERO)
        shown = batch.genes * 3 + kind
        asked = batch.query_genes * 3 + AS_QUERY
        places = torch.cat([shown.flatten(), asked.flatten()])
        self.exposure.view(-1).scatter_add_(0, places, torch.ones_like(places))
        self.n_clamped += self.network.count_classes.clamped(batch.counts)

    def on_validation_epoch_start(self) -> None:
        """Begin to sum."""
        self._meter = SkillMeter(self.device)
        self._sums = torch.zeros(len(self.objectives) + 1, dtype=self._meter.sums.dtype, device=self.device)

    def validation_step(self, batch: CellBatch, batch_idx: int) -> None:
        """Sum losses and skill over held-out cells."""
        forward = Forward(self.network, batch)
        ce, baseline_ce = self._query_losses(forward)
        counts, mean = (
            batch.query_counts.expand(ce.shape),
            self.baseline.gene_mean[batch.query_genes].expand(ce.shape),
        )
        self._meter.update(ce, baseline_ce, counts, mean)
        losses = torch.stack([objective.loss(forward) for _, objective in self.objectives])
        self._sums[:-1] += losses.to(self._sums.dtype) * batch.n_cells
        self._sums[-1] += batch.n_cells

    def on_validation_epoch_end(self) -> None:
        """Log what was summed over all processes."""
        strategy = self.trainer.strategy
        self._meter.sums = strategy.reduce(self._meter.sums, reduce_op="sum")
        sums = strategy.reduce(self._sums, reduce_op="sum")
        means = (sums[:-1] / sums[-1]).tolist()
        values = {objective.name: mean for (_, objective), mean in zip(self.objectives, means, strict=True)}
        weighted = sum(weight * values[objective.name] for weight, objective in self.objectives)
        values = values | {"loss": weighted} | self._meter.compute()
        self._log_at(self.global_step, {f"val/{name}": float(value) for name, value in values.items()})

    def _log_at(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Log under the number of steps done: Lightning's own count slips when a run is resumed."""
        self.log_dict({"step": float(step), **values})

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm. Lightning's own way refuses fused optimisers in mixed precision, even in bf16."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """Return AdamW with warm-up and cosine decay, stepped every batch."""
        optimizer = build_optimizer(self.network, self._optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_scale(step, self._optim, self._max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
