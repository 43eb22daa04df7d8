from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import print_tables
from lexicell.workflows.embed import embed


@pytest.fixture
def query(cells: AnnData) -> AnnData:
    return cells[:8].copy()


def test_anndata_comes_back_with_an_embedding(
    cell_model: CellModel, query: AnnData, capsys: pytest.CaptureFixture[str]
) -> None:
    result = embed(cell_model, query, progress=False)
    assert result.adata.obsm["X_lexicell"].shape == (8, cell_model.cell_width)
    assert result.out is None
    assert "X_lexicell" not in query.obsm
    figures = json.loads(json.dumps(result.figures()))
    assert (figures["cells"], figures["width"], figures["out"]) == (8, cell_model.cell_width, None)
    print_tables(result.tables())
    assert "X_lexicell" in capsys.readouterr().out


def test_files_in_and_out(cell_model: CellModel, query: AnnData, tmp_path: Path) -> None:
    cell_model.save(tmp_path / "model")
    query.write_h5ad(tmp_path / "query.h5ad")
    out = tmp_path / "new" / "embedded.h5ad"
    result = embed(tmp_path / "model", tmp_path / "query.h5ad", out=out, progress=False)
    written = ad.read_h5ad(out)
    np.testing.assert_array_equal(written.obsm["X_lexicell"], result.adata.obsm["X_lexicell"])
    np.testing.assert_allclose(
        written.obsm["X_lexicell"], embed(cell_model, query, progress=False).adata.obsm["X_lexicell"], atol=1e-5
    )
    assert list(written.obs_names) == list(query.obs_names)
    assert (written.X != query.X).nnz == 0
    assert [path.name for path in out.parent.iterdir()] == ["embedded.h5ad"]


def test_a_file_can_be_embedded_in_place(cell_model: CellModel, query: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "query.h5ad"
    query.write_h5ad(path)
    embed(cell_model, path, out=path, progress=False)
    assert "X_lexicell" in ad.read_h5ad(path).obsm


def test_genes_outside_the_lexicon_are_reported(cell_model: CellModel, query: AnnData) -> None:
    names = list(query.var_names)
    names[:40] = [f"unheard_of_{i}" for i in range(40)]
    query.var_names = names
    query.var = query.var.drop(columns=query.var.columns)
    result = embed(cell_model, query, species="simulus_albus", progress=False)
    figures = result.figures()["genes"]
    assert result.query.report.n_unmatched == 40
    assert "unheard_of_0" in json.dumps(figures)
    rest = query[:, 40:].copy()
    alone = embed(cell_model, rest, species="simulus_albus", progress=False)
    np.testing.assert_allclose(result.adata.obsm["X_lexicell"], alone.adata.obsm["X_lexicell"], atol=1e-5)


def test_counts_are_found_in_a_layer(cell_model: CellModel, query: AnnData) -> None:
    expected = embed(cell_model, query, progress=False).adata.obsm["X_lexicell"]
    query.layers["counts"] = query.X.copy()
    query.X = sp.csr_matrix(query.X).log1p()
    result = embed(cell_model, query, progress=False)
    assert result.query.matrix == "layers/counts"
    np.testing.assert_array_equal(result.adata.obsm["X_lexicell"], expected)
    with pytest.raises(InputError, match="layers/counts"):
        embed(cell_model, query, counts="X", progress=False)


def test_wrong_endings_are_refused_before_anything_is_done(
    cell_model: CellModel, query: AnnData, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"end its name in \.h5ad"):
        embed(cell_model, query, out=tmp_path / "embedded.csv", progress=False)
    with pytest.raises(InputError, match="the query is not an h5ad file"):
        embed(cell_model, tmp_path / "query.loom", progress=False)
    with pytest.raises(InputError, match=r"query\.h5ad"):
        embed(cell_model, tmp_path / "query.h5ad", progress=False)
    with pytest.raises(InputError, match="not a finished run"):
        embed(tmp_path, query, progress=False)
    assert not list(tmp_path.iterdir())
