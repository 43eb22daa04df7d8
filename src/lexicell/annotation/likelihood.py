"""Labels by how likely a cell's raw counts are in each type, down the label tree.

A type is a multinomial over genes: the shares of its cells' counts, mixed with those of all cells as if one cell of
mean depth had been drawn from these (a naive Bayes classifier for counts, McCallum & Nigam 1998). It takes a shallow
cell for what it is, little evidence, where log counts per 10,000 make one molecule look like strong expression. Genes
vary more than a multinomial allows, so that its log likelihood is divided by the root of the cell's depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse

from lexicell.annotation.linear import Float32, Int64, log_softmax_among_siblings
from lexicell.labels import LabelTree

_PRIOR_CELLS = 1.0


@dataclass(frozen=True, eq=False)
class LikelihoodTree:
    """Shares of counts in every finest type.

    Attributes
    ----------
    tree
        The label tree.
    paths
        (n_types, n_levels) label of each type on every level; -1 where its cells had no finer label.
    log_shares
        (n_types, n_genes), float32.
    """

    tree: LabelTree
    paths: Int64
    log_shares: Float32

    @classmethod
    def fit(cls, counts: sparse.csr_matrix, codes: Int64, tree: LabelTree) -> Self:
        """Learn from labelled cells.

        Parameters
        ----------
        counts
            Raw counts (n_cells, n_genes), CSR.
        codes
            Labels (n_cells, n_levels) as `LabelTree.encode` gives them; -1 is missing. A cell stands for its deepest
            label.
        tree
            The label tree.
        """
        known = np.flatnonzero(np.asarray(codes)[:, 0] >= 0)
        counts = sparse.csr_matrix(counts)[known]
        paths, kind = np.unique(np.asarray(codes)[known], axis=0, return_inverse=True)
        shape = (len(paths), len(known))
        member = sparse.csr_matrix((np.ones(len(known)), (kind.reshape(-1), np.arange(len(known)))), shape)
        seen = (member @ counts.astype(np.float64)).toarray()
        everywhere = seen.sum(axis=0)
        depth = max(everywhere.sum() / len(known), 1.0)
        prior = (everywhere + 1 / counts.shape[1]) / (everywhere.sum() + 1)
        shares = (seen + _PRIOR_CELLS * depth * prior) / (seen.sum(axis=1, keepdims=True) + _PRIOR_CELLS * depth)
        return cls(tree, paths.astype(np.int64), np.log(shares).astype(np.float32))

    def log_conditionals(self, counts: sparse.csr_matrix) -> list[Float32]:
        """Return log P(label | parent), one table (n_cells, n_labels) a level; -inf for labels without a cell."""
        depth = np.asarray(counts.sum(axis=1), dtype=np.float64).reshape(-1, 1)
        likely = np.asarray(sparse.csr_matrix(counts, dtype=np.float32) @ self.log_shares.T)
        likely = (likely - likely.max(axis=1, keepdims=True)) / np.sqrt(np.maximum(depth, 1.0))
        tables = []
        for place, size in enumerate(self.tree.sizes):
            scores = np.full((len(likely), size), -np.inf, dtype=np.float32)
            label = self.paths[:, place]
            order = np.argsort(label, kind="stable")[(label < 0).sum() :]
            if len(order):
                starts = np.flatnonzero(np.diff(label[order], prepend=-1))
                scores[:, label[order][starts]] = np.maximum.reduceat(likely[:, order], starts, axis=1)
            tables.append(log_softmax_among_siblings(self.tree, place, scores))
        return tables
