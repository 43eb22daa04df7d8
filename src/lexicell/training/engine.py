"""How Lightning's trainer is set up for a recipe: devices, strategy, precision, loggers."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from lexicell.training.recipe import TrainerConfig
from lexicell.training.run_folder import MetricsTable


def is_child() -> bool:
    """Return whether this is one of the further processes that Lightning, torchrun or SLURM started for this run."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 or int(os.environ.get("RANK", 0)) > 0


def on_gpu(config: TrainerConfig) -> bool:
    """Return whether the run will be on a GPU."""
    return torch.cuda.is_available() and config.accelerator != "cpu"


def build_trainer(config: TrainerConfig, out: Path, callbacks: list[Callback], done: int | None) -> lightning.Trainer:
    """Return the trainer of a run that has done so many steps; None for a new one."""
    precision: Any = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if on_gpu(config) and torch.cuda.is_bf16_supported() else "32-true"
    devices: int | str = 1 if config.devices == "auto" and not on_gpu(config) else config.devices
    return lightning.Trainer(
        accelerator=config.accelerator,
        devices=devices,
        strategy=_strategy(config),
        precision=precision,
        max_steps=config.max_steps,
        val_check_interval=config.val_every,
        check_val_every_n_epoch=None,
        log_every_n_steps=config.log_every,
        gradient_clip_val=config.grad_clip,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=[MetricsTable(out, keep_to_step=done), TensorBoardLogger(out, name="", version="tensorboard")],
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )


def _strategy(config: TrainerConfig) -> Any:
    """Return Lightning's strategy; buffers are counters and tables of each process, not to be broadcast."""
    return DDPStrategy(broadcast_buffers=False) if config.strategy == "ddp" else config.strategy


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's hints about loaders, folders and hardware: order, workers and resuming are ours."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
