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
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy

from lexicell.training.checkpoints import CheckpointFiles
from lexicell.training.recipe import TrainerConfig
from lexicell.training.run_folder import Curves, MetricsTable
from lexicell.training.sharding import Sharded


def on_gpu(config: TrainerConfig) -> bool:
    """Return whether the run will be on a GPU."""
    return torch.cuda.is_available() and config.accelerator != "cpu"


def build_trainer(
    config: TrainerConfig, out: Path, callbacks: list[Callback], files: CheckpointFiles, done: int | None
) -> lightning.Trainer:
    """Return the trainer of a run that has done so many steps; None for a new one."""
    precision: Any = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if on_gpu(config) and torch.cuda.is_bf16_supported() else "32-true"
    devices = _devices(config)
    return lightning.Trainer(
        accelerator=config.accelerator,
        devices=devices,
        num_nodes=config.nodes,
        strategy=_strategy(config, devices),
        precision=precision,
        max_steps=config.max_steps,
        val_check_interval=config.val_every,
        check_val_every_n_epoch=None,
        log_every_n_steps=config.log_every,
        gradient_clip_val=config.grad_clip,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=_plugins(files),
        logger=[MetricsTable(out, keep_to_step=done), Curves(out)],
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )


def _devices(config: TrainerConfig) -> int | str:
    """Return the number of processes on this machine; torchrun has started them already, and says how many."""
    if config.devices == "auto" and not on_gpu(config):
        return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return int(config.devices) if str(config.devices).isdigit() else config.devices


def _strategy(config: TrainerConfig, devices: int | str) -> Any:
    """Return Lightning's strategy."""
    if config.strategy == "fsdp":
        return Sharded()
    alone = devices == 1 or (devices == "auto" and torch.cuda.device_count() < 2)
    if config.strategy == "auto" and alone and config.nodes == 1:
        return "auto"
    # Buffers are tables that all processes made alike, not to be sent around at every step.
    return DDPStrategy(broadcast_buffers=False)


def _plugins(files: CheckpointFiles) -> list[Any]:
    """Return what Lightning shall do our way: files of checkpoints; and SLURM jobs are not requeued behind the user."""
    return [files, *([SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else [])]


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
