"""Is a gene's neighbourhood more alike within a group of species than between groups, given the phylogeny?

For each gene (a group of genes that stand for one another, one a species) and each pair of species: how alike are the
gene's neighbourhoods? No common coordinates are needed, for a neighbourhood is the gene's similarity to all other
matched genes of its own species. Of that, what is expected at the pair's phylogenetic distance is taken away; then

    contrast = mean over pairs inside the group - mean over pairs of one species inside and one outside,

less its median over genes: a gene that changes its neighbours changes theirs as well, so that twenty convergent genes
lift the contrast of all others a little, and false discovery rates without that step are far too low.

The null distribution comes from relabelling the species. With a tree, only labellings count whose distances, inside and
between, are those of the true one (see `Labellings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.gene_space.leave_one_out import unit_rows
from lexicell.gene_space.multiple_testing import benjamini_hochberg, empirical_p

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

EXACT_UP_TO = 5000  # labellings that are all looked at
_TOLERANCE = 0.05  # relative difference of mean distances that still counts as none
_BLOCK = 1 << 24


def neighbourhood_similarity(points: list[npt.NDArray[np.floating]]) -> tuple[list[tuple[int, int]], Float64]:
    """Return how alike each gene's neighbourhood is in every two species.

    Parameters
    ----------
    points
        For each species an embedding (n_genes, width) of the matched genes in one order; widths may differ.

    Returns
    -------
    pairs
        The pairs of species.
    similarity : ndarray, (n_genes, n_pairs)
        Pearson correlation of the gene's cosines with all other genes, each species' embedding centred first.
    """
    pairs = list(combinations(range(len(points)), 2))
    units = [unit_rows(p - np.mean(p, axis=0)) for p in points]
    n = len(units[0])
    out = np.empty((n, len(pairs)))
    step = max(1, _BLOCK // max(n, 1))
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        profiles = []
        for unit in units:
            profile = (unit[rows] @ unit.T).astype(np.float64)
            profile[np.arange(len(rows)), rows] = np.nan  # a gene is not its own neighbour
            profile -= np.nanmean(profile, axis=1, keepdims=True)
            profile[np.arange(len(rows)), rows] = 0.0
            profiles.append(profile / np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-12))
        for column, (i, j) in enumerate(pairs):
            out[rows, column] = np.einsum("gn,gn->g", profiles[i], profiles[j])
    return pairs, out


def without_distance(similarity: Float64, distance: Float64) -> tuple[Float64, Float64]:
    """Take away what is expected at each pair's phylogenetic distance.

    Parameters
    ----------
    similarity
        (n_genes, n_pairs).
    distance
        (n_pairs,) path length in the tree.

    Returns
    -------
    residual : ndarray, (n_genes, n_pairs)
        The similarity less a line through the pairs' medians over genes.
    line : ndarray, (2,)
        Its slope and intercept; the slope is 0 where all distances are equal.
    """
    medians = np.median(similarity, axis=0)
    flat = np.ptp(distance) <= 1e-12
    line = np.array([0.0, medians.mean()]) if flat else np.polyfit(distance, medians, 1)
    return similarity - np.polyval(line, distance), line


@dataclass(frozen=True, eq=False)
class Labellings:
    """Ways to choose the group among the species.

    Parameters
    ----------
    observed
        (n_species,) whether a species is in the true group.
    others
        (n, n_species) other choices of as many species, as null distribution. Where half of the species are in the
        group, the complement of a choice parts the species in the same way: it is no other labelling.
    possible
        All choices of as many species, the true one among them.
    equivalent
        How many of them have the true one's distances, the true one among them; all without a tree.
    keeps_distances
        Whether `others` keep the tree's distances.
    sampled
        Whether `others` are a random part of all.
    """

    observed: Flags
    others: Flags
    possible: int
    equivalent: int
    keeps_distances: bool
    sampled: bool

    @property
    def least_p(self) -> float:
        """Smallest p-value that permuting labels can give to a single gene."""
        return 1.0 / (1 + len(self.others))


def make_labellings(observed: Flags, distance: Float64 | None, rng: np.random.Generator) -> Labellings:
    """Return the labellings to compare the true one with.

    Parameters
    ----------
    observed
        (n_species,) whether a species is in the group.
    distance
        (n_species, n_species) path lengths in the tree, or None. With it, only labellings count whose mean distance
        inside the group, and mean distance between the groups, are the true one's (within 5%). Where there are none,
        all others count, and the correction by regression alone has to answer for the tree.
    rng
        Draws labellings where there are more than `EXACT_UP_TO`.
    """
    n, inside = len(observed), int(observed.sum())
    possible = comb(n, inside)
    sampled = possible > EXACT_UP_TO
    if sampled:
        drawn = np.argsort(rng.random((EXACT_UP_TO, n)), axis=1)[:, :inside]
        chosen = np.zeros((EXACT_UP_TO, n), bool)
        np.put_along_axis(chosen, drawn, values=True, axis=1)
        chosen = np.unique(chosen, axis=0)
    else:
        chosen = np.zeros((possible, n), bool)
        for row, members in enumerate(combinations(range(n), inside)):
            chosen[row, list(members)] = True
    same = (chosen == observed).all(axis=1)
    mirrored = (chosen != observed).all(axis=1) & (2 * inside == n)
    others = chosen[~same & ~mirrored]
    if 2 * inside == n:  # one of two labellings that part the species alike is enough
        others = others[others[:, np.argmax(observed)]]
    if distance is None:
        return Labellings(observed, others, possible, possible, keeps_distances=False, sampled=sampled)
    target = _mean_distances(observed, distance)
    alike = [np.allclose(_mean_distances(one, distance), target, rtol=_TOLERANCE) for one in others]
    kept = others[np.array(alike, dtype=bool)]
    equivalent = len(kept) + 1
    if not len(kept):
        return Labellings(observed, others, possible, equivalent, keeps_distances=False, sampled=sampled)
    return Labellings(observed, kept, possible, equivalent, keeps_distances=True, sampled=sampled)


def _mean_distances(group: Flags, distance: Float64) -> Float64:
    inside = distance[np.ix_(group, group)]
    n = max(int(group.sum()), 2)
    return np.array([inside.sum() / (n * (n - 1)), distance[np.ix_(group, ~group)].mean()])


def contrast(residual: Float64, pairs: list[tuple[int, int]], group: Flags) -> Float64:
    """Return the mean over pairs inside the group less the mean over pairs with one species outside, (n_genes,)."""
    n_in = np.array([int(group[i]) + int(group[j]) for i, j in pairs])
    return np.asarray(residual[:, n_in == 2].mean(axis=1) - residual[:, n_in == 1].mean(axis=1))


def beyond_all(contrasts: Float64) -> Float64:
    """Return contrasts (n_genes,) less what all genes share: their median."""
    return np.asarray(contrasts - np.median(contrasts))


def contrast_genes(
    replicates: list[list[npt.NDArray[np.floating]]],
    observed: Flags,
    distance: Float64 | None,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, Labellings, Float64]:
    """Contrast every gene between a group of species and the rest.

    Parameters
    ----------
    replicates
        For each replicate (seed, or part of the donors) and species, an embedding of the matched genes.
    observed
        (n_species,) whether a species is in the group; at least two are, and at least one is not.
    distance
        (n_species, n_species) path lengths in the tree; None where no tree is known.
    rng
        Draws labellings where there are too many to look at all.

    Returns
    -------
    genes : DataFrame
        One row a gene: contrast (less the median gene's; mean over replicates), contrast_sd (over replicates; NaN with
        one), positive_share (of replicates); within, between (mean similarity, not corrected); p_labels (share of
        labellings, the true one among them, with at least this contrast: exact for this gene alone, and coarse); p
        (share of the null contrasts of *all* genes: it supposes that genes vary alike) and its fdr.
    labellings : Labellings
        What the null distribution is made of.
    line : ndarray, (2,)
        Slope and intercept of similarity on distance, mean over replicates; 0 and 0 without a tree.
    """
    if observed.sum() < 2 or observed.all():
        raise ValueError("expected at least two species in the group and one outside")
    labellings = make_labellings(observed, distance, rng)
    found, nulls, raw, lines = [], [], [], []
    pairs: list[tuple[int, int]] = []
    for points in replicates:
        pairs, similarity = neighbourhood_similarity(points)
        residual, line = similarity, np.zeros(2)
        if distance is not None:
            residual, line = without_distance(similarity, np.array([distance[pair] for pair in pairs]))
        found.append(beyond_all(contrast(residual, pairs, observed)))
        nulls.append(np.stack([beyond_all(contrast(residual, pairs, one)) for one in labellings.others], axis=1))
        raw.append(similarity)
        lines.append(line)
    each = np.stack(found)
    effect, null = each.mean(axis=0), np.mean(nulls, axis=0)
    n_in = np.array([int(observed[i]) + int(observed[j]) for i, j in pairs])
    mean = np.mean(raw, axis=0)
    p = empirical_p(effect, null.ravel())
    at_least = (null >= effect[:, None] - 1e-12).sum(axis=1)
    table = pd.DataFrame(
        {
            "contrast": effect,
            "contrast_sd": each.std(axis=0, ddof=1) if len(each) > 1 else np.full(len(effect), np.nan),
            "positive_share": (each > 0).mean(axis=0),
            "within": mean[:, n_in == 2].mean(axis=1),
            "between": mean[:, n_in == 1].mean(axis=1),
            "p_labels": (1 + at_least) / (1 + null.shape[1]),
            "p": p,
            "fdr": benjamini_hochberg(p),
        }
    )
    return table, labellings, np.mean(lines, axis=0)
