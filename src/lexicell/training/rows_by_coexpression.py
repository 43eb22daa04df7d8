"""New genes of a species that the model knows: placed among old genes that the same cells measured.

Whether two genes of one species go together shows in any cells that measured both; no other species and no old cell is
needed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix

from lexicell.gene_space.cell_groups import principal_components
from lexicell.gene_space.coupled_genes import MatchedGenes
from lexicell.gene_space.coupling import softmin
from lexicell.neighbors import find_neighbors

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def match_by_coexpression(expression: csc_matrix, anchors: Int64, *, k: int = 15, seed: int = 0) -> MatchedGenes:
    """Match all genes with those anchors that follow the same principal components of the cells.

    Parameters
    ----------
    expression
        log(1 + counts per 10,000), (n_cells, n_genes).
    anchors
        (n_anchors,) places of the genes that are known.
    k
        Anchors to keep for each gene.
    seed
        Of the principal components.

    Returns
    -------
    MatchedGenes
        Of all genes; its ``genes`` are places in `anchors`. ``cost`` is the squared distance of two genes' correlations
        with the components, in units of its mean over each gene's anchors kept.
    """
    loadings = correlations(expression, seed)
    found = find_neighbors(loadings[anchors], loadings, k=min(k, len(anchors)), metric="euclidean")
    squared = found.distances.astype(np.float32) ** 2
    cost = squared / np.maximum(squared.mean(axis=1, keepdims=True), 1e-12)
    return MatchedGenes(found.indices, softmin(cost, axis=1), cost)


def correlations(expression: csc_matrix, seed: int) -> Float32:
    """Return each gene's correlation with the cells' principal components, (n_genes, n)."""
    components = principal_components(expression, seed)
    components = components - components.mean(axis=0)
    components /= np.maximum(components.std(axis=0), 1e-9)
    n_cells = len(components)
    mean = np.asarray(expression.mean(axis=0)).ravel()
    variance = np.asarray(expression.multiply(expression).mean(axis=0)).ravel() - mean**2
    spread = np.sqrt(np.maximum(variance, 1e-6))
    found: Float32 = (np.asarray(expression.T @ components) / n_cells / spread[:, None]).astype(np.float32)
    return found
