"""Fit a recipe to stores: set up, train, and leave a whole run folder; or go on from where a run stopped."""

from __future__ import annotations

import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from lexicell.data.store import Store
from lexicell.errors import InputError, listing, raise_all
from lexicell.model.allocator import keep_freed_memory
from lexicell.model.checkpoint import ModelSpec
from lexicell.randomness import generator, integer_seed
from lexicell.training.callbacks import ProgressLine, SaveModel, Stop
from lexicell.training.datamodule import CellDataModule
from lexicell.training.gene_rows import start_genes
from lexicell.training.module import Pretraining
from lexicell.training.objectives import build_objectives, freeze_unused
from lexicell.training.recipe import Recipe, TrainerConfig, dump_recipe, parse_recipe
from lexicell.training.run_folder import (
    CHECKPOINTS,
    RECIPE,
    RUN,
    MetricsTable,
    last_look,
    read_json,
    write_json,
    write_whole,
)
from lexicell.training.skill import fit_baseline

_COUNTED_ON = ("steps", "seconds", "cells_per_second", "counts_clamped")


@dataclass(frozen=True)
class FitResult:
    """What a run came to."""

    folder: Path
    """The run folder."""
    steps: int
    """Optimiser steps done, over all resumptions."""
    finished: bool
    """False when a signal stopped it; `resume` goes on."""
    facts: dict[str, Any]
    """What run.json holds."""
    metrics: dict[str, float]
    """Last held-out figures: ``val/loss``, ``val/skill``, ..."""


def fit(
    recipe: Recipe, stores: Sequence[Store], out: Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train a model.

    Parameters
    ----------
    recipe
        All settings.
    stores
        Opened stores.
    out
        Run folder; must be new unless `resume`.
    resume
        Go on from the last checkpoint of `out`, with the same recipe (its trainer section may differ) and stores.
    progress
        Show a progress line.

    Raises
    ------
    InputError
        When `out` is in use or there is nothing to resume, or recipe or stores differ from the run's.
    """
    checkpoint, done = _check_folder(out, recipe, stores, resume=resume)
    data = CellDataModule(stores, recipe.data, recipe.sampling, recipe.seed)
    spec = ModelSpec(
        config=recipe.model,
        lexicon=data.lexicon,
        label_tree=data.label_tree if recipe.objectives.labels > 0 else None,
        covariates=data.covariates,
        tokens=data.shape.tokens,
        silent_share=recipe.sampling.deck_share,
    )
    module = _build_module(recipe, data, spec, fresh=checkpoint is None)
    facts = _facts(stores, data, module)
    if checkpoint is not None:  # what was done so far counts on
        before = read_json(out / RUN)
        facts |= {name: before[name] for name in _COUNTED_ON if name in before}
    if not _is_child():
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / RECIPE, dump_recipe(recipe))
        write_json(out / RUN, facts)

    line, stop = ProgressLine(recipe.trainer.max_steps, visible=progress), Stop(recipe.trainer.max_steps)
    callbacks = [
        line,
        SaveModel(out, spec),
        stop,
        ModelCheckpoint(
            out / CHECKPOINTS,
            monitor="val/loss",
            filename="best",
            save_last=True,
            enable_version_counter=False,
        ),
    ]
    if recipe.trainer.patience:
        callbacks.append(EarlyStopping("val/loss", patience=recipe.trainer.patience))
    started = time.perf_counter()
    if not _on_gpu(recipe.trainer):
        keep_freed_memory()
    with _quiet_lightning():
        trainer = _build_trainer(recipe.trainer, out, callbacks, done)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero and trainer.global_step > facts["steps"]:
        facts |= {
            "steps": trainer.global_step,
            "cells_per_second": round(line.cells_per_second, 1),
            "seconds": round(facts["seconds"] + time.perf_counter() - started, 1),
            "counts_clamped": int(module.n_clamped),
        }
        write_json(out / RUN, facts)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    metrics = metrics or last_look(out)  # nothing was left to do: the run had ended
    return FitResult(out, trainer.global_step, stop.received is None, facts, metrics)


def _check_folder(
    out: Path, recipe: Recipe, stores: Sequence[Store], *, resume: bool
) -> tuple[Path | None, int | None]:
    """Return the checkpoint to go on from and its step, or None twice for a new run; refuse what cannot be right."""
    if not stores:
        raise InputError("no store given; make one with `lexicell prepare` and pass it with --store")
    last = out / CHECKPOINTS / "last.ckpt"
    if not resume:
        if _is_child():  # the first process has checked, and begun to write
            return None, None
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                f"{out}: already there, and not empty; choose another --out"
                + (", or --resume to go on with that run" if last.is_file() else ", or remove what is there")
            )
        return None, None
    if not last.is_file():
        raise InputError(f"{out}: nothing to resume: {last} not found; start the run without --resume")
    old = parse_recipe(yaml.safe_load((out / RECIPE).read_text(encoding="utf-8")), str(out / RECIPE))
    faults = []
    was, now = asdict(old), asdict(recipe)
    changed = [section for section in was if section != "trainer" and was[section] != now[section]]
    if changed:
        faults.append(
            f"the recipe differs from the run's in {listing(changed)}; only `trainer` may change when resuming. "
            f"Pass {out / RECIPE} as the recipe"
        )
    known = [entry["fingerprint"] for entry in read_json(out / RUN)["stores"]]
    if known != [store.fingerprint for store in stores]:
        faults.append("the stores are not those of the run (their fingerprints differ); give the same, in order")
    raise_all(faults, f"{out}: cannot resume")
    return last, _step_of(last)


def _step_of(checkpoint: Path) -> int:
    """Return the step at which a checkpoint was written; nothing in it is run."""
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{checkpoint}: not a checkpoint that lexicell wrote, or damaged ({reason}); "
            f"put a whole one in its place ({checkpoint.with_name('best.ckpt').name} may be whole), or start anew"
        ) from None


def _build_module(recipe: Recipe, data: CellDataModule, spec: ModelSpec, *, fresh: bool) -> Pretraining:
    """Return what is trained; weights are only set for a fresh run, as a resumed one brings its own."""
    network = spec.build()
    if fresh:
        start = start_genes(
            data.collection, data.training_cells, recipe.model.encoder.width, recipe.gene_rows, recipe.seed
        )
        weights = torch.Generator().manual_seed(integer_seed(recipe.seed, "weights"))
        network.initialise(weights, torch.from_numpy(start.rows), torch.from_numpy(start.usual))
    if network.label_head is not None:
        labels = data.collection.labels[data.training_cells]
        network.label_head.set_frequencies(
            [
                torch.from_numpy(np.bincount(labels[labels[:, level] >= 0, level], minlength=size))
                for level, size in enumerate(network.label_head.sizes)
            ]
        )
    baseline = fit_baseline(
        data.collection,
        data.training_cells,
        data.shape,
        network.count_classes.edges.numpy(),
        generator(recipe.seed, "baseline"),
    )
    freeze_unused(network, recipe.objectives, data.shape.views)
    objectives = build_objectives(recipe.objectives, network, data.shape.views)
    return Pretraining(network, objectives, baseline, recipe.optim, recipe.trainer.max_steps)


def _is_child() -> bool:
    """Return whether this is one of the further processes that Lightning or torchrun started for this run."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 or int(os.environ.get("RANK", 0)) > 0


def _strategy(config: TrainerConfig) -> Any:
    """Return Lightning's strategy; buffers are counters and tables of each process, not to be broadcast."""
    return DDPStrategy(broadcast_buffers=False) if config.strategy == "ddp" else config.strategy


def _on_gpu(config: TrainerConfig) -> bool:
    return torch.cuda.is_available() and config.accelerator != "cpu"


def _build_trainer(config: TrainerConfig, out: Path, callbacks: list[Callback], done: int | None) -> lightning.Trainer:
    on_gpu = _on_gpu(config)
    precision: Any = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"
    devices: int | str = 1 if config.devices == "auto" and not on_gpu else config.devices
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


@contextmanager
def _quiet_lightning() -> Iterator[None]:
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


def _facts(stores: Sequence[Store], data: CellDataModule, module: Pretraining) -> dict[str, Any]:
    """Return what run.json tells about a run."""
    return {
        "lexicell": version("lexicell"),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
        "stores": [
            {
                "name": store.name,
                "path": str(store.path.resolve()),
                "cells": store.n_cells,
                "genes": store.n_genes,
                "species": sorted({source.species for source in store.sources}),
                "fingerprint": store.fingerprint,
            }
            for store in stores
        ],
        "lexicon_fingerprint": data.lexicon.fingerprint,
        "genes": len(data.lexicon),
        "training_cells": len(data.training_cells),
        "validation_cells": len(data.validation_cells),
        "held_out": data.held_out,
        "tokens": data.shape.tokens,
        "queries": data.shape.queries,
        "count_classes": module.network.count_classes.n_classes,
        "parameters": module.network.n_parameters(),
        "steps": 0,
        "seconds": 0.0,
    }
