"""The compiled part of gene sampling: fills the tokens and queries of cells that share a deck.

Design choices
- A random read costs more than all else, so a cell's entries are read in order. Each is chosen with a chance a
  little above what is needed, 64 entries at a time; which of the chosen ones are too many, and which are queries,
  is drawn among these. Given how many were chosen, every set of that size is equally likely, so this is an exact
  draw without replacement. Where too few were chosen (about one cell in two hundred), it is made anew from all.
- Numbers are those of SplitMix64 (Steele, Lea & Flood 2014), keyed by cell.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_ONE, _SIX, _LOW = np.uint64(1), np.uint64(6), np.uint64(63)
_MARGIN = 2.5  # entries to choose above the number needed, in standard deviations


@numba.njit(cache=True, nogil=True)
def next_number(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """SplitMix64: the next state and a 64-bit number."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


@intrinsic
def _lowest_bit(_context, _word):
    """Return the place of the lowest bit that is set; the word must not be 0."""

    def generate(_context, builder, _signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@numba.njit(cache=True, nogil=True)
def _below(number, limit):
    """Return a number from 0 to ``limit - 1`` (limit < 2**31), even to one part in ``2**32 / limit``."""
    return np.int64(((number >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32))


@numba.njit(cache=True, nogil=True)
def _drawn_queries(n_candidates, drawn_tokens, drawn_queries, number):
    """How many expressed candidates become queries: when they are too few, their fair share, rounded at random."""
    room = drawn_tokens + drawn_queries
    if n_candidates >= room:
        return drawn_queries
    return (n_candidates * drawn_queries + np.int64(number % np.uint64(room))) // room


@numba.njit(cache=True, nogil=True)
def _choose(length, needed, state, chosen):
    """Set each of `length` bits of `chosen` with a chance such that `needed` mostly are set; return the state.

    The chance is a whole number of 256ths. Its binary digits are gone through from the lowest: a random word is
    added to the bits where the digit is 1, and they are masked with it where it is 0.
    """
    words = (length + 63) >> 6
    wanted = needed + _MARGIN * math.sqrt(needed * max(1.0 - needed / max(length, 1), 0.0)) + 0.005 * length
    chance = 256 if wanted >= length else math.ceil(256.0 * wanted / length)
    if chance >= 256:
        chosen[:words] = ~np.uint64(0)
    else:
        lowest = 0
        while not (chance >> lowest) & 1:
            lowest += 1
        for word in range(words):
            bits = np.uint64(0)
            for digit in range(lowest, 8):
                state, number = next_number(state)
                bits = bits | number if (chance >> digit) & 1 else bits & number
            chosen[word] = bits
    if length & 63:
        chosen[words - 1] &= (_ONE << np.uint64(length & 63)) - _ONE
    return state


@numba.njit(cache=True, nogil=True)
def _see(genes, counts, dealt, number_of, chosen, card_counts):
    """Look at every entry once: a dealt gene gets its true count and is not drawn again. Return how many there are."""
    n_dealt = 0
    for j in range(np.uint64(len(genes))):
        gene = np.uint64(genes[j])
        if (dealt[gene >> _SIX] >> (gene & _LOW)) & _ONE:
            card_counts[number_of[gene]] = counts[j]
            chosen[j >> _SIX] &= ~(_ONE << (j & _LOW))
            n_dealt += 1
    return n_dealt


@numba.njit(cache=True, nogil=True)
def _list_set(chosen, words, entries):
    """List the places of the bits that are set, ascending; return their number."""
    n = np.uint64(0)
    for word in range(words):
        bits = chosen[word]
        while bits:
            entries[n] = np.uint64(word << 6) + _lowest_bit(bits)  # type: ignore[call-arg]
            n += _ONE  # type: ignore[unreachable]
            bits &= bits - _ONE
    return np.int64(n)


@numba.njit(cache=True, nogil=True)
def _list_candidates(genes, dealt, entries):
    """List every entry whose gene was not dealt."""
    n = 0
    for j in range(len(genes)):
        gene = np.uint64(genes[j])
        if not (dealt[gene >> _SIX] >> (gene & _LOW)) & _ONE:
            entries[n] = j
            n += 1
    return n


@numba.njit(cache=True, nogil=True)
def _bring_forward(entries, first, stop, n, state):
    """Draw the places ``first:stop`` of ``entries[:n]`` from those behind them (Fisher-Yates); return the state."""
    for j in range(first, stop):
        state, number = next_number(state)
        other = j + _below(number, n - j)
        entries[j], entries[other] = entries[other], entries[j]
    return state


@numba.njit(cache=True, nogil=True)
def _bring_counted(entries, first, stop, n, counts, chance, state):
    """Like `_bring_forward`, but with a chance the one of two draws that has the higher count is taken."""
    for j in range(first, stop):
        state, number = next_number(state)
        other = j + _below(number, n - j)
        state, weighed = next_number(state)
        state, number = next_number(state)
        if (weighed >> np.uint64(11)) * 2.0**-53 < chance:
            rival = j + _below(number, n - j)
            if counts[entries[rival]] > counts[entries[other]]:
                other = rival
        entries[j], entries[other] = entries[other], entries[j]
    return state


@numba.njit(cache=True, nogil=True)
def _fill_up(genes, deck, card, dealt, queries, n_query, tokens, n_token):
    """Fill up a cell with few expressed genes from the deck; all that it expresses is shown by now.

    Of ``queries`` (2, q), genes and counts, `n_query` are there, and of ``tokens`` (2, v, l) `n_token` over all views.
    """
    for j in range(len(genes)):
        gene = np.uint64(genes[j])
        dealt[gene >> _SIX] |= _ONE << (gene & _LOW)
    first, views = card, len(tokens[0])
    for place in range(n_query, len(queries[0]) + views * tokens[0].shape[1] - n_token):
        gene = np.uint64(deck[card])
        while (dealt[gene >> _SIX] >> (gene & _LOW)) & _ONE:
            card = card + 1 if card + 1 < len(deck) else 0
            gene = np.uint64(deck[card])
        dealt[gene >> _SIX] |= _ONE << (gene & _LOW)
        if place < len(queries[0]):
            queries[0][place], queries[1][place] = deck[card], 0
        else:
            token = n_token + place - len(queries[0])
            view, at = token % views, token // views
            tokens[0][view, at], tokens[1][view, at] = deck[card], 0
    for j in range(len(genes)):
        dealt[np.uint64(genes[j]) >> _SIX] = 0
    while True:
        dealt[np.uint64(deck[first]) >> _SIX] = 0
        if first == card:
            break
        first = first + 1 if first + 1 < len(deck) else 0


@numba.njit(cache=True, nogil=True)
def _copy(entries, genes, counts, out_genes, out_counts):
    """Copy out the genes and counts of some entries."""
    for j in range(len(entries)):
        entry = np.uint64(entries[j])
        out_genes[j] = genes[entry]
        out_counts[j] = counts[entry]


@numba.njit(cache=True, nogil=True)
def _draw(genes, counts, key, room, count_weight, views, dealt, number_of, card_counts, chosen, entries):
    """Draw queries and tokens among a cell's entries whose genes were not dealt.

    Returns
    -------
    Number of queries, of tokens, and where the tokens begin in `entries`, which begins with the queries. Of two views
    the tokens of the first come first.
    """
    drawn_queries, drawn_tokens = room
    length = len(genes)
    state, number = next_number(key)
    state = _choose(length, drawn_queries + drawn_tokens, state, chosen)
    n_candidates = length - _see(genes, counts, dealt, number_of, chosen, card_counts)
    n_query = _drawn_queries(n_candidates, drawn_tokens, drawn_queries, number)
    n_token = min(n_candidates - n_query, drawn_tokens)
    n_listed = _list_set(chosen, (length + 63) >> 6, entries)
    if count_weight > 0 or n_listed < n_query + n_token:
        n_listed = _list_candidates(genes, dealt, entries)
        state = _bring_forward(entries, 0, n_query, n_listed, state)
        _bring_counted(entries, n_query, n_query + n_token, n_listed, counts, count_weight, state)
        return n_query, n_token, n_query
    # Behind the queries come the entries that are too many.
    first = n_listed - n_token
    _bring_forward(entries, 0, first + (n_token + 1) // 2 if views == 2 else first, n_listed, state)
    return n_query, n_token, first


@numba.njit(cache=True, nogil=True)
def fill(rows, cells, deal, sizes, out):
    """Fill the tokens and queries of cells of one deck; see `lexicell.data.gene_sampler.GeneSampler.sample`.

    Parameters
    ----------
    rows
        (n,) cells of the batch.
    cells
        (b,) begin, (b,) end, genes and counts, as in `SparseRows`.
    deal
        The deck (g,), the first card of each of the cells (n,), and the keys (b,) uint64 of the draws.
    sizes
        Genes of the lexicon, tokens and queries that are dealt, weight of counts.
    out
        The arrays of `GeneSample`.
    """
    row_begin, row_end, genes, counts = cells
    deck, starts, keys = deal
    n_genes, dealt_tokens, dealt_queries, count_weight = sizes
    out_genes, out_counts, out_query_genes, out_query_counts = out
    views, _, tokens = out_genes.shape
    room = (out_query_genes.shape[1] - dealt_queries, views * tokens - dealt_tokens)
    n_dealt = dealt_queries + dealt_tokens
    per_view = dealt_tokens // views
    dealt = np.zeros((n_genes >> 6) + 1, np.uint64)  # a bit a gene
    chosen = np.empty((n_genes >> 6) + 1, np.uint64)  # a bit an entry
    number_of = np.empty(n_genes, np.int32)  # place in the hand, of dealt genes
    entries = np.empty(n_genes + 1, np.int32)
    hand, hand_counts = np.empty(n_dealt, np.int64), np.empty(n_dealt, np.int64)
    for i in range(len(rows)):
        row = rows[i]
        own_genes, own_counts = genes[row_begin[row] : row_end[row]], counts[row_begin[row] : row_end[row]]
        query_genes, query_counts = out_query_genes[row], out_query_counts[row]
        card = starts[i]
        for j in range(n_dealt):
            hand[j], hand_counts[j] = deck[card], 0
            gene = np.uint64(deck[card])
            dealt[gene >> _SIX] |= _ONE << (gene & _LOW)
            number_of[gene] = j
            card = card + 1 if card + 1 < len(deck) else 0
        n_query, n_token, first = _draw(
            own_genes, own_counts, keys[row], room, count_weight, views, dealt, number_of, hand_counts, chosen, entries
        )
        query_genes[:dealt_queries], query_counts[:dealt_queries] = hand[:dealt_queries], hand_counts[:dealt_queries]
        _copy(entries[:n_query], own_genes, own_counts, query_genes[dealt_queries:], query_counts[dealt_queries:])
        for view in range(views):
            token_genes, token_counts = out_genes[view, row], out_counts[view, row]
            for j in range(per_view):
                number = dealt_queries + j * views + view
                token_genes[j], token_counts[j] = hand[number], hand_counts[number]
            last = first + (n_token - view + views - 1) // views
            _copy(entries[first:last], own_genes, own_counts, token_genes[per_view:], token_counts[per_view:])
            first = last
        if n_query + n_token < room[0] + room[1]:
            _fill_up(
                own_genes, deck, card, dealt,
                (query_genes, query_counts), dealt_queries + n_query,
                (out_genes[:, row], out_counts[:, row]), dealt_tokens + n_token,
            )  # fmt: skip
        for j in range(n_dealt):
            dealt[np.uint64(hand[j]) >> _SIX] = 0
