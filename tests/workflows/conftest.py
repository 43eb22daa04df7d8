"""A small trained run that several workflows' tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexicell.data.store import Store
from lexicell.workflows.pretrain import PretrainResult, pretrain

SMALL = {
    "model.encoder.width": 16,
    "model.encoder.layers": 1,
    "model.encoder.heads": 2,
    "sampling.tokens": 64,
    "sampling.queries": 16,
    "data.batch_size": 8,
    "trainer.max_steps": 6,
    "trainer.val_every": 3,
    "trainer.log_every": 1,
    "trainer.accelerator": "cpu",
    "optim.warmup_steps": 2,
}


@pytest.fixture(scope="session")
def small() -> dict[str, object]:
    """Overrides that make a recipe train in a second."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def pretrained(stores: list[Store], tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    """A run on two stores; read it, do not change it."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    return pretrain("tiny", [stores[0].path, stores[1]], out, overrides=SMALL, progress=False)


@pytest.fixture(scope="session")
def run(pretrained: PretrainResult) -> Path:
    """The folder of `pretrained`."""
    return pretrained.run


@pytest.fixture(scope="session")
def label_free(stores: list[Store], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without labels; read it, do not change it."""
    out = tmp_path_factory.mktemp("label_free") / "run"
    return pretrain("tiny", stores, out, overrides=SMALL | {"objectives.labels": 0.0}, progress=False).run
