"""LightningDataModule over stores: training cells as an endless stream, validation cells as a finite pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from lexicell.batch import CellBatch
from lexicell.data.cells import (
    CellCollection,
    covariate_levels,
    merge_label_trees,
    merge_lexicons,
    split_validation,
)
from lexicell.data.gene_sampler import GeneSampler, SampleShape, SamplingConfig, fit_shape, shrunk
from lexicell.data.loader import CellStream, Shard
from lexicell.data.order import CellOrder, OrderConfig
from lexicell.data.store import Store
from lexicell.data.weights import GroupShares, WeightConfig, group_shares
from lexicell.errors import InputError, listing
from lexicell.model.checkpoint import ModelSpec
from lexicell.randomness import generator

MAX_VALIDATION_BATCH = 256  # held-out cells that one process looks at together, however large the global batch


Int64 = npt.NDArray[np.int64]


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
    prefetch: int = 4
    """Batches that each background process makes ahead; on a GPU they wait in page-locked memory."""
    covariate_dropout: float = 0.3
    """Chance that a covariate (species, assay, tissue) of a cell is hidden, so that a model also works without."""
    order: OrderConfig = field(default_factory=OrderConfig)
    """Shuffling."""
    weights: WeightConfig = field(default_factory=WeightConfig)
    """How often the cells of each store, species, tissue or label are read."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Held-out cells."""

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.workers < 0 or self.prefetch < 1 or not 0 <= self.covariate_dropout <= 1:
            raise InputError(
                "data: batch_size must be at least 2, workers not negative, prefetch at least 1, covariate_dropout "
                f"between 0 and 1; got {self.batch_size}, {self.workers}, {self.prefetch}, {self.covariate_dropout}"
            )


def hold_out_cells(
    donor: npt.NDArray[np.object_], species: npt.NDArray[np.object_], config: ValidationConfig, seed: int
) -> tuple[Int64, Int64, str]:
    """Split cells by donor and species (n,) each; return cells to train on, cells to look at, and what was held out."""
    training, held_out, words = split_validation(
        donor, species, donors=config.donors, fraction=config.fraction, rng=generator(seed, "validation")
    )
    if len(held_out) > config.max_cells:
        drawn = generator(seed, "validation cells").permutation(len(held_out))
        held_out = np.sort(held_out[drawn[: config.max_cells]])
    return training, held_out, words


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
        self.config, self.seed, self._thinning = config, seed, sampling.thinning
        self.lexicon = spec.lexicon if spec else merge_lexicons(stores)
        self.label_tree = spec.label_tree if spec else merge_label_trees(stores)
        self.covariates = dict(spec.covariates) if spec else covariate_levels(stores)
        self.collection = CellCollection(stores, self.lexicon, label_tree=self.label_tree, covariates=self.covariates)
        self.shape, self.notes = self._fit_shape(sampling)
        self.training_cells, self.validation_cells, self.held_out = hold_out_cells(
            self.collection.column("donor"), self.collection.column("species"), config.validation, seed
        )
        self.shares = self._weigh()
        self.next_batch = 0

    def cells_of_batch(self, batch: int) -> npt.NDArray[np.int64]:
        """Return the cells of a global training batch, as places in the collection."""
        start = batch * self.config.batch_size
        return self.training_cells[self._order().take(start, start + self.config.batch_size).cells]

    def cell_names(self, cells: npt.NDArray[np.int64]) -> list[str]:
        """Return where cells lie, as ``STORE row ROW``."""
        starts = np.cumsum([0, *(store.n_cells for store in self.collection.stores)])
        store = np.searchsorted(starts, cells, side="right") - 1
        names = [store.name for store in self.collection.stores]
        return [f"{names[place]} row {cell - starts[place]}" for place, cell in zip(store, cells, strict=True)]

    def _order(self) -> CellOrder:
        panel = self.collection.panel[self.training_cells]
        return CellOrder(panel, self.config.order, self.seed, shares=self.shares)

    def train_dataloader(self) -> DataLoader[CellBatch]:
        """Return the endless stream of training batches, from the next batch onwards."""
        return self._loader(
            CellStream(
                self.collection,
                self.training_cells,
                GeneSampler(self.shape, self.collection.panels, len(self.lexicon), self.seed),
                self._order(),
                batch_size=self.config.batch_size,
                seed=self.seed,
                covariate_dropout=self.config.covariate_dropout,
                thinning=self._thinning,
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
                batch_size=min(self.config.batch_size, MAX_VALIDATION_BATCH),
                seed=self.seed,
                shard=self._shard(),
                stop=len(self.validation_cells),
            )
        )

    def transfer_batch_to_device(self, batch: CellBatch, device: torch.device, dataloader_idx: int) -> CellBatch:
        """Copy a batch to its device; from page-locked memory the copy runs beside the computation."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def _fit_shape(self, sampling: SamplingConfig) -> tuple[SampleShape, tuple[str, ...]]:
        """Return the shape of all views, and what a user should know of it."""
        panels = self.collection.panels
        sizes = sorted({len(panel) for panel in panels})
        shape = fit_shape(sampling, sizes[0])
        smallest = [place for place, panel in enumerate(panels) if len(panel) == sizes[0]]
        n_cells = int(np.isin(self.collection.panel, smallest).sum())
        note = shrunk(sampling, shape, sizes[0], n_cells, sizes[1] if len(sizes) > 1 else 0)
        return shape, () if note is None else (note,)

    def cell_weights(self) -> npt.NDArray[np.float64] | None:
        """Return how often each training cell is read, relative to reading all alike (n,); None where all are."""
        shares = self.shares
        return None if shares is None else (len(shares.group) * shares.shares / shares.cells)[shares.group]

    def _weigh(self) -> GroupShares | None:
        """Return how often each group of training cells is read; None where nothing is weighted."""
        weights = self.config.weights
        if not weights.by:
            return None
        if weights.by not in self.collection.columns:
            raise InputError(
                f"data.weights.by: the stores' cells have no column {weights.by!r}; they have "
                f"{listing(self.collection.columns, 40)}"
            )
        column = self.collection.coded(weights.by)
        return group_shares(column.names, column.codes[self.training_cells].astype(np.int64), weights)

    def _shard(self) -> Shard:
        return Shard(self.trainer.global_rank, self.trainer.world_size) if self.trainer else Shard()

    def _loader(self, stream: CellStream) -> DataLoader[CellBatch]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self.config.workers,
            prefetch_factor=self.config.prefetch if self.config.workers else None,
            pin_memory=on_gpu,
            persistent_workers=self.config.workers > 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the batch to go on from."""
        return {"next_batch": self.trainer.global_step if self.trainer else self.next_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a batch."""
        self.next_batch = int(state_dict["next_batch"])
