from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.reporting.text import print_tables
from lexicell.training.recipe import Recipe, load_recipe, override_recipe
from lexicell.workflows.pretrain import PretrainResult, pretrain


def test_a_run_is_made_and_told(pretrained: PretrainResult, capsys: pytest.CaptureFixture[str]) -> None:
    figures = json.loads(json.dumps(pretrained.figures()))
    assert figures["finished"]
    assert figures["steps"] == 6
    assert figures["skill"]["overall"] == pytest.approx(1 - figures["ce"] / figures["baseline_ce"], abs=1e-4)
    assert {"0", "1"} <= set(figures["skill"])
    assert all(isinstance(value, float) for value in figures["skill"].values())
    print_tables(pretrained.tables())
    said = capsys.readouterr().out
    assert "held-out count skill" in said
    assert "finished, 6 steps" in said


def test_the_model_can_be_used_at_once(pretrained: PretrainResult, stores: list[Store]) -> None:
    model = pretrained.model()
    assert set(model.lexicon.species) == {"simulus_albus", "simulus_niger"}
    assert model.label_tree == stores[0].label_tree()


def test_the_recipe_is_kept_with_its_overrides(run: Path, small: dict[str, object]) -> None:
    assert load_recipe(run / "recipe.yaml") == load_recipe("tiny", small)


def test_a_recipe_object_and_a_path_train_the_same(store: Store, small: dict[str, object], tmp_path: Path) -> None:
    recipe = override_recipe(load_recipe("tiny"), small)
    path = tmp_path / "mine.yaml"
    path.write_text("model:\n  encoder: {width: 16, layers: 1, heads: 2}\nsampling: {tokens: 64, queries: 16}\n")
    made = pretrain(recipe, store, tmp_path / "a", overrides={"trainer.max_steps": 2}, progress=False)
    assert made.fitted.steps == 2
    read = pretrain(path, str(store.path), tmp_path / "b", overrides={**small, "trainer.max_steps": 2}, progress=False)
    assert read.fitted.facts["tokens"] == made.fitted.facts["tokens"] == 64


def test_a_run_goes_on(store: Store, small: dict[str, object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain("tiny", store, out, overrides=small | {"trainer.max_steps": 3}, progress=False)
    model = pretrain("tiny", store, out, resume=True, overrides=small, progress=False)
    assert model.fitted.steps == 6
    straight = pretrain("tiny", store, tmp_path / "straight", overrides=small, progress=False)
    assert straight.fitted.steps == 6
    assert np.load(out / "exposure.npy").sum() == np.load(tmp_path / "straight" / "exposure.npy").sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "enormous"}, "neither a file nor shipped"),
        ({"recipe": "missing.yaml"}, "no such recipe file"),
        ({"overrides": {"optim.speed": 3}}, "optim.speed|speed"),
        ({"overrides": {"trainer.max_steps": "many"}}, "max_steps"),
        ({"store": "nowhere"}, "expected a store"),
        ({"store": []}, "no store given"),
        ({"resume": True}, "nothing to resume"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    store: Store, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    given = {"recipe": Recipe(), "store": store, "progress": False} | change
    with pytest.raises(InputError, match=message):
        pretrain(**given, out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
