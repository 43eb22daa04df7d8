"""Cells of one species in groups: what is compared when species are coupled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix, csr_matrix
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_FLOOR = 0.05  # added to a mean before its logarithm: differences far below it are noise
_HIGHLY_VARIABLE = 2000
_COMPONENTS = 30
_CLIP = 10.0


@dataclass(frozen=True, eq=False)
class GroupedCells:
    """One species' cells in groups."""

    group: Int64  # (n_cells,)
    share: Float32  # (n_groups,) weight of a group: root of its share of cells, summing to 1
    logs: Float32  # (n_groups, n_genes) log of mean log-CPM
    ranks: Float32  # (n_genes, n_features) expression profile


def principal_components(expression: csc_matrix, seed: int) -> Float64:
    """Return principal components of the highly variable genes of log-CPM, (n_cells, n)."""
    mean = np.asarray(expression.mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(np.asarray(expression.multiply(expression).mean(axis=0)).ravel() - mean**2, 0))
    # Against genes of like mean: log-CPM spreads most where the mean is middling, whatever the gene.
    order = np.argsort(mean, kind="stable")
    window = max(1, min(101, len(order) // 4))
    usual = np.empty_like(spread)
    usual[order] = np.convolve(np.pad(spread[order], window // 2, mode="edge"), np.ones(window) / window)[
        window - 1 : window - 1 + len(order)
    ]
    score = np.where(mean > min(0.02, float(np.median(mean))), spread / np.maximum(usual, 1e-3), 0)
    chosen = np.sort(np.argsort(-score, kind="stable")[:_HIGHLY_VARIABLE])
    dense = np.asarray(expression[:, chosen].todense(), np.float64)
    dense = np.clip((dense - dense.mean(axis=0)) / np.maximum(dense.std(axis=0), 0.2), -_CLIP, _CLIP)
    n = min(_COMPONENTS, *(size - 1 for size in dense.shape))
    components: Float64 = PCA(n, svd_solver="randomized", random_state=seed).fit_transform(dense)
    return components


def group_cells(expression: csc_matrix, components: Float64, ranks: Float64, n_groups: int, seed: int) -> GroupedCells:
    """Group cells by k-means on principal components.

    Parameters
    ----------
    expression
        log(1 + counts per 10,000), (n_cells, n_genes).
    components
        What `principal_components` gives for it.
    ranks
        What `expression_profile` gives for it.
    n_groups
        Groups; fewer where there are fewer than 10 cells for each.
    seed
        Names the groups.
    """
    n = max(2, min(n_groups, len(components) // 10))
    group = KMeans(n, n_init=3, random_state=seed).fit_predict(components)
    group = np.unique(group, return_inverse=True)[1].astype(np.int64)
    size = np.bincount(group)
    member = csr_matrix((1 / size[group], (group, np.arange(len(group)))), shape=(len(size), len(group)))
    logs = np.log(np.asarray((member @ expression).todense()) + _FLOOR)
    share = np.sqrt(size / size.sum())
    return GroupedCells(
        group, (share / share.sum()).astype(np.float32), logs.astype(np.float32), ranks.astype(np.float32)
    )
