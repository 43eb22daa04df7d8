from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning
import numpy as np
import pytest
import torch
from forked_training import Forked

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.training.checkpoints import checkpoints_in, find_last
from lexicell.training.fit import fit
from lexicell.training.guard import Guard
from lexicell.training.module import Pretraining
from lexicell.training.recipe import Recipe, override_recipe

SMALL: dict[str, object] = {
    "model.encoder.width": 16,
    "model.encoder.layers": 1,
    "model.encoder.heads": 2,
    "sampling.tokens": 32,
    "sampling.queries": 16,
    "data.batch_size": 4,
    "data.validation.max_cells": 8,
    "trainer.max_steps": 6,
    "trainer.val_every": 2,
    "trainer.log_every": 1,
    "optim.warmup_steps": 2,
}


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with Forked() as process:
        yield process


def watch(guard: Guard, *losses: float, norm: float = 1.0, first: int = 1) -> None:
    for step, loss in enumerate(losses, first):
        trainer = cast(lightning.Trainer, SimpleNamespace(global_step=step))
        module = Pretraining.__new__(Pretraining)
        torch.nn.Module.__init__(module)
        module.last_loss, module.last_norm = torch.tensor(loss), torch.tensor(norm)
        guard.on_train_batch_end(trainer, module, None, None, 0)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    for loss, norm in ((float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))):
        with pytest.raises(InputError, match="at step 1: the loss is"):
            watch(Guard(10), loss, norm=norm)


def test_a_loss_far_above_its_running_mean_ends_the_run() -> None:
    guard = Guard(5)
    watch(guard, *[2.0] * 60)
    watch(guard, 9.9, first=61)  # high, but not so high
    with pytest.raises(InputError, match=r"at step 62: the loss is 11, 5\.1 times its running mean of 2\.158"):
        watch(guard, 11.0, first=62)  # 2 * 0.98 + 9.9 * 0.02 = 2.158
    watch(Guard(0), *[2.0] * 60, 1e9)
    watch(Guard(5), *[2.0] * 20, 1e9)  # the first steps may jump


def test_the_running_mean_is_resumed() -> None:
    first, second = Guard(5), Guard(5)
    watch(first, *[2.0] * 60)
    second.load_state_dict(first.state_dict())
    with pytest.raises(InputError, match="times its running mean of 2\\."):
        watch(second, 50.0, first=61)


def test_a_run_names_step_and_cells_and_keeps_the_last_good_state(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = override_recipe(Recipe(), SMALL)
    step = Pretraining.training_step

    def poisoned(self: Pretraining, batch: Any, batch_idx: int) -> torch.Tensor:
        shown.append(batch.position)
        loss = step(self, batch, batch_idx)
        if len(shown) == 4:
            self.last_loss = self.last_loss * float("nan")
        return loss

    shown: list[torch.Tensor] = []
    monkeypatch.setattr(Pretraining, "training_step", poisoned)
    with pytest.raises(
        InputError, match=r"wrong at step 4: .* It was batch 3, of cells .* row \d+, .* row \d+"
    ) as caught:
        fit(recipe, [store], tmp_path / "run", progress=False)
    assert str(caught.value).count(f"{store.name} row ") == 4
    assert shown[-1].tolist() == [12, 13, 14, 15]
    last = find_last(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert last.name == "step-000000002.ckpt"
    monkeypatch.undo()
    assert fit(recipe, [store], tmp_path / "run", resume=True, progress=False).steps == 6
    for value in torch.load(checkpoints_in(tmp_path / "run" / "checkpoints")[0], weights_only=True)[
        "state_dict"
    ].values():
        assert torch.isfinite(value.float()).all()


def test_training_goes_on_when_the_disk_is_full_and_says_so(forked: Forked, store: Store, tmp_path: Path) -> None:
    """No file may grow beyond 100 kB, as on a disk that is nearly full: checkpoints and the model are larger."""
    run = tmp_path / "run"
    job = {"kind": "fit", "out": str(run), "stores": [str(store.path)]}
    codes, stderr = forked.run(**job, recipe=SMALL, resume=False, largest_file=100_000)
    assert codes == [1]
    assert stderr.count("training goes on, and the checkpoint before it stays") == 3
    assert "training ended, but the last checkpoint is missing" in stderr
    assert not checkpoints_in(run / "checkpoints")
    assert not list(run.rglob("*.part"))
    codes, stderr = forked.run(**job, recipe=SMALL, resume=True)
    assert codes == [0], stderr[-2000:]
    codes, stderr = forked.run(**job, recipe=SMALL | {"trainer.max_steps": 8}, resume=True, largest_file=100_000)
    assert codes == [1]
    last = find_last(run / "checkpoints")
    assert last is not None
    assert last.name == "step-000000006.ckpt"
    assert last.stat().st_size > 100_000
    assert np.load(run / "exposure.npy", allow_pickle=False).shape == (store.n_genes, 3)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000  # in the processes trained in, not here
