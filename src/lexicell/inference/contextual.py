"""Contextual gene embeddings: means and variances of a gene's token states over cells, streamed.

A token's state is what the trunk makes of a gene in one cell. Only cells that express the gene count. Every forward
pass gives sums over its tokens, which are merged into running means and sums of squared deviations by the formula of
Chan, Golub & LeVeque (1983): nothing is kept of a cell, so memory does not grow with the number of cells.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from lexicell.data.query import Query
from lexicell.inference.cell_model import CellModel

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class RunningMoments:
    """Running means and variances of vectors, one pair a gene.

    Parameters
    ----------
    n_genes, width
        Size of the table.

    Attributes
    ----------
    n
        (n_genes,) vectors seen.
    mean
        (n_genes, width); 0 where none was seen.
    """

    def __init__(self, n_genes: int, width: int) -> None:
        self.n = np.zeros(n_genes, np.int64)
        self.mean = np.zeros((n_genes, width))
        self._squares = np.zeros((n_genes, width))  # sums of squared deviations from the mean

    @property
    def variance(self) -> Float64:
        """Variance (n_genes, width), divided by n - 1; NaN where fewer than two vectors were seen."""
        known = np.where(self.n > 1, self.n - 1, np.nan)[:, None]
        return np.asarray(self._squares / known)

    def add(self, genes: Int64, vectors: npt.NDArray[np.floating]) -> None:
        """Add vectors (t, width) of genes (t,), in any order, genes repeated or not."""
        if not len(genes):
            return
        order = np.argsort(genes, kind="stable")
        values = vectors[order].astype(np.float64)
        which, first, n = np.unique(genes[order], return_index=True, return_counts=True)
        mean = np.add.reduceat(values, first, axis=0) / n[:, None]
        squares = np.add.reduceat((values - np.repeat(mean, n, axis=0)) ** 2, first, axis=0)
        self._merge(which, n, mean, squares)

    def merge(self, other: RunningMoments) -> None:
        """Add all that another one has seen."""
        seen = np.flatnonzero(other.n)
        self._merge(seen, other.n[seen], other.mean[seen], other._squares[seen])

    def _merge(self, genes: Int64, n: Int64, mean: Float64, squares: Float64) -> None:
        before = self.n[genes]
        share = (n / (before + n))[:, None]
        step = mean - self.mean[genes]
        self.mean[genes] += share * step
        self._squares[genes] += squares + step**2 * share * before[:, None]
        self.n[genes] += n


def token_moments(model: CellModel, parts: Iterable[Query], *, samples: int | None = None) -> RunningMoments:
    """Return the means and variances of every gene's token state over the cells that express it.

    Parameters
    ----------
    model
        A trained model.
    parts
        The cells, from `lexicell.data.query.store_queries`.
    samples
        At most so many gene samples a cell: faster, but not every expressed gene of a cell is seen.

    Returns
    -------
    RunningMoments
        One row a gene of the model's lexicon; ``n`` is the number of states seen.
    """
    moments = RunningMoments(len(model.lexicon), model.width)
    for query in parts:
        for part in model.encoded_samples(query, samples=samples):
            expressed = part.counts > 0
            states = part.encoded.context[:, 1:].float().cpu().numpy()
            moments.add(part.genes[expressed], states[expressed])
    return moments
