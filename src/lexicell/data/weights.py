"""How often cells are read: temperature sampling, and weights of single groups, for atlases that are out of balance.

Design choices
- Cells are put into groups by one column (store, source, species, tissue, donor, a label level). A group's share of
  what is read is its size to the power 1 / temperature, times its weight: as they are at 1, all groups alike at
  infinity (Arivazhagan et al. 2019, arXiv:1907.05019, do so with languages).
- An epoch is as many draws as there are cells. How many of them a group gets is rounded by one random offset an
  epoch, so that the sum is exact and the rarest group gets its share in the long run.
- A group is dealt out without replacement: each of its cells comes once before any comes again.
So the whole is a pure function of (seed, position), like the order without weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lexicell.errors import InputError, listing
from lexicell.randomness import generator, permutation

Int64 = npt.NDArray[np.int64]

NO_VALUE = "(none)"


@dataclass(frozen=True)
class WeightConfig:
    """How often the cells of each group are read."""

    by: str = ""
    """What groups cells: store, source, species, tissue, assay, donor, a label level or a kept column; "" weights
    nothing: each cell is read once an epoch."""
    temperature: float = 1.0
    """A group's share is its size to the power 1 / temperature: 1 reads cells as often as they are there, .inf reads
    all groups equally often."""
    weights: dict[str, float] = field(default_factory=dict)
    """Group to factor by which its share is multiplied; 0 leaves it out. Cells without a value are the group (none)."""

    def __post_init__(self) -> None:
        if math.isnan(self.temperature) or self.temperature < 1:
            raise InputError(f"data.weights: temperature must be at least 1 (or .inf); got {self.temperature}")
        wrong = [name for name, weight in self.weights.items() if not 0 <= weight < math.inf]
        if wrong:
            raise InputError(
                f"data.weights: weights must be finite and not negative; those of {listing(wrong)} are not"
            )
        if not self.by and (self.weights or self.temperature != 1):
            raise InputError(
                "data.weights: temperature and weights need to know what groups cells; set data.weights.by, for "
                "example to species or to a label level"
            )


@dataclass(frozen=True, eq=False)
class GroupShares:
    """The groups of some cells, and how often each is read.

    Attributes
    ----------
    names
        The groups that occur.
    group
        (n,) group of each cell.
    cells
        (g,) cells of each group.
    shares
        (g,) share of what is read; sums to 1.
    """

    names: tuple[str, ...]
    group: Int64
    cells: Int64
    shares: npt.NDArray[np.float64]


def group_shares(names: tuple[str, ...], group: Int64, config: WeightConfig) -> GroupShares:
    """Return the share of each group of cells.

    Parameters
    ----------
    names
        Name of each group.
    group
        (n,) group of each cell; -1 for cells without a value.
    config
        Temperature and weights.

    Raises
    ------
    InputError
        When a weight is given to a group that does not occur, or all cells are left out.
    """
    codes = np.where(group < 0, len(names), group)
    present, codes = _numbered(codes)
    kept = tuple([*names, NO_VALUE][place] for place in present)
    unknown = [name for name in config.weights if name not in kept]
    if unknown:
        raise InputError(
            f"data.weights: no cell to train on has the {config.by} {listing(unknown)}; there are {listing(kept, 40)}"
        )
    cells = np.bincount(codes, minlength=len(kept)).astype(np.int64)
    factors = np.array([config.weights.get(name, 1.0) for name in kept])
    mass = factors * (cells / cells.sum()) ** (1.0 / config.temperature)
    if not mass.sum() > 0:
        raise InputError(f"data.weights: every {config.by} has the weight 0; there is nothing left to train on")
    return GroupShares(kept, codes, cells, mass / mass.sum())


def _numbered(keys: Int64) -> tuple[Int64, Int64]:
    """Do what ``np.unique(keys, return_inverse=True)`` does, for few distinct keys from 0 on, without sorting."""
    seen = np.bincount(keys) > 0
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[keys]


class WeightedBlocks:
    """Blocks of cells, drawn so often as their groups' shares say; see `lexicell.data.order.Blocks`.

    Parameters
    ----------
    shares
        Groups and shares of the cells.
    panel
        (n,) panel of each cell.
    block_size
        Cells of one group that are read together.
    seed
        Names the draws.
    """

    def __init__(self, shares: GroupShares, panel: Int64, block_size: int, seed: int) -> None:
        self.n_cells = len(panel)
        self.n_panels = int(panel.max()) + 1
        self._size = block_size
        self._seed = seed
        # A stratum is a group's cells of one panel: then the cells dealt from a panel can be counted without a draw.
        strata, stratum = _numbered(shares.group * self.n_panels + panel)
        self._panel = strata % self.n_panels
        self._by_stratum = np.argsort(stratum, kind="stable")  # ascending within a stratum: as they lie on disk
        self._cells = np.bincount(stratum, minlength=len(strata)).astype(np.int64)
        self._first = np.cumsum(self._cells) - self._cells
        group = strata // self.n_panels
        expected = self.n_cells * shares.shares[group] * self._cells / shares.cells[group]
        self._edges = np.concatenate([[0.0], np.cumsum(expected)])
        self._edges[-1] = self.n_cells  # exact, whatever the rounding
        self._dealt = [np.zeros(len(strata), np.int64)]  # before each epoch
        self._epoch: tuple[int, tuple[Int64, Int64, Int64]] | None = None

    def sizes(self, epoch: int) -> Int64:
        """Return how many cells each block of an epoch holds."""
        return self._blocks(epoch)[2]

    def cells(self, epoch: int, blocks: Int64) -> Int64:
        """Return the cells of some blocks, one block after the other."""
        _, first, sizes = self._blocks(epoch)
        lengths = sizes[blocks]
        ends = np.cumsum(lengths)
        steps = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        cells: Int64 = self._by_stratum[np.repeat(first[blocks], lengths) + steps]
        return cells

    def dealt(self, epoch: int, blocks: Int64) -> Int64:
        """Return how many cells of each panel came in earlier epochs and in some blocks of this one."""
        stratum, _, sizes = self._blocks(epoch)
        counts = np.bincount(self._panel, self._before(epoch), self.n_panels)
        counts += np.bincount(self._panel[stratum[blocks]], sizes[blocks], self.n_panels)
        return counts.astype(np.int64)

    def _before(self, epoch: int) -> Int64:
        """Return how many cells of each stratum came before an epoch."""
        while len(self._dealt) <= epoch:
            offset = generator(self._seed, "shares", len(self._dealt) - 1).random()
            edges = np.floor(self._edges + offset).astype(np.int64)
            self._dealt.append(self._dealt[-1] + edges[1:] - edges[:-1])
        return self._dealt[epoch]

    def _blocks(self, epoch: int) -> tuple[Int64, Int64, Int64]:
        """Return stratum, first place in `_by_stratum` and size of every block of an epoch."""
        if self._epoch is None or self._epoch[0] != epoch:
            starts, stops = self._before(epoch), self._before(epoch + 1)
            drawn = np.flatnonzero(stops > starts)
            pieces = [self._stretch(int(s), int(starts[s]), int(stops[s])) for s in drawn]
            stratum = np.repeat(drawn, [len(first) for first, _ in pieces])
            first = np.concatenate([first for first, _ in pieces])
            self._epoch = (epoch, (stratum, first, np.concatenate([size for _, size in pieces])))
        return self._epoch[1]

    def _stretch(self, stratum: int, start: int, stop: int) -> tuple[Int64, Int64]:
        """Return the blocks that hold the draws ``start:stop`` of a stratum's endless order.

        The order deals all of the stratum's blocks, shuffled, then all again, shuffled anew.
        """
        n_cells = int(self._cells[stratum])
        laps = range(start // n_cells, -(-stop // n_cells))
        n_blocks = -(-n_cells // self._size)
        if n_blocks == 1:
            order = np.zeros(len(laps), np.int64)
        else:
            order = np.concatenate([permutation(self._seed, "lap", stratum, lap, n=n_blocks) for lap in laps])
        begin = order * self._size
        size = np.minimum(begin + self._size, n_cells) - begin
        at = laps[0] * n_cells + np.cumsum(size) - size
        cut = np.maximum(start - at, 0)  # of the block that the last epoch left half dealt
        length = np.minimum(at + size, stop) - at - cut
        whole = length > 0
        return self._first[stratum] + (begin + cut)[whole], length[whole]
