"""Labels by likeness to the mean profile of each type, down the label tree.

At each parent, markers are the genes that tell its children apart; a cell's likeness to a child is its highest
correlation with a finest type below that child. This is what MapMyCells votes with (Yao et al. 2023), as a
probability and without its many rounds. It learns little from many cells but much from few, where a linear
classifier overfits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lexicell.annotation.linear import Float32, Int64, log_softmax_among_siblings
from lexicell.centroids import ClassProfiles, correlations, log2_cpm, marker_genes
from lexicell.labels import LabelTree
from lexicell.randomness import generator

SHARPNESS = 100.0  # log-odds for a correlation of 1 against 0; experts' weights and temperatures scale it


@dataclass(frozen=True, eq=False)
class _Family:
    """The children of one parent: markers, profiles of the finest types over them, and each type's child."""

    markers: Int64
    profiles: Float32
    child: Int64


@dataclass(frozen=True, eq=False)
class CentroidTree:
    """Mean profiles at every parent of a label tree.

    Attributes
    ----------
    tree
        The label tree.
    families
        Per level, per parent with several children.
    learned
        Per level, whether a label had a cell to learn from (n_labels,).
    """

    tree: LabelTree
    families: tuple[dict[int, _Family], ...]
    learned: tuple[npt.NDArray[np.bool_], ...]

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
        codes = np.asarray(codes)
        expression = log2_cpm(counts)
        families: list[dict[int, _Family]] = []
        learned = []
        for place, size in enumerate(tree.sizes):
            known = codes[:, place] >= 0
            if place:
                known &= codes[:, place - 1] >= 0
            # The finest types below this level's labels; a cell without a finer label is one of a type of its own.
            paths, kind = np.unique(codes[known][:, place:], axis=0, return_inverse=True)
            profiles = ClassProfiles.of(expression[np.flatnonzero(known)], kind.reshape(-1), len(paths))
            above = tree.parents[place][paths[:, 0]] if place else np.zeros(len(paths), dtype=np.int64)
            level = {}
            for parent in np.unique(above):
                types = np.flatnonzero(above == parent)
                child = paths[types, 0]
                if len(np.unique(child)) > 1:
                    rng = generator(0, "centroids", place, int(parent))
                    markers = marker_genes(profiles.take(types), child, rng=rng)
                    level[int(parent)] = _Family(markers, profiles.mean[types][:, markers], child)
            families.append(level)
            learned.append(np.bincount(codes[known, place], minlength=size) > 0)
        return cls(tree, tuple(families), tuple(learned))

    def log_conditionals(self, counts: sparse.csr_matrix) -> list[Float32]:
        """Return log P(label | parent), one table (n_cells, n_labels) a level; -inf for labels without a cell."""
        expression = log2_cpm(counts)
        tables = []
        for place, level in enumerate(self.families):
            scores = np.zeros((counts.shape[0], self.tree.sizes[place]), dtype=np.float32)
            for family in level.values():
                alike = SHARPNESS * correlations(expression[:, family.markers].toarray(), family.profiles)
                for child in np.unique(family.child):
                    scores[:, child] = alike[:, family.child == child].max(axis=1)
            scores[:, ~self.learned[place]] = -np.inf
            tables.append(log_softmax_among_siblings(self.tree, place, scores))
        return tables
