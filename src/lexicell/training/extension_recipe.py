"""The recipe of an extension: how new rows are set, and how each phase is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from lexicell.data.weights import WeightConfig
from lexicell.errors import InputError
from lexicell.training.datamodule import ValidationConfig
from lexicell.training.recipe import Recipe, parse_config, read_tree
from lexicell.training.species_rows import SpeciesRowConfig

SHIPPED = "lexicell.recipes.extension"  # package of the shipped recipes


@dataclass(frozen=True)
class PhaseConfig:
    """One phase of training."""

    steps: int = 600
    """Optimiser steps; 0 leaves the phase out."""
    lr_scale: float = 1.0
    """Learning rate, as a multiple of the rate (optim.lr) at which the first run of the line was pretrained; embeddings
    move at that run's optim.embedding_lr_scale of it."""
    warmup_steps: int = 50
    """Steps in which the learning rate rises from 0."""
    replay: float = 0.0
    """Share of the cells that are replayed from the old stores."""
    val_every: int = 200
    """Steps between looks at the held-out cells; a checkpoint follows each."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.warmup_steps < 0 or self.val_every < 1:
            raise InputError(
                f"a phase's steps and warmup_steps must not be negative and val_every be at least 1; got {self}"
            )
        if not self.lr_scale > 0 or not 0 <= self.replay < 1:
            raise InputError(f"a phase's lr_scale must be positive and replay at least 0 and below 1; got {self}")


@dataclass(frozen=True)
class MeasureConfig:
    """How much is looked at to say what an extension did; cells are drawn at random, more take longer."""

    cells: int = 2000
    """Cells of the new stores, and held-out cells of the old ones, that are embedded and annotated at most."""
    reference: int = 2000
    """Old training cells with labels that new cells are compared with at most."""

    def __post_init__(self) -> None:
        if min(self.cells, self.reference) < 10:
            raise InputError(f"measure: cells and reference must be at least 10; got {self}")


@dataclass(frozen=True)
class ExtensionRecipe:
    """All settings of an extension; what is not here (model, sampling, objectives, ...) is as the run was trained."""

    rows: SpeciesRowConfig = field(default_factory=SpeciesRowConfig)
    """How the rows of new genes are set before any training."""
    phase1: PhaseConfig = field(default_factory=lambda: PhaseConfig(lr_scale=10.0))
    """Only the new rows and the new covariate levels are trained; nothing else moves."""
    phase2: PhaseConfig = field(default_factory=lambda: PhaseConfig(steps=300, lr_scale=0.1, replay=0.5, val_every=100))
    """Everything is trained, with old cells among the new ones."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Cells of the new stores that are held out; of the old stores it is the same cells as before."""
    batch_size: int = 0
    """Cells in a global batch; 0 takes the run's."""
    labels: bool = False
    """Use the new stores' labels, where the label head knows them: species are coupled by them too, and the head is
    trained on them. A few labelled cells a type will do; leave the others empty."""
    few_exposures: int = 20
    """Genes shown less often than this while expressed are marked in the gene table: their rows say little."""
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    """How much is looked at before and after each phase."""
    seed: int = 0
    """Names every random choice."""

    def __post_init__(self) -> None:
        if not self.phase1.steps and not self.phase2.steps:
            raise InputError("phase1.steps and phase2.steps are both 0: there is nothing to train")
        if self.batch_size < 0 or self.batch_size == 1 or self.few_exposures < 0:
            raise InputError(
                f"batch_size must be 0 or at least 2, few_exposures not negative; got {self.batch_size}, "
                f"{self.few_exposures}"
            )

    def of_phase(self, base: Recipe, phase: PhaseConfig, *, labelled: bool) -> Recipe:
        """Return the recipe with which a phase is fitted.

        Parameters
        ----------
        base
            Recipe of the first run of the line.
        phase
            One of this recipe's phases.
        labelled
            Whether any cell of the phase has a label that the head knows; without, the head stands still.
        """
        return replace(
            base,
            data=replace(
                base.data,
                batch_size=self.batch_size or base.data.batch_size,
                weights=WeightConfig(),  # the replay share says how often cells are read
                validation=self.validation,
            ),
            objectives=base.objectives if labelled else replace(base.objectives, labels=0.0),
            optim=replace(base.optim, lr=base.optim.lr * phase.lr_scale, warmup_steps=phase.warmup_steps),
            trainer=replace(base.trainer, max_steps=phase.steps, val_every=phase.val_every, patience=0),
            seed=self.seed,
        )


def load_extension_recipe(name: str | Path, overrides: Mapping[str, object] | None = None) -> ExtensionRecipe:
    """Read a recipe of an extension, then apply overrides.

    Parameters
    ----------
    name
        A shipped recipe's name (``extend``) or the path of a YAML file.
    overrides
        Dotted field to value, such as ``{"phase1.steps": 1000}``.

    Raises
    ------
    InputError
        When there is no such recipe, a key is unknown, or a value is of the wrong kind or out of range.
    """
    return parse_extension_recipe(read_tree(name, overrides or {}, SHIPPED), f"recipe {name}")


def parse_extension_recipe(tree: Mapping[str, object], source: str) -> ExtensionRecipe:
    """Turn nested keys and values into a recipe; every key must be known."""
    return parse_config(ExtensionRecipe, tree, source, "extend")


def dump_extension_recipe(recipe: ExtensionRecipe) -> str:
    """Return a recipe as YAML, every field written out."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False)
