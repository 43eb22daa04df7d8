"""Against stand-ins with the signatures of helical 2.2: the package and its weights are not needed."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from lexicell.errors import InputError
from lexicell.evaluation.helical_models import HELICAL_MODELS, helical_embedding, write_helical_embedding


class Config:
    """Takes what helical's configs take; TranscriptFormer's has no device, and keeps its own deep inside."""

    def __init__(self, model_name=None, batch_size=24, device="cpu", species=None):
        self.given = {"model_name": model_name, "batch_size": batch_size, "device": device, "species": species}
        self.config = SimpleNamespace(model=SimpleNamespace(inference_config=SimpleNamespace(device="cuda")))


class Model:
    seen: ClassVar[dict] = {}

    def __init__(self, configurer):
        Model.seen = {"config": configurer}

    def process_data(self, adata, gene_names="index", output_path=None, use_raw_counts=True):
        Model.seen |= {"genes": gene_names, "adata": adata, "folder": Path.cwd()}
        return adata

    def get_embeddings(self, dataset, output_attentions=False, output_genes=False):
        return dataset.X.toarray().astype(np.float64)[:, :2]


class TranscriptFormer(Model):
    def process_data(self, data_files):
        return super().process_data(data_files[0])

    def get_embeddings(self, dataset):
        return torch.ones(dataset.n_obs, 3, requires_grad=True)


class Dropping(Model):
    def get_embeddings(self, dataset):
        return np.zeros((dataset.n_obs - 1, 2))


@pytest.fixture
def helical(monkeypatch):
    """A package of stand-ins."""
    for wrapped in HELICAL_MODELS.values():
        module = ModuleType(wrapped.module)
        model = TranscriptFormer if wrapped.model == "TranscriptFormer" else Model
        setattr(module, wrapped.model, model)
        setattr(module, wrapped.config, Config)
        monkeypatch.setitem(sys.modules, wrapped.module, module)


@pytest.fixture
def cells():
    counts = sparse.csr_matrix(np.array([[1, 2, 4, 8], [0, 1, 0, 3], [5, 0, 0, 0]]))
    var = pd.DataFrame({"gene_id": ["ENSG2", "ENSG1", "novel", "ENSG3"], "symbol": ["B", "A", "A", None]})
    var.index = var["gene_id"].to_numpy()
    adata = ad.AnnData(counts, obs=pd.DataFrame(index=["x", "y", "z"]), var=var)
    adata.uns["species"] = "homo_sapiens"
    return adata


def test_genes_are_named_as_each_model_needs_them(helical, cells):
    found = helical_embedding(cells, "scgpt", batch_size=7)
    assert found.dtype == np.float32
    assert found.tolist() == [[6, 1], [1, 0], [0, 5]]  # A is summed over both of its genes; then B
    assert Model.seen["genes"] == "index"
    assert Model.seen["config"].given["batch_size"] == 7
    assert helical_embedding(cells, "geneformer").tolist() == [[2, 1], [1, 0], [0, 5]]
    assert Model.seen["genes"] == "ensembl_id"
    assert list(Model.seen["adata"].var["ensembl_id"]) == ["ENSG1", "ENSG2", "ENSG3"]
    assert cells.var_names.tolist() == ["ENSG2", "ENSG1", "novel", "ENSG3"]


def test_species_and_devices(helical, cells):
    helical_embedding(cells, "uce", species="mus_musculus", device="cuda")
    assert Model.seen["config"].given | {"batch_size": 0} == {
        "model_name": None,
        "batch_size": 0,
        "device": "cuda",
        "species": "mouse",
    }
    assert Model.seen["folder"] != Path.cwd()
    assert helical_embedding(cells, "transcriptformer", species="gallus_gallus", device="cpu").shape == (3, 3)
    assert Model.seen["config"].given["model_name"] == "tf_metazoa"
    assert Model.seen["config"].config.model.inference_config.device == "cpu"
    with pytest.raises(InputError, match="reads cells of homo_sapiens, not of mus_musculus"):
        helical_embedding(cells, "geneformer", species="mus_musculus")


def test_what_is_written_is_read_by_the_benchmark(helical, cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    out = write_helical_embedding(tmp_path / "cells.h5ad", "scgpt", tmp_path / "scgpt.h5ad")
    made = ad.read_h5ad(out)
    assert made.obs_names.tolist() == ["x", "y", "z"]
    assert made.obsm["X_scgpt"].tolist() == [[6, 1], [1, 0], [0, 5]]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_faults_are_said(helical, cells, monkeypatch):
    with pytest.raises(InputError, match="no 'magic'; there are geneformer"):
        helical_embedding(cells, "magic")
    monkeypatch.setattr(sys.modules["helical.models.scgpt"], "scGPT", Dropping)
    with pytest.raises(InputError, match=r"shape \(2, 2\) for 3 cells"):
        helical_embedding(cells, "scgpt")
    del cells.var["symbol"]
    with pytest.raises(InputError, match="needs a column 'symbol'"):
        helical_embedding(cells, "scgpt")
    monkeypatch.setitem(sys.modules, "helical.models.geneformer", None)
    with pytest.raises(InputError, match="pip install helical"):
        helical_embedding(cells, "geneformer")
