from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.training.checkpoints import checkpoint_path
from lexicell.training.fit import fit
from lexicell.training.recipe import Recipe, override_recipe

SMALL: dict[str, object] = {
    "model.encoder.width": 16,
    "model.encoder.layers": 1,
    "model.encoder.heads": 2,
    "sampling.tokens": 32,
    "sampling.queries": 16,
    "data.batch_size": 8,
    "data.validation.max_cells": 16,
    "trainer.max_steps": 4,
    "trainer.val_every": 1,
    "trainer.keep_checkpoints": 4,
    "trainer.log_every": 1,
    "optim.warmup_steps": 1,
    "optim.lr": 0.01,
    "optim.ema_decay": 0.3,
}


def recipe(**overrides: object) -> Recipe:
    return override_recipe(Recipe(), SMALL | {k.replace("__", "."): v for k, v in overrides.items()})


def checkpoint(run: Path, step: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return weights and average of a checkpoint."""
    state = torch.load(checkpoint_path(run / "checkpoints", step), weights_only=True)
    return state["state_dict"], state["callbacks"]["MovingAverage"]["average"]


@pytest.fixture(scope="module")
def run(stores: list[Store], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("average") / "run"
    fit(recipe(), stores[:1], out, progress=False)
    return out


def test_the_average_is_that_of_the_steps_weights(run: Path) -> None:
    _, expected = checkpoint(run, 1)
    assert expected
    for step in (2, 3, 4):
        weights, average = checkpoint(run, step)
        keep = min(0.3, (1 + step) / (10 + step))
        expected = {name: keep * value + (1 - keep) * weights[name] for name, value in expected.items()}
        for name, value in average.items():
            torch.testing.assert_close(value, expected[name])


def test_the_average_is_what_is_saved_and_training_goes_on_from_the_weights(
    run: Path, stores: list[Store], tmp_path: Path
) -> None:
    fit(recipe(trainer__val_every=4), stores[:1], tmp_path / "once", progress=False)
    weights, average = checkpoint(tmp_path / "once", 4)
    saved = load_file(tmp_path / "once" / "model.safetensors")
    trained = {name.removeprefix("network."): value for name, value in average.items()}
    assert trained.keys() <= saved.keys()
    for name, value in trained.items():
        assert torch.equal(saved[name], value), name
    assert any(not torch.equal(weights[name], value) for name, value in average.items())
    plain = recipe(optim__ema_decay=0.0)
    fit(plain, stores[:1], tmp_path / "plain", progress=False)
    state = torch.load(checkpoint_path(tmp_path / "plain" / "checkpoints", 4), weights_only=True)["state_dict"]
    for name, value in checkpoint(run, 4)[0].items():
        assert torch.equal(value, state[name]), name


def test_a_resumed_average_goes_on(run: Path, stores: list[Store], tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(recipe(trainer__max_steps=4), stores[:1], out, progress=False)
    for step in (3, 4):
        checkpoint_path(out / "checkpoints", step).unlink()
    fit(recipe(), stores[:1], out, resume=True, progress=False)
    for before, after in zip(checkpoint(run, 4), checkpoint(out, 4), strict=True):
        assert all(torch.equal(before[name], value) for name, value in after.items())


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(InputError, match="weights are not averaged"):
        recipe(trainer__strategy="fsdp")
    with pytest.raises(InputError, match="ema_decay lies between 0 and 1"):
        recipe(optim__ema_decay=1.0)
