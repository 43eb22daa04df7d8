from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from lexicell.data.cells import merge_label_trees
from lexicell.data.order import CellOrder
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import ModelSpec
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import ModelConfig
from lexicell.training.datamodule import CellDataModule, ValidationConfig
from lexicell.training.extension import Generation, Growth, Lineage, LineCells
from lexicell.training.extension_checks import tell_distance
from lexicell.training.extension_recipe import (
    SHIPPED,
    ExtensionRecipe,
    PhaseConfig,
    dump_extension_recipe,
    load_extension_recipe,
)
from lexicell.training.recipe import Recipe, override_recipe, shipped_recipes
from lexicell.training.rows_by_mean import rows_by_mean
from lexicell.workflows.prepare import prepare

FEW = {"sampling.tokens": 32, "sampling.queries": 16, "data.batch_size": 8}


def recipe() -> Recipe:
    return override_recipe(Recipe(), FEW)


@pytest.fixture
def spec(stores: list[Store]) -> ModelSpec:
    """A model of the first species."""
    return ModelSpec(
        config=ModelConfig(encoder=EncoderConfig(width=16, layers=1, heads=2)),
        lexicon=stores[0].lexicon,
        label_tree=merge_label_trees(stores[:1]),
    )


def line_cells(stores: list[Store], spec: ModelSpec, replay: float | None, *, labels: bool = False) -> LineCells:
    growth = Growth.of(spec, stores[:1], stores[1:])
    grown = replace(spec, lexicon=growth.lexicon, covariates=dict(growth.covariates))
    generations = [Generation(1, ValidationConfig(), 0), Generation(1, ValidationConfig(fraction=0.3), 5)]
    return LineCells(generations, stores, recipe(), grown, n_old=1, replay=replay, labels=labels)


@pytest.mark.parametrize("name", shipped_recipes(SHIPPED))
def test_shipped_recipes_parse_and_round_trip(name: str, tmp_path: Path) -> None:
    found = load_extension_recipe(name)
    path = tmp_path / "mine.yaml"
    path.write_text(dump_extension_recipe(found))
    assert load_extension_recipe(path) == found
    assert found == ExtensionRecipe()  # what is shipped as `extend` is what the classes say


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"phase1.replay": 1.0}, "replay at least 0 and below 1"),
        ({"phase2.lr_scale": 0}, "lr_scale must be positive"),
        ({"phase1.steps": 0, "phase2.steps": 0}, "nothing to train"),
        ({"phase3.steps": 1}, "phase3"),
        ({"batch_size": 1}, "batch_size"),
        ({"measure.cells": 1}, "at least 10"),
    ],
)
def test_faults_are_named(overrides: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_extension_recipe("extend", overrides)


def test_a_phase_is_fitted_at_a_multiple_of_the_first_rate() -> None:
    mine = ExtensionRecipe(batch_size=4, seed=3)
    base = override_recipe(recipe(), {"optim.lr": 0.01, "data.weights.by": "species", "trainer.patience": 2})
    phase = mine.of_phase(base, PhaseConfig(steps=7, lr_scale=0.1, warmup_steps=2, val_every=3), labelled=False)
    assert phase.optim.lr == pytest.approx(0.001)
    assert (phase.trainer.max_steps, phase.trainer.val_every, phase.optim.warmup_steps) == (7, 3, 2)
    assert phase.objectives.labels == 0
    assert phase.data.batch_size == 4
    assert phase.data.weights.by == ""
    assert phase.trainer.patience == 0
    assert phase.seed == 3


def test_levels_are_only_appended(stores: list[Store], spec: ModelSpec) -> None:
    second = replace(spec, lexicon=stores[1].lexicon)  # the species that comes second by name is the old one
    growth = Growth.of(second, stores[1:], stores[:1])
    assert growth.covariates["species"] == ("simulus_niger", "simulus_albus")
    assert growth.n_levels == (1,)
    assert growth.n_genes == stores[1].n_genes
    assert growth.lexicon.species == ("simulus_niger", "simulus_albus")


def test_old_cells_are_held_out_as_they_were(stores: list[Store], spec: ModelSpec) -> None:
    alone = CellDataModule(stores[:1], recipe().data, recipe().sampling, 0)
    cells = line_cells(stores, spec, 0.5)
    np.testing.assert_array_equal(cells.old_validation, alone.validation_cells)
    np.testing.assert_array_equal(cells.old_training, alone.training_cells)
    assert cells.new_validation.min() >= cells.n_old_cells
    assert not np.isin(cells.training_cells, cells.validation_cells).any()


@pytest.mark.parametrize("replay", [0.25, 0.5])
def test_the_replay_share_is_kept(stores: list[Store], spec: ModelSpec, replay: float) -> None:
    cells = line_cells(stores, spec, replay)
    order = CellOrder(cells.collection.panel[cells.training_cells], cells.config.order, cells.seed, shares=cells.shares)
    drawn = cells.training_cells[order.take(0, 4000).cells]
    assert (drawn < cells.n_old_cells).mean() == pytest.approx(replay, abs=0.02)


def test_without_replay_no_old_cell_comes(stores: list[Store], spec: ModelSpec) -> None:
    cells = line_cells(stores, spec, 0.0)
    assert cells.training_cells.min() >= cells.n_old_cells
    assert cells.validation_cells.min() >= cells.n_old_cells
    assert cells.shares is None
    assert not cells.labelled


def test_labels_of_new_cells_are_hidden_unless_asked_for(stores: list[Store], spec: ModelSpec) -> None:
    hidden, seen = line_cells(stores, spec, 0.0), line_cells(stores, spec, 0.0, labels=True)
    assert (hidden.collection.labels[hidden.n_old_cells :] == -1).all()
    assert (hidden.collection.labels[: hidden.n_old_cells] >= 0).all()
    assert (seen.collection.labels[seen.n_old_cells :] >= 0).all()
    assert seen.labelled


def test_a_model_without_a_run_has_a_line_without_stores(cell_model: CellModel, tmp_path: Path) -> None:
    cell_model.save(tmp_path)
    line = Lineage.of(tmp_path, cell_model.spec)
    assert line.stores == ()
    assert line.base.sampling.tokens == cell_model.spec.tokens
    assert line.base.model == cell_model.spec.config


def test_rows_by_mean_follow_mean_expression(stores: list[Store], spec: ModelSpec) -> None:
    cells = line_cells(stores, spec, None)
    n_old = stores[0].n_genes
    expression = np.log1p(stores[0].to_anndata().X.toarray()).mean(axis=0).astype(np.float32)
    old_rows = np.repeat(np.argsort(np.argsort(expression))[:, None], 4, axis=1).astype(np.float32)  # rank of the mean
    found = rows_by_mean(cells.collection, cells.new_training, old_rows, expression)
    assert found.rows.shape == (stores[1].n_genes, 4)
    assert np.corrcoef(found.usual, found.rows[:, 0])[0, 1] > 0.8
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)
    assert (found.confidence > 0).all()
    assert found.weights.shape == (stores[1].n_genes, n_old)


def test_without_old_stores_assays_are_compared_where_the_model_knows_them_and_depths_are_not(
    species_cells: dict[str, AnnData], spec: ModelSpec, tmp_path: Path
) -> None:
    entry = {"adata": species_cells["simulus_niger"], "species": "simulus_niger", "assay": {"value": "10x nuclei"}}
    prepare({"datasets": [entry]}, tmp_path / "nuclei", progress=False)
    store = Store.open(tmp_path / "nuclei")
    (note,) = tell_distance([], [store], spec)
    assert "nobody can tell whether the new cells are much deeper or shallower" in note
    assert "another assay" in note
    assert f"{np.median(store.obs['depth']):,.0f} counts" in note
    told = tell_distance([], [store], replace(spec, covariates={"assay": ("10x cells", "Smart-seq2")}))
    assert "measured by 10x nuclei, the old cells by 10x cells, Smart-seq2" in told[0]
    assert "another assay" not in told[1]
    (same,) = tell_distance([], [store], replace(spec, covariates={"assay": ("10x cells", "10x nuclei")}))
    assert "counts in the median" in same
