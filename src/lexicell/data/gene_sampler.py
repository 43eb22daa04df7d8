"""Which genes of a cell enter a batch: a random sample of the expressed ones, and cards from a deck.

The deck makes sure that every gene of the panel is trained, also one that is hardly ever expressed. It is a
shuffled permutation of the panel's genes, dealt to the end before it is shuffled again. A *deal* is the whole
deck; a *hand* is what one cell gets: first cards to be asked for (queries), then cards to be shown (tokens).
Hand after hand moves around the permutation in equal steps no longer than either part of a hand, so that in
one deal every gene is a query at least once and a token at least once, and no gene is twice in a hand.
A dealt gene enters with its true count, mostly zero: zeros are observations too.

All is a pure function of (seed, the cell's place in the global order, the cell's place among the cells of its
panel): which worker or rank draws a batch changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lexicell.data.gene_draws import fill
from lexicell.errors import InputError
from lexicell.randomness import integer_seed, permutation

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SamplingConfig:
    """How many genes of a cell are shown and asked for."""

    tokens: int = 512
    """Genes shown in a view of a cell (fewer where a panel is too small)."""
    views: int = 2
    """Gene-disjoint views of each cell: 1, or 2 for the contrastive loss."""
    queries: int = 128
    """Held-out genes asked for in each cell."""
    deck_share: float = 0.1
    """Share of a view that is dealt from the deck rather than drawn from the expressed genes."""
    query_deck_share: float = 0.5
    """Share of the queries that is dealt from the deck rather than drawn from the expressed genes."""
    count_weight: float = 0.0
    """Chance that a shown gene is the one of higher count among two that were drawn; 0 draws expressed genes alike."""
    thinning: float = 0.0
    """Chance that a training cell is thinned binomially, as if it had been sequenced less deeply."""

    def __post_init__(self) -> None:
        if self.tokens < 2 or self.queries < 2 or self.views not in (1, 2):
            raise InputError(
                f"sampling: tokens and queries must be at least 2 and views 1 or 2; got tokens={self.tokens}, "
                f"queries={self.queries}, views={self.views}"
            )
        if not (0 < self.deck_share < 1 and 0 < self.query_deck_share < 1):
            raise InputError(
                "sampling: deck_share and query_deck_share must lie between 0 and 1; got "
                f"{self.deck_share} and {self.query_deck_share}"
            )
        if not (0 <= self.count_weight <= 1 and 0 <= self.thinning <= 1):
            raise InputError(
                "sampling: count_weight and thinning are chances from 0 to 1; got "
                f"{self.count_weight} and {self.thinning}"
            )


@dataclass(frozen=True)
class SampleShape:
    """The numbers of tokens and queries that fit every panel of a run; the same for every batch."""

    views: int
    tokens: int
    queries: int
    dealt_tokens: int  # over all views
    dealt_queries: int
    count_weight: float = 0.0

    @property
    def drawn_tokens(self) -> int:
        """Tokens over all views that are drawn from the expressed genes."""
        return self.views * self.tokens - self.dealt_tokens

    @property
    def drawn_queries(self) -> int:
        """Queries that are drawn from the expressed genes."""
        return self.queries - self.dealt_queries


def fit_shape(config: SamplingConfig, smallest_panel: int) -> SampleShape:
    """Shrink tokens and queries, in proportion, until the views and the queries fit the smallest panel."""
    wanted = config.views * config.tokens + config.queries
    shrink = min(1.0, smallest_panel / wanted)
    tokens, queries = int(config.tokens * shrink), int(config.queries * shrink)
    if tokens < 2 or queries < 2:
        raise InputError(
            f"a panel of {smallest_panel} genes is too small to train on: {config.views} views and the queries "
            f"need at least {2 * config.views + 2} genes; leave that file out, or set sampling.views to 1"
        )
    return SampleShape(
        views=config.views,
        tokens=tokens,
        queries=queries,
        dealt_tokens=config.views * max(1, round(config.deck_share * tokens)),
        dealt_queries=max(1, round(config.query_deck_share * queries)),
        count_weight=config.count_weight,
    )


def shrunk(config: SamplingConfig, shape: SampleShape, panel: int, n_cells: int, others: int) -> str | None:
    """Say that a small panel made a run's views smaller than asked for; None where it did not.

    Parameters
    ----------
    config, shape
        What was asked for, and what fits.
    panel
        Genes of the smallest panel.
    n_cells
        Cells of that panel, which all other cells' views shrink with.
    others
        Genes of the smallest panel of the other cells; 0 where there are none.
    """
    if shape.tokens == config.tokens and shape.queries == config.queries:
        return None
    text = (
        f"every cell shows {shape.tokens} genes a view and is asked for {shape.queries}, instead of {config.tokens} "
        f"and {config.queries}: that is all that fits the smallest panel ({panel:,} genes, {n_cells:,} cells)"
    )
    if not others:
        return text
    fitting = fit_shape(config, others)
    return f"{text}; without it, {fitting.tokens} and {fitting.queries} would be. To have them, leave that file out"


@dataclass(frozen=True)
class SparseRows:
    """Expressed genes of some cells: those of row ``i`` lie at ``begin[i]:end[i]``."""

    begin: Int64  # (b,)
    end: Int64  # (b,)
    genes: npt.NDArray[np.integer]  # lexicon index, once a row
    counts: npt.NDArray[np.integer]  # raw count, above zero


@dataclass(frozen=True)
class GeneSample:
    """The genes drawn for some cells, as lexicon indices with raw counts."""

    genes: Int64  # (v, b, l)
    counts: Int64  # (v, b, l)
    query_genes: Int64  # (b, q)
    query_counts: Int64  # (b, q)


class GeneSampler:
    """Draws tokens and queries for cells of one or several panels.

    Parameters
    ----------
    shape
        Numbers of tokens and queries.
    panels
        For each panel the lexicon indices of the genes it measured.
    n_genes
        Size of the lexicon.
    seed
        Names the deck's shuffles and the draws.
    """

    def __init__(self, shape: SampleShape, panels: Sequence[Int64], n_genes: int, seed: int) -> None:
        self.shape = shape
        self._panels = [np.ascontiguousarray(panel, dtype=np.int64) for panel in panels]
        self._n_genes = n_genes
        self._seed = seed
        self._draw_key = np.uint64(integer_seed(seed, "genes"))
        self._decks: dict[int, tuple[int, Int64]] = {}

    def hands_per_deal(self, panel: int) -> int:
        """Number of cells of a panel after which each of its genes was shown and asked for at least once."""
        return -(-len(self._panels[panel]) // min(self.shape.dealt_tokens, self.shape.dealt_queries))

    def _deck(self, panel: int, deal: int) -> Int64:
        cached = self._decks.get(panel)
        if cached is None or cached[0] != deal:
            genes = self._panels[panel]
            cached = (deal, genes[permutation(self._seed, "deck", panel, deal, n=len(genes))])
            self._decks[panel] = cached
        return cached[1]

    def sample(
        self,
        rows: SparseRows,
        *,
        panel: Int64,
        hand: Int64,
        position: Int64,
    ) -> GeneSample:
        """Draw for a batch of cells.

        Parameters
        ----------
        rows
            The cells' expressed genes and raw counts.
        panel
            (b,) panel of each cell.
        hand
            (b,) place of each cell among all cells of its panel, over all epochs.
        position
            (b,) place of each cell in the endless global order; it keys the draw.
        """
        shape, n_cells = self.shape, len(position)
        out = GeneSample(
            genes=np.empty((shape.views, n_cells, shape.tokens), np.int64),
            counts=np.empty((shape.views, n_cells, shape.tokens), np.int64),
            query_genes=np.empty((n_cells, shape.queries), np.int64),
            query_counts=np.empty((n_cells, shape.queries), np.int64),
        )
        hands = np.array([self.hands_per_deal(p) for p in range(len(self._panels))], np.int64)[panel]
        deal = hand // hands
        keys = position.astype(np.uint64) + self._draw_key
        # Cells that share a deck are drawn together; in one batch there are few decks.
        for deck_panel, deck_deal in sorted(set(zip(panel.tolist(), deal.tolist(), strict=True))):
            mine = np.flatnonzero((panel == deck_panel) & (deal == deck_deal))
            deck = self._deck(deck_panel, deck_deal)
            starts = (hand[mine] % hands[mine]) * len(deck) // hands[mine]
            fill(
                mine,
                (rows.begin, rows.end, rows.genes, rows.counts),
                (deck, starts, keys),
                (self._n_genes, shape.dealt_tokens, shape.dealt_queries, shape.count_weight),
                (out.genes, out.counts, out.query_genes, out.query_counts),
            )
        return out


def query_probabilities(
    shape: SampleShape, n_expressed: Int64, panel_size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return each cell's chance that a given expressed gene, and a given silent gene, is among its queries.

    The count baseline is weighted by them, so that it is fitted to what the model is asked.

    Parameters
    ----------
    shape
        Numbers of tokens and queries.
    n_expressed
        (n,) expressed genes of each cell.
    panel_size
        Genes measured in these cells.
    """
    dealt = shape.dealt_queries / panel_size
    rest = 1.0 - (shape.dealt_queries + shape.dealt_tokens) / panel_size
    candidates = np.maximum(n_expressed * rest, 1e-9)
    drawn = shape.drawn_queries * np.minimum(candidates / (shape.drawn_queries + shape.drawn_tokens), 1.0)
    silent = np.maximum((panel_size - n_expressed) * rest, 1e-9)
    return dealt + rest * drawn / candidates, dealt + rest * (shape.drawn_queries - drawn) / silent
