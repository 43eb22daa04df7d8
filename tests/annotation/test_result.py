import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lexicell.annotation.result import Annotation
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


def test_csv_reads_back(annotation, tmp_path):
    annotation.to_csv(tmp_path / "out.csv")
    head = (tmp_path / "out.csv").read_text().splitlines()[:4]
    assert head == [
        "# lexicell annotate",
        '# method = "knn"',
        "# k = 10",
        '# levels = ["class", "type"]',
    ]
    table = pd.read_csv(tmp_path / "out.csv", comment="#", index_col="cell_id")
    assert list(table) == ["class", "class_prob", "class_runner_up", "type", "type_prob", "type_runner_up"]
    assert table.loc["c2", "type"] == "exc"
    assert table.loc["c2", "class_prob"] == 0.8


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
