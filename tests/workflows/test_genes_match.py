from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import ModelSpec
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import ModelConfig
from lexicell.workflows.genes_match import genes_match

OLD, NEW = "simulus_albus", "simulus_niger"


@pytest.fixture
def aligned(stores: list[Store], tmp_path: Path) -> tuple[CellModel, Path]:
    """A model whose rows of the second species are those of the first, shuffled and blurred; and the true pairs."""
    lexicon = stores[0].lexicon.extend(stores[1].lexicon.table)
    spec = ModelSpec(ModelConfig(encoder=EncoderConfig(width=16, layers=1, heads=2)), lexicon, tokens=32)
    network = spec.build()
    network.initialise(torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    n = stores[0].n_genes
    first = rng.standard_normal((n, 16))
    order = rng.permutation(n)
    second = first[order] + 0.6 * rng.standard_normal((n, 16))
    with torch.no_grad():
        network.genes.rows.copy_(torch.from_numpy(np.concatenate([first, second])).float())
    ids = [store.lexicon.table["gene_id"].to_numpy() for store in stores]
    pairs = pd.DataFrame({"species_a": OLD, "gene_a": ids[0][order], "species_b": NEW, "gene_b": ids[1]})
    pairs = pairs.iloc[:300]  # a fourth of the genes has no known ortholog
    path = tmp_path / "orthologs.tsv"
    pairs.to_csv(path, sep="\t", index=False)
    return CellModel(network, spec, device="cpu"), path


def test_planted_orthologs_are_found(aligned: tuple[CellModel, Path], tmp_path: Path) -> None:
    model, orthologs = aligned
    found = genes_match(model, NEW, OLD, orthologs=orthologs, top=3, out=tmp_path / "matches.tsv")
    assert (found.source, found.target) == (NEW, OLD)
    best = found.best
    assert len(best) == 400
    assert best["ortholog"].isna().sum() == 100
    assert best["ortholog"].dropna().mean() > 0.5
    assert found.retrieval is not None
    assert found.retrieval.auc > 0.95
    assert found.check is not None
    assert found.check.genes == 150
    known = best.dropna(subset=["ortholog"])
    right = known["ortholog"].astype(bool)
    assert known["confidence"][right].mean() > known["confidence"][~right].mean() + 0.1
    assert known["mutual"][right].mean() > known["mutual"][~right].mean()
    read = pd.read_csv(tmp_path / "matches.tsv", sep="\t")
    assert len(read) == 1200
    assert read["rank"].tolist()[:3] == [1, 2, 3]
    assert "shown_expressed" not in read  # a model alone does not say
    figures = found.figures()
    assert figures["confidence"]["right"] == pytest.approx(found.check.right)
    assert found.tables()[0].title == "Matched genes"


def test_without_orthologs_no_confidence_is_made_up(aligned: tuple[CellModel, Path]) -> None:
    found = genes_match(aligned[0], OLD, NEW)
    assert found.table["confidence"].isna().all()
    assert found.table["ortholog"].isna().all()
    assert found.check is None
    assert "ortholog_auc" not in found.figures()


def test_a_run_tells_how_often_genes_were_shown(run: Path) -> None:
    table = genes_match(run, OLD, NEW, top=1).table
    shown = np.load(run / "exposure.npy")[:, 0]
    np.testing.assert_array_equal(table["shown_expressed"], shown[:400])
    assert set(table["match_shown_expressed"]) <= set(shown[400:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "mouse"}, "does not know mus_musculus; it knows simulus_albus, simulus_niger"),
        ({"target": OLD}, "both are simulus_albus"),
        ({"top": 0}, "top is 0"),
        ({"out": "matches.xlsx"}, "choose one of these endings"),
    ],
)
def test_bad_input_is_refused(aligned: tuple[CellModel, Path], change: dict, message: str) -> None:
    given = {"source": OLD, "target": NEW} | change
    with pytest.raises(InputError, match=message):
        genes_match(aligned[0], **given)


def test_a_table_of_other_names_is_refused(aligned: tuple[CellModel, Path], tmp_path: Path) -> None:
    path = tmp_path / "other.tsv"
    pd.DataFrame({"species_a": [OLD], "gene_a": ["x"], "species_b": [NEW], "gene_b": ["y"]}).to_csv(path, sep="\t")
    with pytest.raises(InputError, match="are its gene names of the model's kind"):
        genes_match(aligned[0], OLD, NEW, orthologs=path)
