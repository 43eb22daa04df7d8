from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.model.checkpoint import ModelSpec, load_model
from lexicell.model.network import CellNetwork
from lexicell.training.datamodule import CellDataModule
from lexicell.training.fit import fit
from lexicell.training.recipe import Recipe, override_recipe
from lexicell.training.skill import CountBaseline

SMALL = {
    "model.encoder.width": 16,
    "model.encoder.layers": 1,
    "model.encoder.heads": 2,
    "sampling.tokens": 32,
    "sampling.queries": 16,
    "data.batch_size": 8,
    "trainer.max_steps": 4,
    "trainer.val_every": 2,
    "optim.warmup_steps": 2,
}
RECIPE = override_recipe(Recipe(), SMALL)


@dataclass(frozen=True)
class FromRun:
    """Goes on with a run's model on other cells of its lexicon, with the trunk standing still."""

    run: Path

    def facts(self) -> Mapping[str, object]:
        return {"run": str(self.run)}

    def open(self, recipe: Recipe, stores: Sequence[Store]) -> CellDataModule:
        return CellDataModule(stores, recipe.data, recipe.sampling, recipe.seed, load_model(self.run)[1])

    def build(
        self, recipe: Recipe, data: CellDataModule, baseline: CountBaseline, *, fresh: bool
    ) -> tuple[CellNetwork, ModelSpec]:
        network, spec = load_model(self.run)
        network.encoder.requires_grad_(False)
        return network, spec


@pytest.fixture(scope="module")
def first(stores: list[Store], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start") / "first"
    fit(RECIPE, stores, out, progress=False)
    return out


def test_a_run_begins_from_another_models_weights(first: Path, stores: list[Store], tmp_path: Path) -> None:
    start, out = FromRun(first), tmp_path / "second"
    result = fit(RECIPE, stores[1:], out, start=start, progress=False)
    assert result.facts["start"] == {"run": str(first)}
    (before, old), (after, new) = load_model(first), load_model(out)
    assert new.lexicon.fingerprint == old.lexicon.fingerprint  # both species, though only one was shown
    assert new.covariates == old.covariates
    for name, value in before.encoder.state_dict().items():
        assert torch.equal(value, after.encoder.state_dict()[name]), name
    assert not torch.equal(before.decoder.classifier.weight, after.decoder.classifier.weight)


def test_it_resumes_from_the_same_start_only(first: Path, stores: list[Store], tmp_path: Path) -> None:
    start, longer = FromRun(first), override_recipe(RECIPE, {"trainer.max_steps": 6})
    fit(longer, stores[1:], tmp_path / "whole", start=start, progress=False)
    out = tmp_path / "second"
    fit(RECIPE, stores[1:], out, start=start, progress=False)
    with pytest.raises(InputError, match="not from scratch"):
        fit(longer, stores[1:], out, resume=True, progress=False)
    result = fit(longer, stores[1:], out, start=start, resume=True, progress=False)
    assert result.steps == 6
    encoders = [load_model(run)[0].encoder.state_dict() for run in (first, out)]
    for name, value in encoders[0].items():
        assert torch.equal(value, encoders[1][name]), name
