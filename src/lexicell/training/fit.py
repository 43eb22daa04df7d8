"""Fit a recipe to stores: set up, train, and leave a whole run folder; or go on from where a run stopped."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping

from lexicell.allocator import keep_freed_memory
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.files import write_text
from lexicell.model.checkpoint import FORMAT as MODEL_FORMAT
from lexicell.model.flops import StepShape
from lexicell.model.network import CellNetwork
from lexicell.processes import is_child
from lexicell.training.callbacks import Gauge, ProgressLine, SaveModel, Stop
from lexicell.training.checkpoints import CheckpointFiles, KeepCheckpoints
from lexicell.training.compilation import compile_blocks
from lexicell.training.datamodule import CellDataModule
from lexicell.training.engine import build_trainer, on_gpu, quiet_lightning
from lexicell.training.guard import Guard
from lexicell.training.module import Pretraining
from lexicell.training.moving_average import MovingAverage
from lexicell.training.objectives import build_objectives, freeze_unused
from lexicell.training.recipe import Recipe, dump_recipe
from lexicell.training.resume import check_folder
from lexicell.training.run_folder import CHECKPOINTS, RECIPE, RUN, last_look, read_json, write_json
from lexicell.training.skill import CountBaseline
from lexicell.training.start import FromScratch, Start, baseline_of
from lexicell.training.throughput import utilisation

_COUNTED_ON = (
    "steps",
    "seconds",
    "cells_per_second",
    "counts_clamped",
    "mfu",
    "gflops_per_cell",
    "peak_tflops",
    "peak_source",
)


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
    recipe: Recipe,
    stores: Sequence[Store],
    out: Path,
    *,
    start: Start | None = None,
    resume: bool = False,
    progress: bool = True,
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
    start
        Makes what is trained, perhaps of another model's weights; a fresh network by default.
    resume
        Go on from the last checkpoint of `out`, with the same recipe (its trainer section may differ), stores and
        start.
    progress
        Show a progress line.

    Raises
    ------
    InputError
        When `out` is in use or there is nothing to resume, or recipe, stores or start differ from the run's.
    """
    start = start or FromScratch()
    checkpoint, done = check_folder(out, recipe, stores, start, resume=resume)
    data = start.open(recipe, stores)
    baseline = baseline_of(recipe, data)
    network, spec = start.build(recipe, data, baseline, fresh=checkpoint is None)
    module = _build_module(recipe, data, network, baseline)
    facts = _facts(stores, data, module, start)
    if checkpoint is not None:  # what was done so far counts on
        before = read_json(out / RUN)
        facts |= {name: before[name] for name in _COUNTED_ON if name in before}
    if not is_child():
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / RECIPE, dump_recipe(recipe))
        write_json(out / RUN, facts)
        for note in data.notes:
            sys.stderr.write(f"lexicell: note: {note}\n")

    compile_blocks(network, recipe.trainer.compile, "cuda" if on_gpu(recipe.trainer) else "cpu")
    line = ProgressLine(recipe.trainer.max_steps, visible=progress, gauge=_gauge(recipe, data, network))
    stop = Stop(recipe.trainer.max_steps)
    saving, files = SaveModel(out, spec), CheckpointFiles()
    callbacks: list[Callback] = [
        Guard(recipe.trainer.max_loss_rise),
        line,
        saving,
        stop,
        *([MovingAverage(recipe.optim.ema_decay)] if recipe.optim.ema_decay else []),  # after what saves, before
        KeepCheckpoints(out / CHECKPOINTS, files, recipe.trainer.keep_checkpoints),
    ]
    if recipe.trainer.patience:
        callbacks.append(EarlyStopping("val/loss", patience=recipe.trainer.patience))
    started = time.perf_counter()
    if not on_gpu(recipe.trainer):
        keep_freed_memory()
    with quiet_lightning(), stop.listening():
        trainer = build_trainer(recipe.trainer, out, callbacks, files, done)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        if files.failed is not None:
            raise InputError(
                f"training ended, but the last checkpoint is missing: {files.failed}. Make room and --resume: "
                "what was trained after the checkpoint before it is done again"
            )
        if trainer.is_global_zero and trainer.global_step > facts["steps"]:
            facts |= {
                "steps": trainer.global_step,
                "cells_per_second": round(line.cells_per_second, 1),
                "seconds": round(facts["seconds"] + time.perf_counter() - started, 1),
                "counts_clamped": saving.counts_clamped,
            }
            if line.utilisation is not None:
                facts |= line.utilisation.facts(line.cells_per_second)
            write_json(out / RUN, facts)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    metrics = metrics or last_look(out)  # nothing was left to do: the run had ended
    return FitResult(out, trainer.global_step, stop.received is None, facts, metrics)


def _build_module(recipe: Recipe, data: CellDataModule, network: CellNetwork, baseline: CountBaseline) -> Pretraining:
    """Return what is trained, with what it is measured against."""
    if network.label_head is not None:
        labels, weights = data.collection.labels[data.training_cells], data.cell_weights()
        known = labels >= 0
        network.label_head.set_frequencies(
            [
                torch.from_numpy(np.bincount(labels[known[:, level], level], _of(weights, known[:, level]), size))
                for level, size in enumerate(network.label_head.sizes)
            ]
        )
    freeze_unused(network, recipe.objectives, data.shape.views)
    objectives = build_objectives(recipe.objectives, network, data.shape.views)
    return Pretraining(network, objectives, baseline, recipe.optim, recipe.trainer.max_steps)


def _gauge(recipe: Recipe, data: CellDataModule, network: CellNetwork) -> Gauge | None:
    """Return what tells the share of the device's peak; None where the trunk stands still, and needs less."""
    if not all(parameter.requires_grad for parameter in network.encoder.parameters()):
        return None
    objectives, head = recipe.objectives, network.label_head
    shape = StepShape(
        cells=recipe.data.batch_size,
        tokens=data.shape.tokens,
        queries=data.shape.queries,
        views=data.shape.views,
        n_classes=network.count_classes.n_classes,
        n_labels=sum(head.sizes) if head is not None else 0,
        counts=objectives.counts > 0,
        cls_counts=objectives.cls_counts > 0,
        contrastive=objectives.contrastive > 0,
    )
    return partial(utilisation, recipe.model, shape, recipe.trainer.peak_tflops)


def _of(weights: npt.NDArray[np.float64] | None, cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64] | None:
    return None if weights is None else weights[cells]


def _facts(stores: Sequence[Store], data: CellDataModule, module: Pretraining, start: Start) -> dict[str, Any]:
    """Return what run.json tells about a run."""
    return {
        "lexicell": version("lexicell"),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
        "model_format": MODEL_FORMAT,
        "start": dict(start.facts()),
        "stores": [
            {
                "name": store.name,
                "path": str(store.path.resolve()),
                "cells": store.n_cells,
                "genes": store.n_genes,
                "species": sorted({source.species for source in store.sources}),
                "sources": [
                    {"name": source.name, "species": source.species, "cells": source.stop - source.start}
                    for source in store.sources
                ],
                "fingerprint": store.fingerprint,
            }
            for store in stores
        ],
        "lexicon_fingerprint": data.lexicon.fingerprint,
        "genes": len(data.lexicon),
        "training_cells": len(data.training_cells),
        "validation_cells": len(data.validation_cells),
        "held_out": data.held_out,
        "notes": list(data.notes),
        "tokens": data.shape.tokens,
        "queries": data.shape.queries,
        "count_classes": module.network.count_classes.n_classes,
        "parameters": module.network.n_parameters(),
        "steps": 0,
        "seconds": 0.0,
    }
