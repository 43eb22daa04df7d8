"""A moving average of the weights, which is what is looked at on held-out cells and saved as the model."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn


class MovingAverage(Callback):
    """Averages the weights exponentially over steps (Polyak & Juditsky 1992); training goes on from the weights as is.

    The average stands in for the weights from the beginning to the end of each look at the held-out cells, so that
    what is measured is what is saved. Checkpoints hold both.

    Parameters
    ----------
    decay
        Share of the average that a step keeps; less in the first steps, (1 + step) / (10 + step), so that the drawn
        weights are forgotten.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._average: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"steps": self._steps, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average."""
        self._steps, self._average = int(state_dict["steps"]), dict(state_dict["average"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin from the weights that training begins from, unless a checkpoint held an average."""
        weights = _trained(pl_module)
        began = self._average or weights
        self._average = {name: began[name].detach().to(weight, copy=True) for name, weight in weights.items()}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average towards the weights."""
        self._steps += 1
        keep = min(self._decay, (1 + self._steps) / (10 + self._steps))
        weights = _trained(pl_module)
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.values()), [weights[name] for name in self._average], 1 - keep)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the average in the weights' place."""
        self._swap(pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the weights back."""
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: lightning.LightningModule) -> None:
        for name, weight in _trained(pl_module).items():
            average = self._average[name]
            held = weight.detach().clone()
            weight.copy_(average)
            average.copy_(held)


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
