"""What is done to a gene embedding before genes are compared in it, and embeddings to compare it with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix
from sklearn.decomposition import PCA

from lexicell.gene_space.leave_one_out import unit_rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CLIP = 10.0  # standard deviations, as in a usual PCA of scaled log-CPM


def centred(points: npt.NDArray[np.floating]) -> Float64:
    """Return the embedding less its mean over genes."""
    values: Float64 = np.asarray(points, dtype=np.float64)
    return np.asarray(values - values.mean(axis=0))


def without_level(points: npt.NDArray[np.floating], level: npt.NDArray[np.floating], degree: int = 3) -> Float64:
    """Return the embedding without what a polynomial of the expression level tells of it.

    Every dimension is regressed on the powers of the level's ranks up to `degree`; the residuals are returned.
    """
    ranks = np.argsort(np.argsort(level, kind="stable"), kind="stable") / max(len(level) - 1, 1) - 0.5
    powers = np.stack([ranks**d for d in range(degree + 1)], axis=1)
    basis = np.linalg.qr(powers)[0]
    values: Float64 = np.asarray(points, dtype=np.float64)
    return values - basis @ (basis.T @ values)


def whitened(points: npt.NDArray[np.floating], strength: float = 1.0) -> Float64:
    """Return the centred principal components divided by their standard deviation to the power `strength`.

    1 gives all directions the same weight, 0 changes no cosine; directions without variance are dropped.
    """
    values = centred(points)
    left, scale, _ = np.linalg.svd(values, full_matrices=False)
    keep = scale > 1e-6 * scale.max(initial=0.0)
    return np.asarray(left[:, keep] * scale[keep] ** (1 - strength))


def half_whitened(points: npt.NDArray[np.floating]) -> Float64:
    """Return the embedding whitened by half, in which cosines between genes tell most.

    Trained tables put up to half of their variance into one direction, which then decides every cosine; with full
    whitening noise decides. What it gains is in LOG.md.
    """
    return whitened(points, 0.5)


def side_by_side(*tables: npt.NDArray[np.floating]) -> Float32:
    """Return embeddings beside one another, each centred and of unit rows, so that cosines are averaged."""
    return np.concatenate([unit_rows(centred(table)) for table in tables], axis=1)


def standardised(expression: csc_matrix, measured: npt.NDArray[np.bool_] | None = None) -> Float32:
    """Return genes as rows: log-CPM centred and scaled over the cells that measured the gene, 0 in the others.

    Parameters
    ----------
    expression
        (n_cells, n_genes) log(1 + counts per 10,000).
    measured
        (n_cells, n_genes) whether the cell's panel holds the gene; all of them when None.
    """
    dense = np.asarray(expression.todense(), dtype=np.float32).T
    known = np.ones_like(dense, dtype=bool) if measured is None else measured.T
    n_known = np.maximum(known.sum(axis=1, keepdims=True), 1)
    dense -= np.where(known, dense, 0).sum(axis=1, keepdims=True) / n_known
    dense[~known] = 0
    dense /= np.maximum(np.sqrt((dense**2).sum(axis=1, keepdims=True) / n_known), 1e-2)
    return np.clip(dense, -CLIP, CLIP)


def pca_loadings(scaled: npt.NDArray[np.floating], n_components: int = 50, seed: int = 0) -> Float64:
    """Return gene loadings on the principal components of cells, scaled by what the components explain.

    Parameters
    ----------
    scaled
        (n_genes, n_cells) from `standardised`.
    n_components
        Components; fewer where there are fewer cells or genes.
    seed
        Of the randomised solver.
    """
    n = max(1, min(n_components, min(scaled.shape) - 1))
    pca = PCA(n, svd_solver="randomized", random_state=seed).fit(scaled.T)
    return np.asarray(pca.components_.T * np.sqrt(pca.explained_variance_))
