import dataclasses
import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lexicell.annotation.result import Annotation, check_level_names
from lexicell.annotation.tree import call_labels, consistent
from lexicell.errors import InputError
from lexicell.labels import LabelTree


@pytest.fixture
def annotation() -> Annotation:
    obs = pd.DataFrame({"class": ["glia", "neuron", "neuron"], "type": ["astro", "exc", "inh"]})
    tree = LabelTree.from_frame(obs, ["class", "type"])
    coarse = np.array([[0.9, 0.1], [0.2, 0.8], [0.0, 1.0]])
    fine = np.array([[0.0, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    calls = call_labels(tree, consistent(tree, [coarse, fine]))
    settings = {"method": "knn", "k": 10, "levels": ["class", "type"]}
    return Annotation.from_calls(pd.Index(["c1", "c2", "c3"]), tree, calls, settings=settings)


def test_obs_columns_hold_label_probability_and_runner_up(annotation):
    adata = ad.AnnData(np.zeros((3, 2), dtype=np.float32), obs=pd.DataFrame(index=["c1", "c2", "c3"]))
    adata.uns["lexicell"] = {"embed": {"samples": 3}}
    annotation.write_obs(adata)
    assert list(adata.obs) == [
        "lexicell_class",
        "lexicell_class_prob",
        "lexicell_class_runner_up",
        "lexicell_type",
        "lexicell_type_prob",
        "lexicell_type_runner_up",
    ]
    assert list(adata.obs["lexicell_class"]) == ["glia", "neuron", "neuron"]
    assert adata.obs["lexicell_type"].isna().tolist() == [True, False, False]
    assert adata.obs["lexicell_type"].tolist()[1:] == ["exc", "inh"]
    assert list(adata.obs["lexicell_type_runner_up"])[:2] == ["exc", "inh"]
    np.testing.assert_allclose(adata.obs["lexicell_class_prob"], [0.9, 0.8, 1.0])
    assert adata.uns["lexicell"] == {"embed": {"samples": 3}, "annotate": dict(annotation.settings)}


def test_the_columns_survive_an_h5ad(annotation, tmp_path):
    adata = ad.AnnData(np.zeros((3, 2), dtype=np.float32), obs=pd.DataFrame(index=["c1", "c2", "c3"]))
    annotation.write_obs(adata)
    adata.write_h5ad(tmp_path / "out.h5ad")
    again = ad.read_h5ad(tmp_path / "out.h5ad")
    pd.testing.assert_frame_equal(again.obs, adata.obs, check_index_type=False)
    assert again.uns["lexicell"]["annotate"]["method"] == "knn"


def test_other_cells_are_refused(annotation):
    adata = ad.AnnData(np.zeros((3, 2), dtype=np.float32), obs=pd.DataFrame(index=["c1", "c3", "c2"]))
    with pytest.raises(ValueError, match="in their order"):
        annotation.write_obs(adata)


def test_csv_has_the_layout_of_mapmycells(annotation, tmp_path):
    annotation.to_csv(tmp_path / "out.csv", "out.extended.json")
    head = (tmp_path / "out.csv").read_text().splitlines()[:4]
    assert head[:3] == [
        "# metadata = out.extended.json",
        '# taxonomy hierarchy = ["class", "type"]',
        '# readable taxonomy hierarchy = ["class", "type"]',
    ]
    assert head[3].startswith("# algorithm: 'knn'; codebase: lexicell; version: ")
    table = pd.read_csv(tmp_path / "out.csv", comment="#", index_col="cell_id")
    ends = [
        "label",
        "name",
        "bootstrapping_probability",
        "aggregate_probability",
        "runner_up_label",
        "runner_up_probability",
    ]
    assert [name for name in table if name != "type_alias"] == [f"{n}_{end}" for n in ("class", "type") for end in ends]
    assert table.loc["c2", "type_label"] == table.loc["c2", "type_name"] == table.loc["c2", "type_alias"] == "exc"
    assert table.loc["c2", "class_aggregate_probability"] == 0.8
    assert table.loc["c2", "type_aggregate_probability"] == pytest.approx(0.8 * 0.5 / 0.8)
    assert table.loc["c2", "type_bootstrapping_probability"] == pytest.approx(0.625)


def test_json_has_the_layout_of_mapmycells(annotation, tmp_path):
    sure = dataclasses.replace(annotation, unknown=np.array([0.25, 0.5, 1], dtype=np.float32))
    codes = sure.calls.codes.copy()
    codes[0, 1] = -1
    dataclasses.replace(sure, calls=dataclasses.replace(sure.calls, codes=codes)).to_json(tmp_path / "out.json")
    read = json.loads((tmp_path / "out.json").read_text())
    assert [cell["cell_id"] for cell in read["results"]] == ["c1", "c2", "c3"]
    assert read["results"][1]["type"] == {
        "assignment": "exc",
        "bootstrapping_probability": 0.625,
        "aggregate_probability": 0.5,
        "avg_correlation": None,
        "directly_assigned": True,
        "runner_up_assignment": ["inh"],
        "runner_up_correlation": [None],
        "runner_up_probability": [0.375],
    }
    assert read["results"][0]["type"]["assignment"] is None
    assert read["results"][2]["class"]["runner_up_assignment"] == []
    assert read["unknown"] == [0.25, 0.5, 1.0]
    names = read["taxonomy_tree"].pop("name_mapper")
    assert names["class"]["glia"] == {"name": "glia"}
    assert names["type"]["exc"] == {"name": "exc", "alias": "exc"}
    assert read["taxonomy_tree"] == {
        "hierarchy": ["class", "type"],
        "hierarchy_mapper": {"class": "class", "type": "type"},
        "class": {"glia": ["astro"], "neuron": ["exc", "inh"]},
        "type": {"astro": [], "exc": [], "inh": []},
    }
    assert read["config"]["method"] == "knn"
    assert set(sure.frame()) - set(annotation.frame()) == {"lexicell_unknown"}


@pytest.mark.parametrize("levels", [["class", "unknown"], ["cell_id"], ["type", "type_prob"]])
def test_levels_whose_output_would_be_taken_for_something_else_are_refused(levels):
    with pytest.raises(InputError, match=f"{levels[-1]!r} cannot be the name of a label level"):
        check_level_names(levels)


def test_scores_where_the_truth_is_known(annotation):
    truth = pd.DataFrame({"class": ["glia", "glia", "neuron"], "other": 1}, index=["c1", "c2", "c3"])
    scores = annotation.scores(truth)
    assert list(scores) == ["class"]
    assert scores["class"] == pytest.approx({"accuracy": 2 / 3, "macro_f1": 2 / 3, "coverage": 1.0})
    assert annotation.scores(pd.DataFrame({"type": ["astro", "exc", "inh"]}))["type"]["coverage"] == (
        pytest.approx(2 / 3)
    )
    assert annotation.scores(pd.DataFrame({"type": [None, None, None]})) == {}


def test_levels_can_be_chosen_and_unknown_ones_are_refused(annotation):
    one = Annotation.from_calls(annotation.cells, annotation.tree, annotation.calls, ["type"])
    assert one.levels == ("type",)
    assert list(one.frame()) == ["lexicell_type", "lexicell_type_prob", "lexicell_type_runner_up"]
    with pytest.raises(InputError, match="no 'subtype'; its levels are 'class', 'type'"):
        Annotation.from_calls(annotation.cells, annotation.tree, annotation.calls, ["subtype"])
