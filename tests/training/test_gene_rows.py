from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from lexicell.data.cells import CellCollection, merge_lexicons
from lexicell.data.store import Store
from lexicell.training.gene_rows import GeneRowConfig, start_genes
from lexicell.workflows.prepare import prepare

WIDTH = 48


def rows_of(stores: list[Store], config: GeneRowConfig, seed: int = 0) -> np.ndarray:
    collection = CellCollection(stores, merge_lexicons(stores))
    return start_genes(collection, np.arange(collection.n_cells), WIDTH, config, seed).rows


def test_every_gene_has_a_finite_row_of_about_the_asked_length(stores: list[Store]) -> None:
    rows = rows_of(stores, GeneRowConfig(profile=0.7, coexpression=0.0, noise=0.0))
    assert rows.shape == (sum(store.n_genes for store in stores), WIDTH)
    assert np.isfinite(rows).all()
    assert np.sqrt((rows**2).sum(1).mean()) == pytest.approx(0.7, rel=0.05)


@pytest.mark.parametrize("width", [8, 16, 100])
def test_any_width_will_do(store: Store, width: int) -> None:
    collection = CellCollection([store], store.lexicon)
    rows = start_genes(collection, np.arange(store.n_cells), width, GeneRowConfig(), 0).rows
    assert rows.shape == (store.n_genes, width)
    assert np.isfinite(rows).all()


def test_genes_that_vary_together_begin_alike(store: Store, cells: AnnData) -> None:
    rows = rows_of([store], GeneRowConfig(profile=0.0, coexpression=1.0, noise=0.0))
    counts = cells.X.toarray()
    expression = np.log1p(counts * 1e4 / counts.sum(1, keepdims=True))
    varied = np.argsort(-expression.var(axis=0))[:60]
    correlation = np.corrcoef(expression[:, varied].T)
    alike = rows[varied] @ rows[varied].T
    upper = np.triu_indices(60, 1)
    assert np.corrcoef(correlation[upper], alike[upper])[0, 1] > 0.9


def test_genes_that_only_a_study_raises_do_not_begin_alike(cells: AnnData, tmp_path: Path) -> None:
    halves = [cells[0::2].copy(), cells[1::2, 40:].copy()]  # the second study lacks some genes
    raised = np.arange(halves[1].n_vars) % 2 == 1
    counts = halves[1].X.toarray()
    counts[:, raised] = counts[:, raised] * 6 + 3
    halves[1].X = csr_matrix(counts)
    names = ("one study", "another")
    datasets = [{"adata": a, "species": "simulus_albus", "name": n} for a, n in zip(halves, names, strict=True)]
    prepare({"datasets": datasets}, tmp_path / "store", progress=False)
    store = Store.open(tmp_path / "store")
    rows = rows_of([store], GeneRowConfig(profile=0.0, coexpression=1.0, noise=0.0))
    place = pd.Index(store.lexicon.table["gene_id"]).get_indexer(halves[1].var_names)
    found = rows[place[np.asarray((counts > 0).mean(axis=0)) > 0.2]]
    up = raised[np.asarray((counts > 0).mean(axis=0)) > 0.2]
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, np.nan)
    assert np.nanmean(alike[np.ix_(up, up)]) - np.nanmean(alike[np.ix_(up, ~up)]) < 0.1
    assert np.isfinite(rows).all()


def test_alike_profiles_begin_alike_across_species(stores: list[Store]) -> None:
    rows = rows_of(stores, GeneRowConfig(profile=1.0, coexpression=0.0, noise=0.0))
    first, second = rows[: stores[0].n_genes], rows[stores[0].n_genes :]
    mean = [np.asarray(store.to_anndata().X.mean(axis=0)).ravel() for store in stores]
    nearest = ((first[:, None] - second[None]) ** 2).sum(-1).argmin(axis=1)
    assert np.corrcoef(np.log(mean[0] + 0.01), np.log(mean[1][nearest] + 0.01))[0, 1] > 0.95


def test_rows_are_named_by_the_seed(store: Store) -> None:
    config = GeneRowConfig()
    np.testing.assert_array_equal(rows_of([store], config), rows_of([store], config))
    assert not np.allclose(rows_of([store], config), rows_of([store], config, seed=1))


def test_unmeasured_genes_are_noise_alone(store: Store) -> None:
    lexicon = store.lexicon.extend(store.lexicon.table.assign(gene_id=lambda t: t["gene_id"] + "x"))
    collection = CellCollection([store], lexicon)
    start = start_genes(collection, np.arange(store.n_cells), WIDTH, GeneRowConfig(noise=0.0), 0)
    assert start.rows[: store.n_genes].any()
    assert not start.rows[store.n_genes :].any()
    counts = store.to_anndata().X.toarray()
    usual = np.log1p(counts * 1e4 / counts.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(start.usual, np.concatenate([usual, np.zeros(store.n_genes)]), rtol=1e-4, atol=1e-6)
