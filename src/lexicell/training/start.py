"""What a run begins with: a fresh network, or one that somebody makes of another model's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from lexicell.data.store import Store
from lexicell.model.checkpoint import ModelSpec
from lexicell.model.counts import lower_edges
from lexicell.model.network import CellNetwork
from lexicell.randomness import generator, integer_seed
from lexicell.training.datamodule import CellDataModule
from lexicell.training.gene_rows import start_genes
from lexicell.training.recipe import Recipe
from lexicell.training.skill import CountBaseline, fit_baseline


def baseline_of(recipe: Recipe, data: CellDataModule) -> CountBaseline:
    """Return what the skill of a recipe's model is measured against, fitted on the training cells."""
    rng = generator(recipe.seed, "baseline")
    return fit_baseline(data.collection, data.training_cells, data.shape, lower_edges(recipe.model.counts), rng)


class Start(Protocol):
    """Makes what `fit` trains. All of it must follow from recipe, stores and `facts`, so that a run can be resumed."""

    def facts(self) -> Mapping[str, object]:
        """Return what run.json tells of the start; a run is only resumed with a start of the same facts."""
        ...

    def open(self, recipe: Recipe, stores: Sequence[Store]) -> CellDataModule:
        """Return the run's cells, read in the lexicon, labels and covariates of the network to come."""
        ...

    def build(
        self, recipe: Recipe, data: CellDataModule, baseline: CountBaseline, *, fresh: bool
    ) -> tuple[CellNetwork, ModelSpec]:
        """Return the network to train and what its weights mean; `baseline` is what its skill is measured against.

        Parameters without gradient stay as they are. When a run is resumed (not `fresh`), its own weights are loaded
        over those returned here, which must be of the same names and shapes.
        """
        ...


class FromScratch:
    """A network of the recipe's make, for the genes, labels and covariates of the stores, with drawn weights."""

    def facts(self) -> Mapping[str, object]:
        """Return nothing: recipe and stores say it all."""
        return {}

    def open(self, recipe: Recipe, stores: Sequence[Store]) -> CellDataModule:
        """Return the run's cells, in the stores' own lexicon."""
        return CellDataModule(stores, recipe.data, recipe.sampling, recipe.seed)

    def build(
        self, recipe: Recipe, data: CellDataModule, baseline: CountBaseline, *, fresh: bool
    ) -> tuple[CellNetwork, ModelSpec]:
        """Return a network; weights are only drawn for a fresh run."""
        spec = ModelSpec(
            config=recipe.model,
            lexicon=data.lexicon,
            label_tree=data.label_tree if recipe.objectives.labels > 0 else None,
            covariates=data.covariates,
            tokens=data.shape.tokens,
            silent_share=recipe.sampling.deck_share,
        )
        network = spec.build()
        if fresh:
            begin = start_genes(
                data.collection, data.training_cells, recipe.model.encoder.width, recipe.gene_rows, recipe.seed
            )
            weights = torch.Generator().manual_seed(integer_seed(recipe.seed, "weights"))
            marginal = baseline.marginal() if recipe.gene_rows.marginal else None
            network.initialise(
                weights,
                gene_rows=torch.from_numpy(begin.rows),
                usual=torch.from_numpy(begin.usual),
                marginal=marginal,
                typical_depth=float(np.median(data.collection.depth[data.training_cells])),
            )
        return network, spec
