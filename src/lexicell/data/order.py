"""In which order cells are read: a block shuffle that is a pure function of (seed, epoch).

Blocks of consecutive cells are drawn at random, and cells are shuffled inside a pool of blocks: disks and memory
maps are read in runs, yet a batch mixes cells from all over the data. The order is endless: position ``p`` lies in
epoch ``p // n_cells``, so that a run resumes from one number, and a global batch that crosses the end of an epoch
takes the leftovers first. Where cells are weighted, an epoch is as many draws as there are cells, see
`lexicell.data.weights`; without weights every cell comes once in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lexicell.data.weights import GroupShares, WeightedBlocks
from lexicell.errors import InputError
from lexicell.randomness import permutation

Int64 = npt.NDArray[np.int64]

_BLOCKS_AT_ONCE = 1 << 16  # of which the panels are counted: millions of cells need not be gone through at once


@dataclass(frozen=True)
class OrderConfig:
    """How cells are shuffled."""

    block_size: int = 16
    """Consecutive cells that are read together."""
    pool_blocks: int = 2048
    """Blocks among which cells are shuffled; memory-mapped rows are only read when their batch is made."""

    def __post_init__(self) -> None:
        if self.block_size < 1 or self.pool_blocks < 1:
            raise InputError(
                f"data.order: block_size and pool_blocks must be at least 1; got {self.block_size}, {self.pool_blocks}"
            )


@dataclass(frozen=True)
class Draw:
    """Consecutive positions of the order."""

    cells: Int64  # (n,) which cell
    hand: Int64  # (n,) how many cells of the same panel came before, over all epochs
    position: Int64  # (n,) place in the endless order


class Blocks(Protocol):
    """The blocks that each epoch deals out, before they are shuffled."""

    n_cells: int  # cells dealt in an epoch

    def sizes(self, epoch: int) -> Int64:
        """Return how many cells each block of an epoch holds."""
        ...

    def cells(self, epoch: int, blocks: Int64) -> Int64:
        """Return the cells of some blocks, one block after the other."""
        ...

    def dealt(self, epoch: int, blocks: Int64) -> Int64:
        """Return how many cells of each panel came in earlier epochs and in some blocks of this one."""
        ...


class CellOrder:
    """The endless shuffled order of cells.

    Parameters
    ----------
    panel
        (n_cells,) panel of each cell; cells are numbered as they lie on disk.
    config
        Block and pool sizes.
    seed
        Names the shuffle.
    shuffle
        False reads the cells as they lie on disk.
    shares
        How often each group of cells is read; None reads every cell once an epoch.
    """

    def __init__(
        self, panel: Int64, config: OrderConfig, seed: int, *, shuffle: bool = True, shares: GroupShares | None = None
    ) -> None:
        self.n_cells = len(panel)
        self._panel = panel
        self._config = config
        self._seed = seed
        self._shuffle = shuffle
        self._blocks: Blocks = _EveryBlock(panel, config.block_size)
        if shares is not None:
            self._blocks = WeightedBlocks(shares, panel, config.block_size, seed)
        self._epoch: tuple[int, Int64, Int64] | None = None
        self._pool: tuple[tuple[int, int], Draw] | None = None

    def take(self, start: int, stop: int) -> Draw:
        """Return positions ``start`` to ``stop`` of the endless order."""
        parts, at = [], start
        while at < stop:
            epoch, offset = divmod(at, self.n_cells)
            pool, pool_start = self._pool_at(epoch, offset)
            first = offset - pool_start
            last = min(first + stop - at, len(pool.cells))
            parts.append(Draw(pool.cells[first:last], pool.hand[first:last], pool.position[first:last]))
            at += last - first
        return Draw(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("cells", "hand", "position")))

    def _blocks_of(self, epoch: int) -> tuple[Int64, Int64]:
        """Order of blocks in an epoch, and the number of cells before each pool."""
        if self._epoch is None or self._epoch[0] != epoch:
            sizes = self._blocks.sizes(epoch)
            n_blocks = len(sizes)
            blocks = permutation(self._seed, "blocks", epoch, n=n_blocks) if self._shuffle else np.arange(n_blocks)
            pools = np.add.reduceat(sizes[blocks], np.arange(0, n_blocks, self._config.pool_blocks))
            self._epoch = (epoch, blocks, np.concatenate([[0], np.cumsum(pools)]))
        return self._epoch[1], self._epoch[2]

    def _pool_at(self, epoch: int, offset: int) -> tuple[Draw, int]:
        blocks, starts = self._blocks_of(epoch)
        pool = int(np.searchsorted(starts, offset, side="right")) - 1
        if self._pool is None or self._pool[0] != (epoch, pool):
            self._pool = ((epoch, pool), self._make_pool(epoch, pool, blocks, int(starts[pool])))
        return self._pool[1], int(starts[pool])

    def _make_pool(self, epoch: int, pool: int, blocks: Int64, start: int) -> Draw:
        first = pool * self._config.pool_blocks
        cells = self._blocks.cells(epoch, blocks[first : first + self._config.pool_blocks])
        if self._shuffle:
            cells = cells[permutation(self._seed, "pool", epoch, pool, n=len(cells))]
        before = self._blocks.dealt(epoch, blocks[:first])
        panel = self._panel[cells]
        hand = np.empty(len(cells), np.int64)
        for p in np.unique(panel):
            of_panel = np.flatnonzero(panel == p)
            hand[of_panel] = before[p] + np.arange(len(of_panel))
        position = epoch * self.n_cells + start + np.arange(len(cells))
        return Draw(cells, hand, position)


class _EveryBlock:
    """Every cell once an epoch, in blocks as they lie on disk."""

    def __init__(self, panel: Int64, block_size: int) -> None:
        self.n_cells = len(panel)
        self._size = block_size
        self._n_blocks = -(-self.n_cells // block_size)
        # Cells of each panel in each block, from which any pool's place among its panel's cells follows.
        n_panels = int(panel.max()) + 1 if len(panel) else 0
        self._per_block = np.empty((self._n_blocks, n_panels), np.int64)
        for first in range(0, self._n_blocks, _BLOCKS_AT_ONCE):
            here = panel[first * block_size : (first + _BLOCKS_AT_ONCE) * block_size]
            rows = self._per_block[first : first + _BLOCKS_AT_ONCE]
            keys = np.arange(len(here)) // block_size * n_panels + here
            rows[:] = np.bincount(keys, minlength=rows.size).reshape(rows.shape)
        self._per_panel = self._per_block.sum(axis=0)

    def sizes(self, epoch: int) -> Int64:
        begin = np.arange(self._n_blocks) * self._size
        return np.minimum(begin + self._size, self.n_cells) - begin

    def cells(self, epoch: int, blocks: Int64) -> Int64:
        cells = (blocks[:, None] * self._size + np.arange(self._size)).ravel()
        return cells[cells < self.n_cells]

    def dealt(self, epoch: int, blocks: Int64) -> Int64:
        dealt: Int64 = epoch * self._per_panel + self._per_block[blocks].sum(axis=0)
        return dealt
