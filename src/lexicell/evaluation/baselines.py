"""The two baselines that every annotation stands beside: logistic regression on log-CPM, and PCA-kNN.

Both take raw counts (cells x genes, CSR) and the training cells' labels, and give class probabilities for the
test cells. Nothing is learned from test cells.

Why these settings: macro-F1 on Baron mouse (mouse1 -> mouse2; and back), Baron human (each donor held out,
pooled) and Zeisel (5 folds; 7 and 47 types), classes balanced, C = 1:

- genes centred (the default): .883, .837, .825, .958, .656; mean accuracy .935
- centred and scaled: .891, .951, .819, .960, .621; mean accuracy .917
- halfway (Pareto scaling): .858, .911, .828, .960, .637; mean accuracy .926

The choice was made on these very test cells, which flatters the baselines a little. The fits stop at
scikit-learn's default tolerance, and stopping early helps: on mouse1 -> mouse2 an uncentred, unbalanced fit with
C = 10 gave .868, but .801 when run to convergence. On uncentred genes, balancing the classes gained .05 on
mouse1 -> mouse2 and .03 on 47 types (2 folds), and cost .01 on human; without centring, the fit on 47 types took
about ten times as long (23 s against 2.5 s).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from lexicell.neighbors import find_neighbors, vote_weights

_CLIP = 10.0
Labels = npt.ArrayLike | pd.Series | pd.Categorical


@dataclass(frozen=True, eq=False)
class Prediction:
    """Class probabilities for cells.

    Attributes
    ----------
    classes
        Class names (n_classes,), sorted.
    probs
        Probabilities (n_cells, n_classes), float32.
    fit_seconds
        Time that was spent on the training cells.
    """

    classes: npt.NDArray[np.object_]
    probs: npt.NDArray[np.float32]
    fit_seconds: float = 0.0

    @property
    def labels(self) -> npt.NDArray[np.object_]:
        """The most probable class of each cell (n_cells,)."""
        best: npt.NDArray[np.object_] = self.classes[self.probs.argmax(axis=1)]
        return best


@dataclass(frozen=True)
class LogisticSettings:
    """How the logistic regression is fitted.

    Attributes
    ----------
    penalty
        scikit-learn's C: the inverse strength of the L2 penalty.
    scaling
        Genes are centred and divided by (standard deviation) ** scaling: 0 leaves them as they are, 1 gives
        all the same weight, 0.5 lies between (Pareto scaling). Values beyond plus and minus 10 are cut.
    balanced
        Weigh classes inversely to their size.
    max_iterations
        Steps of L-BFGS at most.
    max_numbers
        Cells x genes that may be held dense (4 bytes each); with more, the most variable genes that fit are
        used.
    """

    penalty: float = 1.0
    scaling: float = 0.0
    balanced: bool = True
    max_iterations: int = 1000
    max_numbers: int = 400_000_000


@dataclass(frozen=True)
class PcaKnnSettings:
    """How PCA-kNN looks and votes; the vote is the one that lexicell's own label transfer uses.

    Attributes
    ----------
    n_components
        Principal components of log-CPM, fewer where there are fewer cells or genes.
    k
        Neighbours that vote, nearest by cosine.
    """

    n_components: int = 50
    k: int = 10


def log_cpm(counts: sparse.csr_matrix, target: float = 1e4) -> sparse.csr_matrix:
    """Return log(1 + counts per `target`), float32, sparse; a cell without counts stays empty."""
    values = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    depth = np.asarray(values.sum(axis=1)).ravel()
    values.data *= np.repeat(target / np.maximum(depth, 1.0), np.diff(values.indptr))
    np.log1p(values.data, out=values.data)
    return values.astype(np.float32)


def logistic_regression(
    train: sparse.csr_matrix,
    labels: Labels,
    test: sparse.csr_matrix,
    settings: LogisticSettings | None = None,
) -> Prediction:
    """Fit multinomial logistic regression on scaled log-CPM and predict.

    Parameters
    ----------
    train, test
        Raw counts (cells, genes) with the same genes in the same order.
    labels
        The training cells' labels; cells without one (NaN, None, empty) are left out.
    settings
        How it is fitted.
    """
    settings, began = settings or LogisticSettings(), time.perf_counter()
    train, codes, classes = labelled_cells(train, labels, test)
    if len(classes) == 1:
        return Prediction(classes, np.ones((test.shape[0], 1), dtype=np.float32))
    learned = log_cpm(train)
    mean, spread = _moments(learned)
    most = max(1, settings.max_numbers // max(train.shape[0], test.shape[0], 1))
    genes = np.sort(np.argsort(-spread, kind="stable")[: min(most, int((spread > 0).sum()))])
    if not len(genes):
        raise ValueError("counts: no gene varies between the training cells.")
    unit = spread[genes] ** np.float32(settings.scaling)

    def features(logs: sparse.csr_matrix) -> npt.NDArray[np.float32]:
        scaled: npt.NDArray[np.float32] = np.clip((logs[:, genes].toarray() - mean[genes]) / unit, -_CLIP, _CLIP)
        return scaled

    model = LogisticRegression(
        C=settings.penalty,
        class_weight="balanced" if settings.balanced else None,
        max_iter=settings.max_iterations,
    ).fit(features(learned), codes)
    fit_seconds = time.perf_counter() - began
    return Prediction(classes, model.predict_proba(features(log_cpm(test))).astype(np.float32), fit_seconds)


def principal_components(train: sparse.csr_matrix, n_components: int = 50, seed: int = 0) -> PCA:
    """Return principal components fitted on log-CPM of `train`; `transform` takes log-CPM of any cells."""
    n_components = min(n_components, min(train.shape) - 1)
    if n_components < 1:
        raise ValueError(f"counts: the shape {train.shape} is too small for principal components.")
    return PCA(n_components, svd_solver="arpack", random_state=seed).fit(log_cpm(train))


def pca_knn(
    train: sparse.csr_matrix,
    labels: Labels,
    test: sparse.csr_matrix,
    settings: PcaKnnSettings | None = None,
    seed: int = 0,
) -> Prediction:
    """Label `test` by its nearest training cells among the principal components of log-CPM.

    Parameters
    ----------
    train, test
        Raw counts (cells, genes) with the same genes in the same order.
    labels
        The training cells' labels; cells without one (NaN, None, empty) are left out.
    settings
        How neighbours are found.
    seed
        Where the eigenvalue solver starts; it changes rounding only.
    """
    settings, began = settings or PcaKnnSettings(), time.perf_counter()
    train, codes, classes = labelled_cells(train, labels, test)
    space = principal_components(train, settings.n_components, seed)
    learned = space.transform(log_cpm(train)).astype(np.float32)
    fit_seconds = time.perf_counter() - began
    asked = space.transform(log_cpm(test)).astype(np.float32)
    found = find_neighbors(learned, asked, k=min(settings.k, len(learned)))
    weights = vote_weights(found, codes)
    rows = np.arange(len(asked))[:, None] * len(classes)
    votes = np.bincount(
        (rows + codes[found.indices]).ravel(), weights.ravel(), minlength=len(asked) * len(classes)
    ).reshape(len(asked), len(classes))
    return Prediction(classes, (votes / votes.sum(axis=1, keepdims=True)).astype(np.float32), fit_seconds)


def labelled_cells(
    train: sparse.csr_matrix, labels: Labels, test: sparse.csr_matrix
) -> tuple[sparse.csr_matrix, npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Return the labelled training cells, their class codes and the class names.

    Raises
    ------
    ValueError
        When labels or genes do not fit the counts, or no cell is labelled.
    """
    names = np.asarray(labels).astype(object)
    if names.shape != (train.shape[0],):
        raise ValueError(f"labels: expected one a training cell ({train.shape[0]}), got {names.shape}.")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"counts: {train.shape[1]} genes to train on, but {test.shape[1]} to test on.")
    known = ~(pd.isna(names) | (names == ""))
    if not known.any():
        raise ValueError("labels: no training cell has one.")
    classes, codes = np.unique(names[known].astype(str), return_inverse=True)
    return sparse.csr_matrix(train)[known], codes.astype(np.int64), classes.astype(object)


def _moments(
    values: sparse.csr_matrix,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return every column's mean and standard deviation."""
    mean = np.asarray(values.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(values.multiply(values).mean(axis=0, dtype=np.float64)).ravel()
    variance = square - mean**2
    variance[variance < 1e-6 * square] = 0.0  # what float32 squares leave of a constant gene
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 0)).astype(np.float32)
