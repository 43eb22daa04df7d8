from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from lexicell.data.query import Query, read_query
from lexicell.errors import InputError
from lexicell.inference import cell_model as module
from lexicell.inference.cell_model import CellModel

SPECIES = "simulus_albus"


@pytest.fixture
def query(cell_model: CellModel, cells: AnnData) -> Query:
    return read_query(cells[:12].copy(), cell_model.lexicon, SPECIES)


def of_counts(query: Query, counts: np.ndarray) -> Query:
    return replace(query, counts=sp.csr_matrix(counts.astype(np.int32)), obs=query.obs.iloc[: len(counts)])


def assert_close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_an_embedding_has_a_row_a_cell(cell_model: CellModel, query: Query) -> None:
    embedding = cell_model.embed(query)
    assert embedding.shape == (12, cell_model.cell_width)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    assert np.linalg.norm(embedding[0] - embedding[1]) > 1e-2


def test_a_cell_does_not_depend_on_the_other_cells(cell_model: CellModel, query: Query) -> None:
    together = cell_model.embed(query)
    counts = query.counts.toarray()
    for cell in (0, 5, 11):
        assert_close(cell_model.embed(of_counts(query, counts[[cell]]))[0], together[cell])
    order = np.random.default_rng(0).permutation(12)
    assert_close(cell_model.embed(of_counts(query, counts[order])), together[order])


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batch_size_changes_nothing(cell_model: CellModel, query: Query, batch_size: int) -> None:
    whole, parted = cell_model.run(query), cell_model.run(query, batch_size=batch_size)
    assert_close(parted.embedding, whole.embedding)
    for a, b in zip(parted.probabilities, whole.probabilities, strict=True):
        assert_close(a, b)


def test_long_queries_are_read_in_chunks(cell_model: CellModel, query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cell_model.embed(query)
    monkeypatch.setattr(module, "CELLS_AT_ONCE", 5)
    assert_close(cell_model.embed(query), whole)


def test_the_order_of_genes_in_the_file_changes_nothing(cell_model: CellModel, cells: AnnData) -> None:
    mixed = cells[:6, np.random.default_rng(1).permutation(cells.n_vars)].copy()
    read = [read_query(adata, cell_model.lexicon, SPECIES) for adata in (cells[:6].copy(), mixed)]
    assert_close(*(cell_model.embed(query) for query in read))


def test_every_expressed_gene_matters(cell_model: CellModel, query: Query) -> None:
    cell = query.counts.toarray()[0]
    expressed = np.flatnonzero(cell)
    assert len(expressed) > cell_model.spec.tokens  # so that it takes several samples
    changed = np.repeat(cell[None], len(expressed) + 1, axis=0)
    changed[np.arange(len(expressed)), expressed] += 1  # all to the same depth; the last row stays as it is
    wide = replace(query, counts=sp.csr_matrix(changed), obs=pd.DataFrame(index=range(len(changed))))
    embedding = cell_model.embed(wide)
    assert (np.abs(embedding[:-1] - embedding[-1]).max(axis=1) > 1e-4).all()
    between = np.abs(embedding[:-1, None] - embedding[None, :-1]).max(axis=2)
    assert (between[~np.eye(len(between), dtype=bool)] > 1e-4).all()


def test_genes_outside_the_lexicon_are_reported_and_have_no_effect(cell_model: CellModel, cells: AnnData) -> None:
    adata = cells[:5].copy()
    strange = AnnData(
        sp.csr_matrix(np.full((5, 30), 7, np.float32)),
        obs=adata.obs,
        var=pd.DataFrame(index=[f"strange{i}" for i in range(30)]),
    )
    wider = AnnData(sp.hstack([strange.X, adata.X]).tocsr(), obs=adata.obs)
    wider.var_names = [*strange.var_names, *adata.var_names]
    read = read_query(wider, cell_model.lexicon, SPECIES)
    assert read.report.n_unmatched == 30
    assert read.report.count_share < 1
    assert_close(cell_model.embed(read), cell_model.embed(read_query(adata, cell_model.lexicon, SPECIES)))


def test_one_sample_is_enough_to_run(cell_model: CellModel, query: Query) -> None:
    one, all_of_them = cell_model.embed(query, samples=1), cell_model.embed(query)
    assert one.shape == all_of_them.shape
    assert not np.allclose(one, all_of_them, atol=1e-4)
    assert_close(cell_model.embed(query, samples=10_000), all_of_them)


def test_label_probabilities_add_up(cell_model: CellModel, query: Query) -> None:
    assert cell_model.label_tree is not None
    upper, lower = cell_model.predict_labels(query)
    np.testing.assert_allclose(upper.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(lower.sum(axis=1), 1, atol=1e-5)
    for parent in range(upper.shape[1]):
        children = cell_model.label_tree.parents[1] == parent
        np.testing.assert_allclose(lower[:, children].sum(axis=1), upper[:, parent], atol=1e-5)


def test_a_model_without_labels_has_none_to_give(cell_model: CellModel, query: Query) -> None:
    spec = replace(cell_model.spec, label_tree=None)
    network = spec.build()
    network.load_state_dict(
        {k: v for k, v in cell_model.network.state_dict().items() if not k.startswith("label_head.")}
    )
    plain = CellModel(network, spec, device="cpu")
    with pytest.raises(InputError, match="no label head"):
        plain.predict_labels(query)
    out = plain.run(query)
    assert out.probabilities == []
    assert_close(out.embedding, cell_model.embed(query))


def test_a_saved_model_gives_the_very_same(cell_model: CellModel, query: Query, tmp_path: Path) -> None:
    cell_model.save(tmp_path / "model")
    loaded = CellModel.load(tmp_path / "model", device="cpu")
    assert loaded.lexicon.fingerprint == cell_model.lexicon.fingerprint
    assert loaded.label_tree == cell_model.label_tree
    np.testing.assert_array_equal(loaded.embed(query), cell_model.embed(query))
    for a, b in zip(loaded.predict_labels(query), cell_model.predict_labels(query), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_is_frozen(cell_model: CellModel) -> None:
    assert not cell_model.network.training
    assert not any(parameter.requires_grad for parameter in cell_model.network.parameters())


def test_the_gene_table_holds_the_weights(cell_model: CellModel) -> None:
    table = cell_model.gene_table()
    assert list(table.columns) == ["species", "gene_id", "symbol", *(f"e{i}" for i in range(cell_model.width))]
    pd.testing.assert_frame_equal(table[["species", "gene_id", "symbol"]], cell_model.lexicon.table)
    np.testing.assert_array_equal(table.filter(regex=r"^e\d").to_numpy(), cell_model.network.genes.weight.numpy())


def test_a_cell_without_any_count_is_embedded(cell_model: CellModel, query: Query) -> None:
    counts = query.counts.toarray()
    counts[1] = 0
    out = cell_model.run(of_counts(query, counts))
    assert np.isfinite(out.embedding).all()
    assert all(np.isfinite(level).all() for level in out.probabilities)
    others = np.arange(12) != 1
    assert_close(out.embedding[others], cell_model.embed(query)[others])


@pytest.mark.parametrize("n_genes", [1, 3, 40])
def test_a_small_panel_is_embedded(cell_model: CellModel, cells: AnnData, n_genes: int) -> None:
    read = read_query(cells[:4, :n_genes].copy(), cell_model.lexicon, SPECIES)
    assert np.isfinite(cell_model.embed(read)).all()


def test_a_query_of_unknown_genes_is_refused(cell_model: CellModel, query: Query) -> None:
    with pytest.raises(InputError, match="none of the query's genes is in the model's lexicon"):
        cell_model.embed(replace(query, gene_index=np.full_like(query.gene_index, -1)))


def test_a_model_can_be_told_covariates(cell_model, query):
    name = next(iter(cell_model.spec.covariates))
    levels = cell_model.spec.covariates[name]
    plain = cell_model.embed(query)
    told = [cell_model.given(**{name: level}).embed(query) for level in levels[:2]]
    assert abs(told[0] - plain).max() > 1e-4
    assert abs(told[0] - told[1]).max() > 1e-4
    assert (cell_model.embed(query) == plain).all()
    with pytest.raises(InputError, match="not trained with the covariate 'mood'"):
        cell_model.given(mood="good")
    with pytest.raises(InputError, match=f"covariate {name}: the model does not know 'x'"):
        cell_model.given(**{name: "x"})
