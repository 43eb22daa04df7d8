"""A training process is killed at random points; resumed, it comes to the very weights of an undisturbed run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_training import Forked

from lexicell.data.store import Store
from lexicell.model.checkpoint import load_model
from lexicell.training.checkpoints import checkpoints_in

RECIPE: dict[str, object] = {
    "model.encoder.width": 8,
    "model.encoder.layers": 1,
    "model.encoder.heads": 2,
    "model.counts.max_count": 32,
    "sampling.tokens": 16,
    "sampling.queries": 8,
    "data.batch_size": 4,
    "data.validation.max_cells": 8,
    "trainer.accelerator": "cpu",
    "trainer.max_steps": 18,
    "trainer.val_every": 3,
    "trainer.log_every": 1,
    "trainer.keep_checkpoints": 2,
    "optim.warmup_steps": 2,
    "optim.lr": 0.01,
}
TINY = "auto"  # what the recipe tiny says: Muon, where this PyTorch has it


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with Forked() as process:
        yield process


def kept(run: Path) -> dict[str, torch.Tensor]:
    """All that must be as if nothing had happened: the last state, the best model, and what was counted."""
    state = torch.load(checkpoints_in(run / "checkpoints")[0], weights_only=True)
    tensors = dict(state["state_dict"]) | {"exposure": state["exposure"]}
    for name, moments in state["optimizer_states"][0]["state"].items():
        tensors |= {f"optimizer.{name}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    tensors |= {f"best.{name}": value for name, value in load_model(run)[0].state_dict().items()}
    return tensors | {"file": torch.from_numpy(np.load(run / "exposure.npy", allow_pickle=False))}


def kill_and_resume(forked: Forked, store: Store, folder: Path, n_kills: int, optimizer: str) -> int:
    """Kill so many times, over as many runs as that takes; return how many of the kills hit a run in training."""
    paths, recipe = [str(store.path)], RECIPE | {"optim.optimizer": optimizer}
    forked.fit(folder / "warm", paths, recipe | {"trainer.max_steps": 1})
    started = time.time()
    forked.fit(folder / "whole", paths, recipe)
    begun = (folder / "whole" / "recipe.yaml").stat().st_mtime
    before, training = begun - started, time.time() - begun
    whole, rng = kept(folder / "whole"), np.random.default_rng(0)
    kills, hits, runs = 0, 0, 0
    while kills < n_kills:
        run, runs = folder / f"run{runs}", runs + 1
        while kills < n_kills and not (run / "checkpoints" / "step-000000018.ckpt").is_file():
            # While setting up now and then; mostly while training, looking at held-out cells, writing, or ending.
            begun = kills % 5 > 0
            seconds = rng.uniform(0, training if begun else before)
            again = (run / "recipe.yaml").is_file()
            forked.fit(run, paths, recipe, resume=again, kill_after=seconds, once_begun=begun)
            kills += 1
            hits += bool(checkpoints_in(run / "checkpoints"))
        forked.fit(run, paths, recipe, resume=(run / "recipe.yaml").is_file())
        found = kept(run)
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            assert torch.equal(found[name], value), f"{name} after {kills} kills"
        assert (run / "metrics.csv").read_text() == (folder / "whole" / "metrics.csv").read_text()
        assert not list(run.rglob("*.damaged"))
    return hits


@pytest.mark.parametrize("optimizer", [TINY, pytest.param("adamw", marks=pytest.mark.slow)])
def test_a_killed_run_comes_to_the_same_weights(forked: Forked, store: Store, tmp_path: Path, optimizer: str) -> None:
    kill_and_resume(forked, store, tmp_path, 3, optimizer)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("optimizer", [TINY, "adamw"])
def test_fifty_kills(forked: Forked, store: Store, tmp_path: Path, optimizer: str) -> None:
    assert kill_and_resume(forked, store, tmp_path, 50, optimizer) > 10
