"""A linear support vector machine on log-CPM: the winner of a benchmark of 22 classifiers (Abdelaal et al. 2019)."""

from __future__ import annotations

import time

import numpy as np
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from lexicell.evaluation.baselines import Labels, Prediction, labelled_cells, log_cpm


def linear_svm(train: sparse.csr_matrix, labels: Labels, test: sparse.csr_matrix, seed: int = 0) -> Prediction:
    """Fit one-against-rest linear SVMs on log-CPM, genes scaled to unit variance, classes balanced; and predict.

    Parameters
    ----------
    train, test
        Raw counts (cells, genes) with the same genes in the same order.
    labels
        The training cells' labels; cells without one (NaN, None, empty) are left out.
    seed
        Order in which the solver takes the cells.

    Returns
    -------
    Prediction
        Its probabilities are a softmax over the margins: a ranking, not calibrated.
    """
    began = time.perf_counter()
    train, codes, classes = labelled_cells(train, labels, test)
    if len(classes) == 1:
        return Prediction(classes, np.ones((test.shape[0], 1), dtype=np.float32))
    scaler = StandardScaler(with_mean=False)
    model = LinearSVC(C=0.01, class_weight="balanced", random_state=seed, max_iter=5000)
    model.fit(scaler.fit_transform(log_cpm(train)), codes)
    fit_seconds = time.perf_counter() - began
    margins = model.decision_function(scaler.transform(log_cpm(test)))
    if margins.ndim == 1:  # two classes have one margin
        margins = np.stack([-margins, margins], axis=1)
    weights = np.exp(margins - margins.max(axis=1, keepdims=True))
    return Prediction(classes, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), fit_seconds)
