"""Files of ours are read by the same code as files in the layout that cell_type_mapper documents (docs/output.md)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lexicell.annotation.result import Annotation
from lexicell.annotation.tree import call_labels, consistent
from lexicell.labels import LabelTree

LEVELS = ["class", "subclass", "cluster"]

# Written by hand after its documentation; labels are identifiers there, names and alias stand beside them.
THEIRS_CSV = """\
# metadata = mapped.json
# taxonomy hierarchy = ["CCN1_CLAS", "CCN1_SUBC", "CCN1_CLUS"]
# readable taxonomy hierarchy = ["class", "subclass", "cluster"]
# algorithm: 'hierarchical'; codebase: http://github.com/AllenInstitute/cell_type_mapper; version: 1.5.0
cell_id,class_label,class_name,class_bootstrapping_probability,class_aggregate_probability,subclass_label,\
subclass_name,subclass_bootstrapping_probability,subclass_aggregate_probability,cluster_label,cluster_name,\
cluster_alias,cluster_bootstrapping_probability,cluster_aggregate_probability
AAAC-1,CLAS_1,01 IT Glut,0.9,0.9,SUBC_2,002 L6 IT,0.5,0.45,CLUS_7,0007 L6 IT_1,512,0.8,0.36
AAAG-1,CLAS_2,02 GABA,1.0,1.0,SUBC_3,003 Pvalb,0.97,0.97,CLUS_9,0009 Pvalb_2,33,0.61,0.5917
"""


def level(assignment: str, given: float, joint: float, second: list[str]) -> dict[str, object]:
    return {
        "assignment": assignment,
        "bootstrapping_probability": given,
        "aggregate_probability": joint,
        "avg_correlation": 0.61,
        "directly_assigned": True,
        "runner_up_assignment": second,
        "runner_up_correlation": [0.5 for _ in second],
        "runner_up_probability": [round(1 - given, 4) for _ in second],
    }


THEIRS_JSON = {
    "results": [
        {
            "CCN1_CLAS": level("CLAS_1", 0.9, 0.9, ["CLAS_2"]),
            "CCN1_SUBC": level("SUBC_2", 0.5, 0.45, ["SUBC_1"]),
            "CCN1_CLUS": level("CLUS_7", 0.8, 0.36, ["CLUS_6"]),
            "cell_id": "AAAC-1",
        },
        {
            "CCN1_CLAS": level("CLAS_2", 1.0, 1.0, []),
            "CCN1_SUBC": level("SUBC_3", 0.97, 0.97, []),
            "CCN1_CLUS": level("CLUS_9", 0.61, 0.5917, ["CLUS_8"]),
            "cell_id": "AAAG-1",
        },
    ],
    "config": {"flatten": False},
    "log": [],
    "metadata": {},
    "marker_genes": {"None": ["ENSMUSG00000000001"]},
    "taxonomy_tree": {
        "hierarchy": ["CCN1_CLAS", "CCN1_SUBC", "CCN1_CLUS"],
        "hierarchy_mapper": {"CCN1_CLAS": "class", "CCN1_SUBC": "subclass", "CCN1_CLUS": "cluster"},
        "name_mapper": {
            "CCN1_CLAS": {"CLAS_1": {"name": "01 IT Glut"}, "CLAS_2": {"name": "02 GABA"}},
            "CCN1_SUBC": {
                "SUBC_1": {"name": "001 L5 IT"},
                "SUBC_2": {"name": "002 L6 IT"},
                "SUBC_3": {"name": "003 Pvalb"},
            },
            "CCN1_CLUS": {
                "CLUS_6": {"name": "0006 L6 IT_0", "alias": "511"},
                "CLUS_7": {"name": "0007 L6 IT_1", "alias": "512"},
                "CLUS_8": {"name": "0008 Pvalb_1", "alias": "32"},
                "CLUS_9": {"name": "0009 Pvalb_2", "alias": "33"},
            },
        },
        "CCN1_CLAS": {"CLAS_1": ["SUBC_1", "SUBC_2"], "CLAS_2": ["SUBC_3"]},
        "CCN1_SUBC": {"SUBC_1": [], "SUBC_2": ["CLUS_6", "CLUS_7"], "SUBC_3": ["CLUS_8", "CLUS_9"]},
        "CCN1_CLUS": {"CLUS_6": [], "CLUS_7": [], "CLUS_8": [], "CLUS_9": []},
    },
}


def annotated(cells=("c1", "c2"), names=("exc", "inh"), levels=None, subclass="subclass") -> Annotation:
    obs = pd.DataFrame(
        {"class": ["glia", "neuron", "neuron"], subclass: ["astro", *names], "cluster": ["a1", "e1", "i1"]}
    )
    tree = LabelTree.from_frame(obs, ["class", subclass, "cluster"])
    fine = np.array([[0.1, 0.6, 0.3], [0.9, 0.06, 0.04]], dtype=np.float32)
    coarse = np.stack([fine[:, 0], fine[:, 1:].sum(axis=1)], axis=1)
    calls = call_labels(tree, consistent(tree, [coarse, fine, fine]))
    unknown = np.array([0.25, 0.999], dtype=np.float32)
    return Annotation.from_calls(pd.Index(cells), tree, calls, levels, {"method": "probe"}, unknown)


@pytest.fixture(params=["theirs", "ours"])
def files(request, tmp_path) -> tuple[Path, Path]:
    """A CSV and a JSON, by the documentation or by lexicell."""
    if request.param == "theirs":
        (tmp_path / "mapped.csv").write_text(THEIRS_CSV)
        (tmp_path / "mapped.json").write_text(json.dumps(THEIRS_JSON))
    else:
        annotated().to_csv(tmp_path / "mapped.csv", "mapped.json")
        annotated().to_json(tmp_path / "mapped.json")
    return tmp_path / "mapped.csv", tmp_path / "mapped.json"


def test_the_csv_is_read_in_the_usual_ways(files):
    path, extended = files
    head = path.read_text().splitlines()[:4]
    assert all(line.startswith("# ") for line in head)
    assert head[0].removeprefix("# metadata = ") == extended.name
    assert len(json.loads(head[1].removeprefix("# taxonomy hierarchy = "))) == 3
    assert json.loads(head[2].removeprefix("# readable taxonomy hierarchy = ")) == LEVELS
    about = dict(part.strip(" #").split(": ", 1) for part in head[3].split(";"))
    assert set(about) == {"algorithm", "codebase", "version"}
    table = pd.read_csv(path, comment="#")
    pd.testing.assert_frame_equal(table, pd.read_csv(path, header=4))  # some count the lines instead
    assert table.columns[0] == "cell_id"
    for level_ in LEVELS:
        places = [table.columns.get_loc(f"{level_}_{end}") for end in ("label", "name", "bootstrapping_probability")]
        assert places == sorted(places)
        assert table[f"{level_}_bootstrapping_probability"].between(0, 1).all()
    assert [name for name in table if name.endswith("_alias")] == ["cluster_alias"]
    given = table[[f"{level_}_bootstrapping_probability" for level_ in LEVELS]].prod(axis=1)
    np.testing.assert_allclose(given, table["cluster_aggregate_probability"], atol=2e-4)


def test_the_json_is_read_level_by_level(files):
    whole = json.loads(files[1].read_text())
    assert {"results", "config", "log", "metadata", "marker_genes", "taxonomy_tree"} <= set(whole)
    tree = whole["taxonomy_tree"]
    fields = set(level("", 0, 0, []))
    for cell in whole["results"]:
        assert set(cell) == {*tree["hierarchy"], "cell_id"}  # every other key would be taken for a level
        joint = 1.0
        for above, own in zip([None, *tree["hierarchy"]], tree["hierarchy"], strict=False):
            found = cell[own]
            assert set(found) == fields
            joint *= found["bootstrapping_probability"]
            assert found["aggregate_probability"] == pytest.approx(joint, abs=2e-4)
            ends = ("assignment", "correlation", "probability")
            assert len({len(found[f"runner_up_{end}"]) for end in ends}) == 1
            assert found["assignment"] not in found["runner_up_assignment"]
            votes = [found["bootstrapping_probability"], *found["runner_up_probability"]]
            assert sum(votes) <= 1 + 2e-4
            assert votes[1:] == sorted(votes[1:], reverse=True)
            assert tree["name_mapper"][own][found["assignment"]]["name"]
            if above is not None:
                beside = tree[above][cell[above]["assignment"]]
                assert {found["assignment"], *found["runner_up_assignment"]} <= set(beside)
    assert [tree["hierarchy_mapper"][own] for own in tree["hierarchy"]] == LEVELS
    leaf = tree["hierarchy"][-1]
    assert not any(tree[leaf].values())
    assert all({"name", "alias"} == set(names) for names in tree["name_mapper"][leaf].values())


def test_both_files_say_the_same(files):
    path, extended = files
    table, whole = pd.read_csv(path, comment="#", dtype=str), json.loads(extended.read_text())
    tree = whole["taxonomy_tree"]
    for row, cell in zip(table.to_dict("records"), whole["results"], strict=True):
        assert row["cell_id"] == cell["cell_id"]
        for own, level_ in tree["hierarchy_mapper"].items():
            label = cell[own]["assignment"]
            assert (row[f"{level_}_label"], row[f"{level_}_name"]) == (label, tree["name_mapper"][own][label]["name"])
            assert float(row[f"{level_}_bootstrapping_probability"]) == cell[own]["bootstrapping_probability"]


def test_a_number_sign_does_not_cut_names_short(tmp_path):
    annotated(("run#AAAC", "run#AAAG"), ("exc #1", "inh")).to_csv(tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv", comment="#", index_col="cell_id")
    assert list(table.index) == ["run#AAAC", "run#AAAG"]
    assert list(table["subclass_label"]) == ["exc #1", "astro"]
    np.testing.assert_allclose(table["unknown"], [0.25, 0.999])
    annotated(subclass="sub #1").to_csv(tmp_path / "level.csv")
    assert "sub #1_label" in pd.read_csv(tmp_path / "level.csv", comment="#")


def test_the_tree_has_the_levels_that_are_reported(tmp_path):
    annotated(levels=["class", "cluster"]).to_json(tmp_path / "out.json")
    tree = json.loads((tmp_path / "out.json").read_text())["taxonomy_tree"]
    assert tree["hierarchy"] == ["class", "cluster"]
    assert tree["class"] == {"glia": ["a1"], "neuron": ["e1", "i1"]}
