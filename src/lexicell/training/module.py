"""The LightningModule: network, objectives and optimiser put together; no architecture here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor

from lexicell.batch import CellBatch
from lexicell.model.network import CellNetwork
from lexicell.training.exposure import Exposure
from lexicell.training.objectives import Forward, Objective, total_loss
from lexicell.training.optim import OptimConfig, build_optimizer, lr_scale
from lexicell.training.ranks import sum_over_ranks, world_size
from lexicell.training.sharding import Sharded, by_name, by_number, norm_of, shard
from lexicell.training.skill import CountBaseline, SkillMeter


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

    last_loss: Tensor
    """Loss of the last step, over all processes; may be on a GPU."""
    last_norm: Tensor
    """Norm of the last step's gradient, before clipping."""

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
        self.exposure = Exposure(len(network.genes))

    def configure_model(self) -> None:
        """Share out the parameters, where the strategy does so."""
        if isinstance(self.trainer.strategy, Sharded) and not hasattr(self, "_sharded"):
            self._sharded = True
            blocks = [*self.network.encoder.blocks, *self.network.decoder.blocks]
            mesh = self.trainer.strategy.device_mesh["data_parallel"]
            shard(self, blocks, mesh, ("training_step", "validation_step"))

    def on_fit_start(self) -> None:
        """Count where the batches are."""
        self.exposure.to(self.device)

    def training_step(self, batch: CellBatch, batch_idx: int) -> Tensor:
        """Return the weighted loss of this process's share of a batch."""
        forward = Forward(self.network, batch, spread=True)
        terms = {objective.name: objective.loss(forward) for _, objective in self.objectives}
        loss = total_loss(terms, self.objectives)
        with torch.no_grad():
            self.exposure.count(batch, self.network.count_classes)
            ce, baseline_ce = (losses.mean() for losses in self._query_losses(forward))
            means = torch.stack([loss, ce, baseline_ce, *terms.values()]).float()
            means = sum_over_ranks(means) / world_size()
            self.last_loss = means[0]
        values = dict(zip(("loss", "ce", "baseline_ce", *terms), means, strict=True))
        values["skill"] = 1 - values.pop("ce") / values.pop("baseline_ce")
        self._log_at(self.global_step + 1, {f"train/{name}": value for name, value in values.items()})
        return loss

    def _query_losses(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the model and of the baseline, (v, b, q) each."""
        batch = forward.batch
        ce = forward.query_ce.view(batch.n_views, *batch.query_genes.shape)
        classes = self.network.count_classes(batch.query_counts)
        return ce, self.baseline(batch.query_genes, classes, batch.depth).expand_as(ce)

    def on_validation_epoch_start(self) -> None:
        """Begin to sum."""
        self._meter = SkillMeter(self.device)
        self._sums = torch.zeros(len(self.objectives) + 1, dtype=self._meter.sums.dtype, device=self.device)

    def validation_step(self, batch: CellBatch, batch_idx: int) -> None:
        """Sum losses and skill over held-out cells."""
        forward = Forward(self.network, batch)
        ce, baseline_ce = self._query_losses(forward)
        losses = torch.stack([objective.loss(forward) for _, objective in self.objectives])
        if batch.position[0] < 0:  # cells that only fill up, so that all processes take as many steps
            return
        counts, mean = (
            batch.query_counts.expand(ce.shape),
            self.baseline.gene_mean[batch.query_genes].expand(ce.shape),
        )
        self._meter.update(ce, baseline_ce, counts, mean)
        self._sums[:-1] += losses.to(self._sums.dtype) * batch.n_cells
        self._sums[-1] += batch.n_cells

    def on_validation_epoch_end(self) -> None:
        """Log what was summed over all processes."""
        self._meter.sums = sum_over_ranks(self._meter.sums)
        sums = sum_over_ranks(self._sums)
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
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val or float("inf"))
        self.last_norm = norm_of(norm)

    def on_train_batch_end(self, outputs: Any, batch: CellBatch, batch_idx: int) -> None:
        """Log what is known after the backward pass."""
        self._log_at(self.global_step, {"train/grad_norm": self.last_norm})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was counted, and key the optimiser's states so that they fit any strategy."""
        exposure, n_clamped = self.exposure.total()
        checkpoint["exposure"], checkpoint["counts_clamped"] = exposure, n_clamped
        if not isinstance(self.trainer.strategy, Sharded):
            pairs = zip(checkpoint["optimizer_states"], self.trainer.optimizers, strict=True)
            checkpoint["optimizer_states"] = [by_name(state, optimizer, self) for state, optimizer in pairs]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Undo `on_save_checkpoint`."""
        self.exposure.load(checkpoint["exposure"], checkpoint["counts_clamped"])
        if not isinstance(self.trainer.strategy, Sharded):
            checkpoint["optimizer_states"] = [by_number(state) for state in checkpoint["optimizer_states"]]

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the recipe's optimiser with its warm-up and decay, stepped every batch."""
        optimizer = build_optimizer(self.network, self._optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_scale(step, self._optim, self._max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
