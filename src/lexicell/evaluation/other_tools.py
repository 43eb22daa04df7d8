"""Annotation tools of others as competitors: CellTypist and scANVI. Both are extras, imported when they are used.

Settings are the tools' own defaults for the case, said beside each.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from lexicell.errors import InputError
from lexicell.evaluation.baselines import Labels, Prediction, labelled_cells, log_cpm

UNLABELLED = "(unlabelled)"
SCANVI_GENES = 2_000  # most variable genes, as scvi-tools' tutorials take them
SCANVI_EPOCHS = 100
SCANVI_PER_LABEL = 100  # labelled cells of a label that an epoch sees, at most


def celltypist(train: sparse.csr_matrix, labels: Labels, test: sparse.csr_matrix) -> Prediction:
    """Label cells with CellTypist (Dominguez Conde et al. 2022), trained on the reference.

    Log-CPM per 10,000, all genes, logistic regression at its defaults (C = 1), best match, no majority voting.

    Raises
    ------
    InputError
        When CellTypist is not installed, or scikit-learn is too new for it.
    """
    with _quiet():  # it asks the network for news when it is imported
        module = _extra("celltypist", "celltypist")
    train, codes, classes = labelled_cells(train, labels, test)
    if len(classes) == 1:
        return Prediction(classes, np.ones((test.shape[0], 1), dtype=np.float32))
    genes = pd.Index([f"gene{i}" for i in range(train.shape[1])])
    reference = AnnData(log_cpm(train), obs=pd.DataFrame({"label": classes[codes]}, dtype="category"))
    query = AnnData(log_cpm(test))
    reference.var_names = query.var_names = genes
    reference.obs_names, query.obs_names = map(_names, (train.shape[0], test.shape[0]))
    with _quiet("celltypist"):
        began = time.perf_counter()
        try:
            model = module.train(reference, labels="label")
        except TypeError as error:  # scikit-learn 1.8 took away an option that CellTypist 1.7 sets
            raise InputError(f"CellTypist does not run here ({error}): pip install 'lexicell[benchmark]'") from None
        fit_seconds = time.perf_counter() - began
        found = module.annotate(query, model=model, majority_voting=False)
    table = found.probability_matrix
    # One against rest: each class has its own probability, which need not add up to one.
    probs = table.to_numpy(np.float32)
    probs /= np.maximum(probs.sum(axis=1, keepdims=True), 1e-12)
    return Prediction(table.columns.to_numpy(dtype=object), probs, fit_seconds)


def scanvi(
    train: sparse.csr_matrix,
    labels: Labels,
    test: sparse.csr_matrix,
    train_groups: Labels | None = None,
    seed: int = 0,
) -> Prediction:
    """Label cells with scANVI (Xu et al. 2021), trained on the reference and the unlabelled query together.

    The 2,000 genes most variable in the reference's log-CPM; two layers, 30 dimensions, negative binomial counts as
    in the tools' integration tutorials; scVI for 100 epochs at most, then scANVI for 20; donors, and the query, are
    batches.

    Parameters
    ----------
    train_groups
        Donor or batch of the training cells.

    Raises
    ------
    InputError
        When scvi-tools is not installed.
    """
    scvi = _extra("scvi", "scvi-tools")
    names = np.asarray(labels).astype(object)
    known = ~(pd.isna(names) | (names == ""))
    expression = log_cpm(train)
    mean = np.asarray(expression.mean(axis=0)).ravel()
    spread = np.asarray(expression.multiply(expression).mean(axis=0)).ravel() - mean**2
    genes = np.sort(np.argsort(-spread, kind="stable")[:SCANVI_GENES])
    counts = sparse.vstack([train[:, genes], test[:, genes]], format="csr").astype(np.float32)
    groups = np.array(["reference"] * train.shape[0]) if train_groups is None else np.asarray(train_groups).astype(str)
    obs = pd.DataFrame(
        {
            "label": np.concatenate([np.where(known, names, UNLABELLED), np.full(test.shape[0], UNLABELLED)]),
            "batch": np.concatenate([groups, np.full(test.shape[0], "query")]),
        },
        index=_names(counts.shape[0]),
    ).astype("category")
    adata = AnnData(counts, obs=obs)
    scvi.settings.seed = seed
    with _quiet("scvi", "lightning.pytorch"):
        began = time.perf_counter()
        scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="label")
        base = scvi.model.SCVI(adata, n_layers=2, n_latent=30, gene_likelihood="nb")
        base.train(max_epochs=SCANVI_EPOCHS, early_stopping=True, enable_progress_bar=False, accelerator="cpu")
        model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category=UNLABELLED, labels_key="label")
        # Its classifier cannot learn from a batch of one cell: the last, short one is left out where there are others.
        labelled = int(pd.Series(names[known]).value_counts().clip(upper=SCANVI_PER_LABEL).sum())
        batch_size = 128 if labelled > 2 * 128 else 32
        model.train(
            max_epochs=20,
            n_samples_per_label=SCANVI_PER_LABEL,
            batch_size=batch_size,
            datasplitter_kwargs={"drop_last": min(labelled, counts.shape[0] - int(known.sum())) > 1.5 * batch_size},
            enable_progress_bar=False,
            accelerator="cpu",
        )
        fit_seconds = time.perf_counter() - began
        table = model.predict(indices=np.arange(train.shape[0], counts.shape[0]), soft=True)
    return Prediction(table.columns.to_numpy(dtype=object), table.to_numpy(np.float32), fit_seconds)


def _names(n: int) -> pd.Index:
    return pd.Index([f"cell{i}" for i in range(n)])


def _extra(module: str, package: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(f"{package} is not installed ({error}): pip install 'lexicell[benchmark]'") from None


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Leave out other tools' progress lines and warnings about their own insides."""
    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger, _ in levels:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in levels:
                logger.setLevel(level)
