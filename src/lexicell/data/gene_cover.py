"""Gene samples for inference: as in training, but together they show every expressed gene of a cell.

A cell may express thousands of genes while training saw some hundreds at a time. Its expressed genes are dealt into
as few samples as hold them, filled up with silent genes to the length and share that training saw. The samples
depend on the cell's own genes and counts alone: not on the batch, the order of cells, or the order of genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from lexicell.data.gene_sampler import SparseRows
from lexicell.errors import InputError
from lexicell.randomness import permutation

Int64 = npt.NDArray[np.int64]
_COVER_SEED = 0x1E81CE11


@dataclass(frozen=True)
class CoverSamples:
    """Samples of some cells; those of one cell follow one another."""

    genes: Int64  # (n_samples, tokens) lexicon indices
    counts: Int64  # (n_samples, tokens) raw counts
    cell: Int64  # (n_samples,) row of the cell each sample belongs to


class GeneCover:
    """Deals cells' expressed genes into samples of a fixed length.

    Parameters
    ----------
    panel
        Lexicon indices of the genes that the cells' file measured.
    n_genes
        Size of the lexicon.
    tokens
        Genes in a sample; all of the panel when it is smaller.
    silent_share
        Least share of a sample that shows silent genes, as training's deck does.
    max_samples
        At most so many samples a cell (None: as many as it takes); a faster, poorer embedding.
    """

    def __init__(
        self, panel: Int64, n_genes: int, tokens: int, silent_share: float, max_samples: int | None = None
    ) -> None:
        if max_samples is not None and max_samples < 1:
            raise InputError(f"samples: expected at least 1 gene sample a cell, got {max_samples}.")
        self.tokens = min(tokens, len(panel))
        self.room = self.tokens if self.tokens == len(panel) else max(1, round(self.tokens * (1 - silent_share)))
        self.max_samples = max_samples
        self._deck = np.sort(panel)[permutation(_COVER_SEED, n=len(panel))]
        self._n_genes = n_genes

    def n_samples(self, n_expressed: Int64) -> Int64:
        """Return how many samples cells with so many expressed genes get."""
        needed = np.maximum(1, -(-n_expressed // self.room))
        return needed if self.max_samples is None else np.minimum(needed, self.max_samples)

    def deal(self, rows: SparseRows) -> CoverSamples:
        """Deal the expressed genes of some cells."""
        per_cell = self.n_samples(rows.end - rows.begin)
        first = np.concatenate([[0], np.cumsum(per_cell)])
        genes = np.empty((first[-1], self.tokens), np.int64)
        counts = np.empty_like(genes)
        _deal(
            rows.begin,
            rows.end,
            rows.genes,
            rows.counts,
            self._deck,
            first,
            self.room,
            self._n_genes,
            genes,
            counts,
        )
        return CoverSamples(genes, counts, np.repeat(np.arange(len(per_cell)), per_cell))


@numba.njit(cache=True, nogil=True)
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _deal(begin, end, genes, counts, deck, first, room, n_genes, out_genes, out_counts):
    """Fill every cell's samples: a content-keyed shuffle of its expressed genes, cut into equal parts."""
    expressed = np.zeros(n_genes, np.bool_)
    tokens = out_genes.shape[1]
    for row in range(len(begin)):
        b, e = begin[row], end[row]
        content = np.uint64(0)
        for j in range(b, e):  # a sum, so that the order of genes does not matter
            content += _mix(np.uint64(genes[j]) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(counts[j]))
            expressed[genes[j]] = True
        keys = np.empty(e - b, np.uint64)
        for j in range(b, e):
            keys[j - b] = _mix(content + np.uint64(genes[j]) * np.uint64(0x9E3779B97F4A7C15))
        shuffled = b + np.argsort(keys)
        samples = first[row + 1] - first[row]
        card = np.int64(content % np.uint64(len(deck)))
        for s in range(samples):
            start = s * (e - b) // samples
            n_shown = min((s + 1) * (e - b) // samples - start, room)
            for t in range(n_shown):
                out_genes[first[row] + s, t] = genes[shuffled[start + t]]
                out_counts[first[row] + s, t] = counts[shuffled[start + t]]
            silent_left = len(deck) - (e - b)
            for t in range(n_shown, tokens):
                if t - n_shown < silent_left:
                    while expressed[deck[card % len(deck)]]:
                        card += 1
                    out_genes[first[row] + s, t] = deck[card % len(deck)]
                    out_counts[first[row] + s, t] = 0
                    card += 1
                else:  # hardly a silent gene left: go on with the expressed genes of the next sample
                    again = shuffled[(start + t - silent_left) % (e - b)]
                    out_genes[first[row] + s, t] = genes[again]
                    out_counts[first[row] + s, t] = counts[again]
        for j in range(b, e):
            expressed[genes[j]] = False
