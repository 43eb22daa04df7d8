"""Which genes change company between two groups of cells? Displacement and neighbourhood overlap, with a null.

Each group comes as several parts, such as its donors or random quarters of its cells, with an embedding of the genes
from each. A gene's displacement *between* the groups is compared with that *within* them, part by part, so that
noise and donors weigh on both alike. The null distribution is the same comparison inside a group: two of its parts
against two others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.gene_space.coherence import expression_bins
from lexicell.gene_space.leave_one_out import unit_rows
from lexicell.gene_space.multiple_testing import benjamini_hochberg, empirical_p
from lexicell.neighbors import find_neighbors

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Points = npt.NDArray[np.floating]

_STABLE = 0.5  # share of the genes, those that move least, on which two embeddings are laid upon each other
_ROUNDS = 3
_NULL_BINS = 5  # of how well a gene was seen
PARTS = 4
PERSISTENCE = 0.9


def orthogonal_map(a: Points, b: Points, rounds: int = _ROUNDS) -> Float64:
    """Return the rotation (width, width) that lays `a` upon `b`, both (n_genes, width), by stable genes.

    Orthogonal Procrustes on all genes first; then again on the half that it moves least, `rounds` times in all.
    """
    use = np.arange(len(a))
    rotation = np.eye(a.shape[1])
    for _ in range(rounds):
        left, _, right = np.linalg.svd(a[use].T @ b[use])
        rotation = left @ right
        gap = np.linalg.norm(a @ rotation - b, axis=1)
        use = np.argsort(gap, kind="stable")[: max(2, int(_STABLE * len(a)))]
    return rotation


def displacement(a: Points, b: Points) -> Float64:
    """Return one minus each gene's cosine between two embeddings, centred and laid upon each other, (n_genes,)."""
    x, y = (unit_rows(p - p.mean(axis=0)).astype(np.float64) for p in (a, b))
    moved = x @ orthogonal_map(x, y)
    return np.asarray(1.0 - np.einsum("gd,gd->g", moved, y))


def jaccard(a: Int64, b: Int64) -> Float64:
    """Return the Jaccard index of neighbour lists, both (n_genes, k)."""
    shared = (a[:, :, None] == b[:, None, :]).sum(axis=(1, 2))
    return np.asarray(shared / (2 * a.shape[1] - shared))


def rank_biased_overlap(a: Int64, b: Int64, persistence: float = PERSISTENCE) -> Float64:
    """Return the rank-biased overlap of neighbour lists, both (n_genes, k), nearest first (Webber et al. 2010).

    The mean over depths d of the shared share of the first d, weighted by ``persistence ** d`` and scaled so that
    equal lists get 1 (the lists end at k).
    """
    k = a.shape[1]
    place = np.where(a[:, :, None] == b[:, None, :], np.maximum(np.arange(k)[:, None], np.arange(k)[None, :]), k)
    depth = place.min(axis=2)  # where each gene of `a` is in both lists for the first time; k: never
    total, weights = np.zeros(len(a)), 0.0
    for d in range(1, k + 1):
        total += persistence**d * (depth < d).sum(axis=1) / d
        weights += persistence**d
    return total / weights


def compare_groups(
    a: Sequence[Points], b: Sequence[Points], n_seen: Int64, k: int = 20
) -> tuple[pd.DataFrame, dict[str, Float64]]:
    """Compare the genes of two groups.

    Parameters
    ----------
    a, b
        An embedding (n_genes, width) of the same genes from each of `PARTS` parts of either group.
    n_seen
        (n_genes,) how often a gene was seen in the part that saw it least: null values are pooled among genes
        that were seen about as often.
    k
        Neighbours.

    Returns
    -------
    table : DataFrame
        One row a gene. For ``displacement``, ``rbo`` and ``jaccard``: NAME_between and NAME_within (means over
        pairs of parts), NAME_effect (how much further, or how much less overlap, between than within),
        NAME_excess (the effect less the median of genes seen as often, divided by their median absolute
        deviation: it ranks genes where all of them move a little), NAME_p and NAME_fdr.
    null : dict
        The effects inside the groups, by name.
    """
    if len(a) != PARTS or len(b) != PARTS:
        raise ValueError(f"expected {PARTS} parts of either group, got {len(a)} and {len(b)}")
    parts = [np.asarray(p, dtype=np.float64) for p in (*a, *b)]
    lists = [find_neighbors(p - p.mean(axis=0), k=min(k, len(p) - 1)).indices for p in parts]
    measures: dict[str, Callable[[int, int], Float64]] = {
        "displacement": lambda i, j: displacement(parts[i], parts[j]),
        "rbo": lambda i, j: -rank_biased_overlap(lists[i], lists[j]),
        "jaccard": lambda i, j: -jaccard(lists[i], lists[j]),
    }
    group_a, group_b = list(range(PARTS)), list(range(PARTS, 2 * PARTS))
    bins = expression_bins(n_seen, _NULL_BINS)
    columns: dict[str, Float64] = {}
    nulls: dict[str, Float64] = {}
    for name, measure in measures.items():
        far = {pair: measure(*pair) for pair in combinations(range(2 * PARTS), 2)}
        between, within = _means(far, group_a, group_b)
        effect = between - within
        null = np.stack(
            [
                np.subtract(*_means(far, [group[0], other], [g for g in group[1:] if g != other]))
                for group in (group_a, group_b)
                for other in group[1:]
            ]
        )
        sign = 1.0 if name == "displacement" else -1.0
        p, excess = np.empty(len(effect)), np.empty(len(effect))
        for b_ in range(int(bins.max(initial=0)) + 1):
            own = bins == b_
            p[own] = empirical_p(effect[own], null[:, own].ravel())
            middle = np.median(effect[own])
            excess[own] = (effect[own] - middle) / max(float(np.median(np.abs(effect[own] - middle))), 1e-9)
        columns |= {f"{name}_between": sign * between, f"{name}_within": sign * within, f"{name}_effect": effect}
        columns |= {f"{name}_excess": excess, f"{name}_p": p, f"{name}_fdr": benjamini_hochberg(p)}
        nulls[name] = null
    return pd.DataFrame(columns), nulls


def _means(far: dict[tuple[int, int], Float64], a: Sequence[int], b: Sequence[int]) -> tuple[Float64, Float64]:
    """Return the mean over pairs of parts between the groups, and within them."""
    between = np.mean([far[min(i, j), max(i, j)] for i in a for j in b], axis=0)
    within = np.mean([far[pair] for group in (a, b) for pair in combinations(sorted(group), 2)], axis=0)
    return between, within


def split_parts(
    donors: npt.NDArray[np.object_] | None, n_cells: int, rng: np.random.Generator, n_parts: int = PARTS
) -> Int64:
    """Return the part of each cell, (n_cells,).

    With `n_parts` donors or more, whole donors go to the part that has fewest cells, large ones first; with fewer, a
    donor's cells are dealt into parts of its own in turn; where no donor is known, cells are dealt at random.
    """
    names = np.full(n_cells, "") if donors is None else np.array([str(d) for d in donors])
    found, codes, sizes = np.unique(names, return_inverse=True, return_counts=True)
    parts = np.empty(n_cells, np.int64)
    if len(found) >= n_parts:
        load = np.zeros(n_parts, np.int64)
        for donor in np.argsort(-sizes, kind="stable"):
            lightest = int(np.argmin(load))
            parts[codes == donor] = lightest
            load[lightest] += sizes[donor]
        return parts
    share = np.array_split(np.arange(n_parts), len(found))
    for donor, own in enumerate(share):
        cells = np.flatnonzero(codes == donor)
        parts[rng.permutation(cells)] = own[np.arange(len(cells)) % len(own)]
    return parts
