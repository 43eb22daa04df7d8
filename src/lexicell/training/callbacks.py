"""What happens beside the steps: progress, saving, stopping on a signal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lexicell.batch import CellBatch
from lexicell.model.checkpoint import ModelSpec, save_weights
from lexicell.training.exposure import AS_QUERY
from lexicell.training.module import Pretraining
from lexicell.training.run_folder import EXPOSURE, unless_disk_full, write_array
from lexicell.training.sharding import whole_weights
from lexicell.training.throughput import Utilisation

Gauge = Callable[[torch.device, str, int], Utilisation]  # device, precision, number of devices

AGREE_EVERY = 10  # steps: on a GPU, processes that ask each other wait for each other


class ProgressLine(Callback):
    """A moving line with speed, loss and skill, and a lasting line after each look at the held-out cells."""

    def __init__(self, max_steps: int, *, visible: bool = True, gauge: Gauge | None = None) -> None:
        self._max_steps = max_steps
        self._visible = visible
        self._gauge = gauge
        self.utilisation: Utilisation | None = None
        """What turns cells a second into MFU, once training has started and where a gauge was given."""
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=16),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[shown]}"),
            disable=not visible,
        )
        self._cells = 0
        self._seconds = 0.0
        self._clock: float | None = None

    @property
    def cells_per_second(self) -> float:
        """Cells trained on in a second, over all processes; validation is not counted."""
        return self._cells / self._seconds if self._seconds else 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar."""
        self._visible &= trainer.is_global_zero
        if self._gauge is not None:
            device = trainer.strategy.root_device
            self.utilisation = self._gauge(device, str(trainer.precision), trainer.world_size)
        if self._visible:
            self._bar.start()
        self._task = self._bar.add_task("", total=self._max_steps, completed=trainer.global_step, shown="")

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: CellBatch,
        batch_idx: int,
    ) -> None:
        """Move on. The time of a step is that between the ends of two steps, so it holds data loading too."""
        now = time.perf_counter()
        if self._clock is not None:
            self._seconds += now - self._clock
            self._cells += batch.n_cells * trainer.world_size
        self._clock = now
        metrics, words = trainer.callback_metrics, [f"{self.cells_per_second:,.0f} cells/s"]
        if "train/loss" in metrics and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            if self.utilisation is not None:
                words.append(f"MFU {self.utilisation.mfu(self.cells_per_second):.0%}")
            words += [f"{name} {float(metrics[f'train/{name}']):.3f}" for name in ("loss", "skill")]
            self._bar.update(self._task, shown="  ".join(words))
        self._bar.update(self._task, completed=trainer.global_step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Tell what was found on the held-out cells, and leave the time it took out of the speed."""
        exposure = pl_module.exposure.total()[0] if isinstance(pl_module, Pretraining) else None
        if self._visible and isinstance(pl_module, Pretraining) and exposure is not None:
            metrics = trainer.callback_metrics
            parts = [f"step {trainer.global_step:,}: held-out skill {float(metrics['val/skill']):+.3f}"]
            names = ("loss", *(objective.name for _, objective in pl_module.objectives))
            parts += [f"{name} {float(metrics[f'val/{name}']):.3f}" for name in names]
            parts.append(f"lr {trainer.optimizers[0].param_groups[0]['lr']:.1e}")
            asked = float((exposure[:, AS_QUERY] > 0).float().mean())
            parts.append(f"genes asked {asked:.1%}")
            self._bar.console.print("  ".join(parts), highlight=False, soft_wrap=True)
        self._clock = None

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the bar away."""
        self._bar.stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Take the bar away, so that the error can be read."""
        self._bar.stop()


class SaveModel(Callback):
    """Leaves the model with the lowest held-out loss, and the exposure counter, in the run folder."""

    def __init__(self, folder: Path, spec: ModelSpec, *, best: float = float("inf")) -> None:
        self._folder, self._spec, self._best = folder, spec, best
        self.counts_clamped = 0
        """Counts above the largest class so far, over all processes."""

    def state_dict(self) -> dict[str, Any]:
        """Return the lowest loss so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the lowest loss so far."""
        self._best = float(state_dict["best"])

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save when the held-out loss is the lowest so far."""
        if trainer.sanity_checking or not isinstance(pl_module, Pretraining):
            return
        loss = float(trainer.callback_metrics["val/loss"])
        exposure, self.counts_clamped = pl_module.exposure.total()
        better = trainer.strategy.broadcast(loss < self._best)  # never for NaN
        weights = whole_weights(pl_module.network) if better else None
        if not trainer.is_global_zero:
            return
        with unless_disk_full(f"the model in {self._folder}"):
            write_array(self._folder / EXPOSURE, exposure.numpy())
            if weights is not None:
                save_weights(self._folder, weights, self._spec)
                self._best = loss


class Stop(Callback):
    """Ends a run after its last step, or after the current batch on SIGINT or SIGTERM.

    In both cases a look at the held-out cells and a checkpoint follow. A second SIGINT (Ctrl-C) ends the run at once;
    a second SIGTERM changes nothing, as batch systems send several.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps
        self.received: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen; Python lets only the main thread do so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {kind: signal.getsignal(kind) for kind in self.signals}
        self._listen()
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _listen(self) -> None:
        for kind in self.signals:
            signal.signal(kind, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        impatient = self.received is not None and number == signal.SIGINT
        self.received = signal.Signals(number)
        if impatient:
            raise KeyboardInterrupt

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen instead of Lightning, which would end the run without a checkpoint."""
        if threading.current_thread() is threading.main_thread():
            self._listen()
            # Lightning listened, beside us, while it set up: forget what it heard then, as `received` holds it.
            trainer._signal_connector.received_sigterm = False

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop when all is done, or when asked to; several processes must agree, and do so every few steps."""
        if trainer.global_step >= self._max_steps:
            trainer.should_stop = True
        elif trainer.world_size == 1:
            trainer.should_stop |= self.received is not None
        elif trainer.global_step % AGREE_EVERY == 0:
            trainer.should_stop |= trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)
