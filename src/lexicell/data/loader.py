"""Batches of cells from a collection: an endless training stream, and a finite pass for validation.

Batch ``k`` of a run holds positions ``k * batch_size`` onwards of the cell order; a rank takes its slice of it, and
worker ``w`` of ``n`` makes the batches with ``k % n == w``. Everything drawn is keyed by position, so that neither
the number of workers nor that of ranks changes what is trained on, and a stream goes on from any batch number.
In a finite pass, ranks take whole batches in turn: a loss that compares the cells of a batch stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from lexicell.batch import CellBatch
from lexicell.data.cells import CellCollection
from lexicell.data.gene_sampler import GeneSampler
from lexicell.data.order import CellOrder
from lexicell.data.thinning import Thinning
from lexicell.errors import InputError
from lexicell.randomness import integer_seed, uniforms

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """Which part of each global batch this process trains on."""

    rank: int = 0
    world_size: int = 1


class CellStream(IterableDataset[CellBatch]):
    """Batches of cells in shuffled order, without end unless ``stop`` says so.

    Parameters
    ----------
    collection
        All cells.
    cells
        The cells of the collection that this stream reads.
    sampler, order
        Draw the genes of a cell, and the cells. ``order`` runs over ``cells``.
    batch_size
        Cells in a global batch, over all ranks.
    seed
        Keys the dropping of covariates.
    covariate_dropout
        Chance that a covariate of a cell is hidden.
    thinning
        Chance that a cell is thinned.
    first_batch, stop
        Batch to begin with, of an endless stream; number of positions after which a finite pass ends (None: never).
    """

    def __init__(
        self,
        collection: CellCollection,
        cells: Int64,
        sampler: GeneSampler,
        order: CellOrder,
        *,
        batch_size: int,
        seed: int,
        covariate_dropout: float = 0.0,
        thinning: float = 0.0,
        shard: Shard | None = None,
        first_batch: int = 0,
        stop: int | None = None,
    ) -> None:
        super().__init__()
        self.shard = shard or Shard()
        if stop is None and batch_size % self.shard.world_size:
            raise InputError(
                f"batch_size {batch_size} cannot be shared out over {self.shard.world_size} processes; "
                f"choose a multiple of {self.shard.world_size}"
            )
        self.collection, self.cells = collection, cells
        self.sampler, self.order = sampler, order
        self.batch_size, self.first_batch, self.stop = batch_size, first_batch, stop
        self._covariate_dropout = covariate_dropout
        self._thinning = Thinning(thinning, seed) if thinning else None
        self._covariate_seed = integer_seed(seed, "covariates")

    def __iter__(self) -> Iterator[CellBatch]:
        worker = get_worker_info()
        index, step = (worker.id, worker.num_workers) if worker else (0, 1)
        batch = self.first_batch + index
        if self.stop is None:
            while True:
                yield self.make_batch(batch)
                batch += step
        n_batches = -(-self.stop // self.batch_size)
        for turn in range(batch, len(self), step):
            mine = turn * self.shard.world_size + self.shard.rank
            made = self.make_batch(min(mine, n_batches - 1))
            # The last turn may not reach every rank; those that it does not reach keep step with the others.
            yield made if mine < n_batches else replace(made, position=torch.full_like(made.position, -1))

    def __len__(self) -> int:
        if self.stop is None:
            raise TypeError("an endless stream has no length")
        return -(-self.stop // (self.batch_size * self.shard.world_size))

    def make_batch(self, batch: int) -> CellBatch:
        """Return this rank's slice of a global batch; of a finite pass the whole batch."""
        draw = self.order.take(*self._span(batch))
        cells = self.cells[draw.cells]
        sample = self.sampler.sample(
            self.collection.rows_in_place(cells),
            panel=self.collection.panel[cells],
            hand=draw.hand,
            position=draw.position,
        )
        depth = self.collection.depth[cells]
        if self._thinning is not None:
            sample, depth = self._thinning.thin(sample, depth, draw.position)
        return CellBatch(
            genes=torch.from_numpy(sample.genes),
            counts=torch.from_numpy(sample.counts),
            query_genes=torch.from_numpy(sample.query_genes),
            query_counts=torch.from_numpy(sample.query_counts),
            depth=torch.from_numpy(depth),
            covariates=torch.from_numpy(self._drop_covariates(self.collection.covariates[cells], draw.position)),
            labels=torch.from_numpy(self.collection.labels[cells].astype(np.int64)),
            position=torch.from_numpy(draw.position),
        )

    def _span(self, batch: int) -> tuple[int, int]:
        """Positions of this rank's slice of a global batch; of a finite pass those of the whole batch."""
        if self.stop is not None:
            return batch * self.batch_size, min((batch + 1) * self.batch_size, self.stop)
        share = self.batch_size // self.shard.world_size
        start = batch * self.batch_size + self.shard.rank * share
        return start, start + share

    def _drop_covariates(self, covariates: npt.NDArray[np.int32], position: Int64) -> Int64:
        known = covariates.astype(np.int64)
        n_covariates = known.shape[1]
        if not self._covariate_dropout or not n_covariates:
            return known
        keys = position[:, None] * n_covariates + np.arange(n_covariates)
        return np.where(uniforms(self._covariate_seed, keys) < self._covariate_dropout, 0, known)
