"""Which labelled cells are held out together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lexicell.randomness import generator

MOST_FOLDS = 5
_KNOWN_DONORS = 0.5  # share of the cells whose donor must be known for donors to be held out
Int64 = npt.NDArray[np.int64]


def reference_folds(
    donors: npt.NDArray[np.object_] | None, codes: Int64, seed: int = 0, most: int = MOST_FOLDS
) -> tuple[list[Int64], bool]:
    """Return up to `most` groups of cells to hold out in turn, and whether they are whole donors.

    Donors are dealt to folds by size; cells of an unknown donor are in no fold, and so always learned from. Where fewer
    than two donors are known, or those of fewer than half of the cells, labelled cells are dealt at random within each
    label: good enough for temperatures, but it says nothing of a new donor.
    """
    n_cells = len(codes)
    if donors is not None:
        known = np.flatnonzero([donor is not None for donor in donors])
        names, place, sizes = np.unique(donors[known].astype(str), return_inverse=True, return_counts=True)
        if len(names) > 1 and len(known) >= _KNOWN_DONORS * n_cells:
            n_folds = min(most, len(names))
            load, fold = np.zeros(n_folds), np.zeros(len(names), dtype=np.int64)
            for donor in np.argsort(-sizes, kind="stable"):
                fold[donor] = load.argmin()
                load[fold[donor]] += sizes[donor]
            return [known[fold[place] == i] for i in range(n_folds)], True
    depth = (codes >= 0).cumprod(axis=1).sum(axis=1)
    deepest = codes[np.arange(n_cells), np.maximum(depth - 1, 0)]
    shuffled = generator(seed, "folds of the reference").permutation(n_cells)
    order = shuffled[np.lexsort((deepest[shuffled], depth[shuffled]))]
    return [np.sort(order[i::most]) for i in range(min(most, n_cells))], False
