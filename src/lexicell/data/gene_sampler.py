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

import numba
import numpy as np
import numpy.typing as npt

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
        divisors = np.arange(1, n_genes + 2, dtype=np.uint64)
        self._inverses = np.append(np.uint64(0), np.uint64(2**64 - 1) // divisors)
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
            _draw(
                mine,
                (rows.begin, rows.end, rows.genes, rows.counts),
                (deck, starts, keys, self._inverses),
                (self._n_genes, shape.dealt_tokens, shape.dealt_queries, shape.count_weight),
                (out.genes, out.counts, out.query_genes, out.query_counts),
            )
        return out


@numba.njit(cache=True, nogil=True)
def next_number(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """SplitMix64: the next state and a 64-bit number."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _drawn_queries(n_candidates, drawn_tokens, drawn_queries, number):
    """How many expressed candidates become queries: when they are too few, their fair share, rounded at random."""
    room = drawn_tokens + drawn_queries
    if n_candidates >= room:
        return drawn_queries
    return (n_candidates * drawn_queries + np.int64(number % np.uint64(room))) // room


@numba.njit(cache=True, nogil=True)
def _remainder(number, divisor, inverse):
    """Return ``number % divisor`` from ``inverse = (2**64 - 1) // divisor``: division is what a draw would wait for."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    a, b = number >> half, number & mask
    c, d = inverse >> half, inverse & mask
    middle = a * d + ((b * d) >> half)
    quotient = a * c + (middle >> half) + ((b * c + (middle & mask)) >> half)
    rest = number - quotient * divisor
    while rest >= divisor:
        rest -= divisor
    return rest


@numba.njit(cache=True, nogil=True)
def _more_counted(first, begin, end, candidates, counts, chance, number):
    """Draw a rival from ``begin:end``, and with a chance return the one of the two that has the higher count."""
    number, chosen = next_number(number)
    number, place = next_number(number)
    if (chosen >> np.uint64(11)) * 2.0**-53 >= chance:
        return first
    rival = begin + np.int64(place % np.uint64(end - begin))
    return rival if counts[candidates[rival]] > counts[candidates[first]] else first


@numba.njit(cache=True, nogil=True)
def _draw(rows, cells, deal, sizes, out):
    """Fill the rows of one deck. A compiled loop: partial Fisher-Yates over each cell's expressed genes.

    Of a cell's entries each is looked at once. Dealt genes are found by a mark that says where their count belongs;
    the other entries are drawn by their place, which leads to gene and count alike.
    """
    row_begin, row_end, genes, counts = cells
    deck, starts, keys, inverses = deal
    n_genes, dealt_tokens, dealt_queries, count_weight = sizes
    out_genes, out_counts, out_query_genes, out_query_counts = out
    views, _, tokens = out_genes.shape
    queries = out_query_genes.shape[1]
    drawn_tokens, drawn_queries = views * tokens - dealt_tokens, queries - dealt_queries
    mark = np.zeros(n_genes, np.int32)
    candidates = np.empty(n_genes, np.int32)
    shown = np.empty((2, queries + views * tokens), np.int64)  # queries, then tokens of all views: genes, counts
    for i in range(len(rows)):
        row = rows[i]
        begin, length = row_begin[row], row_end[row] - row_begin[row]
        own_genes, own_counts = genes[begin : begin + length], counts[begin : begin + length]

        card = starts[i]
        for j in range(dealt_queries + dealt_tokens):
            gene = deck[card]
            card = card + 1 if card + 1 < len(deck) else 0
            place = j if j < dealt_queries else j + drawn_queries
            mark[gene] = place + 1
            shown[0, place], shown[1, place] = gene, 0

        n_candidates = 0
        for j in range(length):
            place = mark[own_genes[j]]
            candidates[n_candidates] = j
            if place:
                shown[1, place - 1] = own_counts[j]
            else:
                n_candidates += 1
        state, number = next_number(keys[row])
        n_query = _drawn_queries(n_candidates, drawn_tokens, drawn_queries, number)
        n_token = min(n_candidates - n_query, drawn_tokens)
        for j in range(n_query + n_token):
            state, number = next_number(state)
            left = n_candidates - j
            other = j + np.int64(_remainder(number, np.uint64(left), inverses[left]))
            if count_weight > 0 and j >= n_query:
                other = _more_counted(other, j, n_candidates, candidates, own_counts, count_weight, number)
            chosen = candidates[other]
            candidates[other] = candidates[j]
            candidates[j] = chosen
            place = dealt_queries + j if j < n_query else queries + dealt_tokens + j - n_query
            shown[0, place], shown[1, place] = own_genes[chosen], own_counts[chosen]

        # Cells with few expressed genes are filled up with the next cards; all that they express is shown by now.
        missing = drawn_queries + drawn_tokens - n_query - n_token
        if missing:
            for j in range(length):
                mark[own_genes[j]] = 1
            first = card
            for _ in range(missing):
                while mark[deck[card]]:
                    card = card + 1 if card + 1 < len(deck) else 0
                mark[deck[card]] = 1
                if n_query < drawn_queries:
                    place = dealt_queries + n_query
                    n_query += 1
                else:
                    place = queries + dealt_tokens + n_token
                    n_token += 1
                shown[0, place], shown[1, place] = deck[card], 0
            for j in range(length):
                mark[own_genes[j]] = 0
            mark[deck[card]] = 0
            while first != card:
                mark[deck[first]] = 0
                first = first + 1 if first + 1 < len(deck) else 0

        for view in range(views):
            for j in range(tokens):
                place = queries + j * views + view
                out_genes[view, row, j], out_counts[view, row, j] = shown[0, place], shown[1, place]
        for j in range(queries):
            out_query_genes[row, j], out_query_counts[row, j] = shown[0, j], shown[1, j]
        card = starts[i]
        for _ in range(dealt_queries + dealt_tokens):
            mark[deck[card]] = 0
            card = card + 1 if card + 1 < len(deck) else 0


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
