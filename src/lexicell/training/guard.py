"""Ends a run whose loss or gradient is no number, or whose loss explodes, before bad weights are kept."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lexicell.errors import InputError, listing
from lexicell.training.datamodule import CellDataModule
from lexicell.training.module import Pretraining

_MEMORY = 0.98  # of the running mean, from step to step: it holds some 50 steps
_SETTLED = 50  # steps before which nothing is called an explosion


class Guard(Callback):
    """Looks at the loss and at the gradient's norm of every step.

    On a GPU a step's figures are looked at one step later, so that nobody waits for them; before a checkpoint is
    written they are waited for.

    Parameters
    ----------
    max_rise
        How many times its running mean the loss may be; 0 for any.
    """

    def __init__(self, max_rise: float) -> None:
        self._max_rise = max_rise
        self._mean, self._steps = 0.0, 0
        self._unread: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the running mean."""
        return {"mean": self._mean, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the running mean."""
        self._mean, self._steps = float(state_dict["mean"]), int(state_dict["steps"])

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take this step's figures; look at them, or at those of the step before."""
        if not isinstance(pl_module, Pretraining):
            return
        self._read(trainer)
        figures = torch.stack([pl_module.last_loss, pl_module.last_norm.to(pl_module.last_loss)])
        event = None
        if figures.is_cuda:
            held = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            held.copy_(figures, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            figures = held
        self._unread = trainer.global_step, figures, event
        if event is None:
            self._read(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at what was not yet looked at; a checkpoint follows."""
        self._read(trainer)

    def _read(self, trainer: lightning.Trainer) -> None:
        if self._unread is None:
            return
        (step, figures, event), self._unread = self._unread, None
        if event is not None:
            event.synchronize()
        loss, norm = figures.tolist()
        if not math.isfinite(loss) or not math.isfinite(norm):
            what = f"the loss is {loss:g} and the norm of its gradient {norm:g}"
        elif self._max_rise and self._steps >= _SETTLED and loss > self._max_rise * self._mean:
            what = f"the loss is {loss:.4g}, {loss / self._mean:.1f} times its running mean of {self._mean:.4g}"
        else:
            share = min(_MEMORY, self._steps / (self._steps + 1))
            self._mean = share * self._mean + (1 - share) * loss
            self._steps += 1
            return
        raise InputError(
            f"training went wrong at step {step:,}: {what}. {_batch(trainer, step - 1)} The last good checkpoint and "
            "model are kept. Look at those cells; go on from the checkpoint with --resume and other trainer settings "
            "(a lower --trainer.grad_clip, --trainer.precision 32-true), or start anew with a lower --optim.lr"
        )


def _batch(trainer: lightning.Trainer, number: int) -> str:
    """Name a batch and its cells."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, CellDataModule):
        return f"It was batch {number:,}."
    return f"It was batch {number:,}, of cells {listing(data.cell_names(data.cells_of_batch(number)), 8)}."
