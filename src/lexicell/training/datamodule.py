"""LightningDataModule over stores: training cells as an endless stream, validation cells as a finite pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
from torch.utils.data import DataLoader

from lexicell.batch import CellBatch
from lexicell.data.cells import (
    CellCollection,
    covariate_levels,
    merge_label_trees,
    merge_lexicons,
    split_validation,
)
from lexicell.data.gene_sampler import GeneSampler, SamplingConfig, fit_shape
from lexicell.data.loader import CellStream, Shard
from lexicell.data.order import CellOrder, OrderConfig
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.model.checkpoint import ModelSpec
from lexicell.randomness import generator


@dataclass(frozen=True)
class ValidationConfig:
    """Cells that are held out to measure skill."""

    fraction: float = 0.1
    """Share of donors held out (at least one), or of cells where fewer than three donors are known."""
    donors: list[str] = field(default_factory=list)
    """Donors to hold out by name, instead of drawing them."""
    max_cells: int = 4096
    """At most so many held-out cells are looked at each time."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or self.max_cells < 1:
            raise InputError(
                f"data.validation: fraction must lie between 0 and 1 and max_cells be positive; got {self}"
            )


@dataclass(frozen=True)
class DataConfig:
    """How cells reach the model."""

    batch_size: int = 64
    """Cells in a global batch, over all devices."""
    workers: int = 0
    """Background processes that make batches; 0 makes them in the training process."""
    covariate_dropout: float = 0.3
    """Chance that a covariate (species, assay, tissue) of a cell is hidden, so that a model also works without."""
    order: OrderConfig = field(default_factory=OrderConfig)
    """Shuffling."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Held-out cells."""

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.workers < 0 or not 0 <= self.covariate_dropout <= 1:
            raise InputError(
                "data: batch_size must be at least 2, workers not negative, covariate_dropout between 0 and 1; "
                f"got {self.batch_size}, {self.workers}, {self.covariate_dropout}"
            )


class CellDataModule(lightning.LightningDataModule):
    """Stores, split and sampled as a recipe says.

    Its state is one number, the batch to go on from.

    Parameters
    ----------
    stores
        Opened stores.
    config, sampling, seed
        Of the recipe.
    spec
        A model whose lexicon, label tree and covariate levels are to be used, instead of the stores' own.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        config: DataConfig,
        sampling: SamplingConfig,
        seed: int,
        spec: ModelSpec | None = None,
    ) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.lexicon = spec.lexicon if spec else merge_lexicons(stores)
        self.label_tree = spec.label_tree if spec else merge_label_trees(stores)
        self.covariates = dict(spec.covariates) if spec else covariate_levels(stores)
        self.collection = CellCollection(stores, self.lexicon, label_tree=self.label_tree, covariates=self.covariates)
        self.shape = fit_shape(sampling, min(len(panel) for panel in self.collection.panels))
        validation = config.validation
        self.training_cells, self.validation_cells, self.held_out = split_validation(
            self.collection.donor,
            self.collection.column("species"),
            donors=validation.donors,
            fraction=validation.fraction,
            rng=generator(seed, "validation"),
        )
        if len(self.validation_cells) > validation.max_cells:
            drawn = generator(seed, "validation cells").permutation(len(self.validation_cells))
            self.validation_cells = np.sort(self.validation_cells[drawn[: validation.max_cells]])
        self.next_batch = 0

    def train_dataloader(self) -> DataLoader[CellBatch]:
        """Return the endless stream of training batches, from the next batch onwards."""
        order = CellOrder(self.collection.panel[self.training_cells], self.config.order, self.seed)
        return self._loader(
            CellStream(
                self.collection,
                self.training_cells,
                GeneSampler(self.shape, self.collection.panels, len(self.lexicon), self.seed),
                order,
                batch_size=self.config.batch_size,
                seed=self.seed,
                covariate_dropout=self.config.covariate_dropout,
                shard=self._shard(),
                first_batch=self.next_batch,
            )
        )

    def val_dataloader(self) -> DataLoader[CellBatch]:
        """Return one pass over the held-out cells; always the same genes are shown and asked for."""
        panel = self.collection.panel[self.validation_cells]
        return self._loader(
            CellStream(
                self.collection,
                self.validation_cells,
                GeneSampler(self.shape, self.collection.panels, len(self.lexicon), self.seed + 1),
                CellOrder(panel, self.config.order, self.seed, shuffle=False),
                batch_size=self.config.batch_size,
                seed=self.seed,
                shard=self._shard(),
                stop=len(self.validation_cells),
            )
        )

    def _shard(self) -> Shard:
        return Shard(self.trainer.global_rank, self.trainer.world_size) if self.trainer else Shard()

    def _loader(self, stream: CellStream) -> DataLoader[CellBatch]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self.config.workers,
            pin_memory=on_gpu,
            persistent_workers=self.config.workers > 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the batch to go on from."""
        return {"next_batch": self.trainer.global_step if self.trainer else self.next_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a batch."""
        self.next_batch = int(state_dict["next_batch"])
