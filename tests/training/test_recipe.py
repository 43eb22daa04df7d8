from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from lexicell.errors import InputError
from lexicell.model.network import CellNetwork
from lexicell.training.recipe import Recipe, dump_recipe, load_recipe, override_recipe, parse_recipe, shipped_recipes

MOUSE_LEXICON = 32_285  # genes of the 10x mouse reference 2020-A


def test_shipped_recipes_are_these() -> None:
    assert set(shipped_recipes()) >= {"tiny", "small", "base", "large"}


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_parses_and_round_trips(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(("name", "millions"), [("tiny", 3.46), ("small", 13.8), ("base", 56.6), ("large", 142.0)])
def test_parameter_counts_with_the_mouse_lexicon(name: str, millions: float) -> None:
    total = CellNetwork(load_recipe(name).model, MOUSE_LEXICON).n_parameters()["total"]
    assert total / 1e6 == pytest.approx(millions, rel=0.02)


def test_overrides_win_over_the_recipe() -> None:
    recipe = load_recipe("tiny", {"optim.lr": "3e-4", "model.encoder.layers": 3, "data.validation.donors": ["d1"]})
    assert recipe.optim.lr == 3e-4
    assert recipe.model.encoder.layers == 3
    assert recipe.data.validation.donors == ["d1"]
    assert override_recipe(recipe, {"seed": 7}).seed == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim.lrr": 1}, "lrr"),
        ({"nonsense.lr": 1}, "nonsense"),
        ({"optim.lr": "fast"}, "lr"),
        ({"optim.lr": -1}, "lr and muon_lr_scale must be positive"),
        ({"seed.x": 1}, "is a value, not a section"),
        ({"trainer.max_steps": 0}, "max_steps"),
        ({"objectives.counts": -1}, "weights must not be negative"),
        ({"data.batch_size": 1}, "batch_size"),
        ({"model.encoder.heads": 5}, "heads must divide width"),
    ],
)
def test_faults_are_named(overrides: dict, message: str) -> None:
    recipe = {"seed": 1} if "seed.x" in overrides else {}
    with pytest.raises(InputError, match=message):
        override_recipe(parse_recipe(recipe, "test"), overrides)


def test_unknown_files_and_broken_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shipped are"):
        load_recipe("tinny")
    with pytest.raises(InputError, match="no such recipe file"):
        load_recipe(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("optim: {lr: [1")
    with pytest.raises(InputError, match="not valid YAML"):
        load_recipe(broken)
    broken.write_text("- 1")
    with pytest.raises(InputError, match="mapping of sections"):
        load_recipe(broken)


def test_every_field_is_explained() -> None:
    def undocumented(kind: type) -> list[str]:
        import ast
        import inspect

        body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
        found = []
        for item, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(item, ast.AnnAssign) and not (
                isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            ):
                found.append(f"{kind.__name__}.{ast.unparse(item.target)}")
        return found

    def walk(kind: type) -> list[str]:
        found = undocumented(kind)
        for field in fields(kind):
            default = field.default_factory() if callable(field.default_factory) else None
            if is_dataclass(default):
                found += walk(type(default))
        return found

    assert walk(Recipe) == []
