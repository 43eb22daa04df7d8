from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from lexicell.data.query import Query, read_query
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.labels import LabelTree
from lexicell.workflows import held_out
from lexicell.workflows.held_out import Cells, compare, compare_run
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import pretrain

LEVELS = ("class", "type")


@pytest.fixture(autouse=True)
def no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)  # minutes of compiling, for a picture


@pytest.fixture
def halves(cell_model: CellModel, cells: AnnData) -> tuple[Cells, Cells]:
    read = [read_query(cells[start::2].copy(), cell_model.lexicon, "simulus_albus") for start in (0, 1)]
    return Cells.of(read[0], LEVELS), Cells.of(read[1], LEVELS)


def tree_of(cells: Cells) -> LabelTree:
    return LabelTree.from_frame(cells.obs, LEVELS)


def test_every_method_is_scored_on_every_level(cell_model: CellModel, halves: tuple[Cells, Cells]) -> None:
    tables = compare(cell_model, *halves, tree_of(halves[0]))
    assert tables.scores is not None
    assert tables.confusion is not None
    methods = ["probe", "knn", "label_head", "logistic_regression", "pca_knn"]
    assert list(tables.scores["method"].unique()) == methods
    assert list(tables.scores.columns) == ["method", "level", "accuracy", "macro_f1", "coverage"]
    assert tables.scores.groupby("method", sort=False)["level"].agg(tuple).tolist() == [LEVELS] * 5
    by_method = tables.by_method("class")
    assert list(by_method) == methods
    assert by_method["logistic_regression"]["accuracy"] > 0.9
    assert (tables.confusion.groupby(["method", "level"])["n"].sum() == 60).all()
    assert list(tables.embedding.columns) == ["x", "y", "label", "split", "method"]
    assert tables.embedding["split"].value_counts().to_dict() == {"reference": 60, "held out": 60}


def test_own_methods_say_how_sure_they_were(cell_model: CellModel, halves: tuple[Cells, Cells]) -> None:
    tables = compare(cell_model, *halves, tree_of(halves[0]))
    assert tables.scores is not None
    assert tables.reliability is not None
    assert tables.curve is not None
    accuracy = tables.scores.set_index(["method", "level"])["accuracy"]
    for (method, level), bins in tables.reliability.groupby(["method", "level"]):
        assert bins["n_cells"].sum() == 60
        right = (bins["n_cells"] * bins["accuracy"]).sum() / 60
        assert right == pytest.approx(accuracy[method, level])
    last = tables.curve.groupby(["method", "level"]).last()
    assert set(last.index.get_level_values(0)) == {"probe", "knn", "label_head"}
    assert (last["coverage"] == 1).all()
    np.testing.assert_allclose(1 - last["error"], accuracy.loc[last.index])


def test_a_label_that_the_reference_lacks_counts_as_wrong(cell_model: CellModel, halves: tuple[Cells, Cells]) -> None:
    reference, query = halves
    new = query.obs.assign(type=pd.Categorical(["never seen"] * 60), **{"class": [None] * 60})
    scores = compare(cell_model, reference, replace(query, obs=new), tree_of(reference)).scores
    assert scores is not None
    assert (scores.loc[scores["level"] == "type", "accuracy"] == 0).all()
    assert scores.loc[scores["level"] == "class", "accuracy"].isna().all()


def test_numbers_as_labels_match_their_text(cell_model: CellModel, cells: AnnData) -> None:
    adata = cells.copy()
    adata.obs["cluster"] = adata.obs["class"].cat.codes.astype(float)
    query = read_query(adata, cell_model.lexicon, "simulus_albus")
    known = Cells.of(query, ["cluster"])
    assert set(known.obs["cluster"]) == {"0", "1"}
    scores = compare(cell_model, known, known, LabelTree.from_frame(known.obs, ["cluster"])).scores
    assert scores is not None
    assert scores.set_index("method")["accuracy"]["logistic_regression"] == 1


def parts_of(query: Query, columns: np.ndarray) -> Query:
    return replace(query, counts=query.counts[:, columns], gene_index=query.gene_index[columns])


def test_cells_of_several_panels_are_compared_over_the_genes_of_all(
    cell_model: CellModel, halves: tuple[Cells, Cells]
) -> None:
    reference, query = halves
    mixed = np.random.default_rng(0).permutation(300)
    narrow = replace(query, parts=(parts_of(query.parts[0], mixed),))
    counts = held_out._shared_counts(reference, narrow)
    assert [matrix.shape for matrix in counts] == [(60, 300), (60, 300)]
    whole = query.parts[0].counts[:, np.sort(mixed)]
    order = np.argsort(query.parts[0].gene_index[np.sort(mixed)])
    assert (counts[1] != whole[:, order]).nnz == 0
    none = replace(query, parts=(parts_of(query.parts[0], np.arange(0)),))
    with pytest.raises(InputError, match="no gene was measured in all"):
        held_out._shared_counts(reference, none)


def test_a_run_is_compared_on_the_cells_it_held_out(run: Path) -> None:
    tables = compare_run(run)
    assert tables.scores is not None
    assert tables.cells is not None
    said = tables.cells.set_index("what")["value"]
    assert said["species"] in ("simulus_albus", "simulus_niger")
    split = held_out.split_of(run)
    n_held_out = int((tables.embedding["split"] == "held out").sum())
    species = split.collection.column("species")[split.validation_cells]
    assert n_held_out == int((species == said["species"]).sum())
    assert split.held_out in said["held-out cells"]
    assert "training cells, drawn at random" in said["reference"]
    assert {"probe", "knn", "label_head", "logistic_regression", "pca_knn"} == set(tables.scores["method"])
    assert set(tables.embedding["label"].dropna()) <= {*split.label_tree.names[1]}  # type: ignore[union-attr]


def test_the_reference_is_limited_and_always_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "MAX_REFERENCE", 20)
    first, second = compare_run(run), compare_run(run)
    assert (first.embedding["split"] == "reference").sum() == 20
    pd.testing.assert_frame_equal(first.embedding, second.embedding)
    pd.testing.assert_frame_equal(first.scores, second.scores)


def prepared(out: Path, *datasets: dict[str, object]) -> Store:
    prepare({"datasets": list(datasets)}, out)
    return Store.open(out)


def test_without_labels_there_is_a_picture_by_tissue_or_source(
    cells: AnnData, small: dict[str, object], tmp_path: Path
) -> None:
    adata = cells.copy()
    adata.obs["organ"] = np.where(np.arange(adata.n_obs) % 2, "brain", "liver")
    plain = {"adata": adata, "species": "simulus_albus", "donor": "donor"}
    kinds = {"organ": plain | {"tissue": {"obs": "organ"}}, "none": plain}
    seen = {}
    for name, dataset in kinds.items():
        store = prepared(tmp_path / name, dataset)
        pretrain("tiny", store, tmp_path / f"run_{name}", overrides=small, progress=False)
        tables = compare_run(tmp_path / f"run_{name}")
        assert tables.scores is tables.confusion is None
        assert tables.by_method("type") == {}
        seen[name] = set(tables.embedding["label"])
    assert seen["organ"] == {"brain", "liver"}
    assert len(seen["none"]) == 1


def test_a_store_of_two_panels_is_compared(cells: AnnData, small: dict[str, object], tmp_path: Path) -> None:
    named = {"species": "simulus_albus", "donor": "donor", "labels": list(LEVELS)}
    store = prepared(
        tmp_path / "store",
        {"adata": cells[:60].copy(), **named},
        {"adata": cells[60:, 100:].copy(), **named},
    )
    pretrain("tiny", store, tmp_path / "run", overrides=small, progress=False)
    tables = compare_run(tmp_path / "run")
    assert tables.scores is not None
    assert tables.scores.set_index(["method", "level"])["accuracy"]["logistic_regression", "class"] > 0.7


def test_tables_are_written_whole(cell_model: CellModel, halves: tuple[Cells, Cells], tmp_path: Path) -> None:
    tables = compare(cell_model, *halves, tree_of(halves[0]))
    tables.write(tmp_path)
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == [f"annotation_{name}.csv" for name in ("coverage", "reliability", "scores")] + [
        "confusion.csv",
        "embedding.csv",
    ]
    read = pd.read_csv(tmp_path / "report" / "annotation_scores.csv")
    pd.testing.assert_frame_equal(read, tables.scores)
