import json

import numpy as np
import pandas as pd
import pytest

from lexicell.errors import InputError
from lexicell.labels import LabelTree, clean_labels

LEVELS = ("class", "type")


@pytest.fixture
def obs():
    return pd.DataFrame(
        {
            "class": pd.Categorical(["neuron", "glia", "neuron", None, "glia"]),
            "type": ["Sst", "Astro", "Pvalb", "Sst", ""],
        }
    )


def test_the_tree_is_read_off_the_cells(obs):
    tree = LabelTree.from_frame(obs, LEVELS)
    assert tree.names == (("glia", "neuron"), ("Astro", "Pvalb", "Sst"))
    assert tree.parents[0].tolist() == []
    assert tree.parents[1].tolist() == [0, 1, 1]
    assert tree.sizes == (2, 3)


def test_encoding_and_decoding(obs):
    tree = LabelTree.from_frame(obs, LEVELS)
    codes = tree.encode(obs)
    assert codes.dtype == np.int64
    assert codes.tolist() == [[1, 2], [0, 0], [1, 1], [-1, 2], [0, -1]]
    back = tree.decode(codes, index=obs.index)
    assert back["class"].tolist()[:3] == ["neuron", "glia", "neuron"]
    assert pd.isna(back.loc[3, "class"])
    assert pd.isna(back.loc[4, "type"])
    assert tree.encode(back).tolist() == codes.tolist()
    unknown = pd.DataFrame({"type": ["Sst", "never seen", None]})
    assert tree.encode(unknown).tolist() == [[-1, 2], [-1, -1], [-1, -1]]
    with pytest.raises(ValueError, match="expected the shape"):
        tree.decode(codes[:, :1])


def test_json_round_trip(obs):
    tree = LabelTree.from_frame(obs, LEVELS)
    again = LabelTree.from_dict(json.loads(json.dumps(tree.to_dict())))
    assert again == tree
    assert hash(again) == hash(tree)


@pytest.mark.parametrize("change", [{"parents": [[], [0, 1, 5]]}, {"levels": ["class"]}, {"names": 3}, {"parents": []}])
def test_json_that_is_no_tree_is_refused(obs, change):
    data = {**LabelTree.from_frame(obs, LEVELS).to_dict(), **change}
    with pytest.raises(InputError, match="label tree"):
        LabelTree.from_dict(data)


def test_a_label_with_two_parents_is_named_with_them():
    obs = pd.DataFrame({"class": ["a", "b", "a"], "type": ["x", "x", "y"]})
    with pytest.raises(InputError, match=r"'x' under 'a', 'b'"):
        LabelTree.from_frame(obs, LEVELS, source="file.h5ad")


def test_levels_in_the_wrong_order_are_recognised():
    obs = pd.DataFrame({"class": ["a", "a", "b"], "type": ["x", "y", "z"]})
    with pytest.raises(InputError, match="name 'class' before 'type'"):
        LabelTree.from_frame(obs, ("type", "class"))


def test_a_label_without_a_parent_is_refused():
    obs = pd.DataFrame({"class": ["a", None], "type": ["x", "y"]})
    with pytest.raises(InputError, match="no cell says under which 'class'"):
        LabelTree.from_frame(obs, LEVELS)


@pytest.mark.parametrize(
    ("obs", "levels", "message"),
    [
        ({"class": ["a"]}, ("class", "type"), "no label column 'type'"),
        ({"class": [None, ""]}, ("class",), "holds no label"),
        ({"class": ["a"]}, ("class", "class"), "named twice"),
        ({"class": ["a"]}, (), "no label level"),
    ],
)
def test_columns_that_cannot_serve_are_refused(obs, levels, message):
    with pytest.raises(InputError, match=message):
        LabelTree.from_frame(pd.DataFrame(obs), levels)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, np.nan, 2.0], ["1", None, "2"]),
        ([True, False], ["True", "False"]),
        ([b"x", " y ", "  "], ["x", "y", None]),
        (pd.Categorical(["b", "a", None], categories=["unused", "b", "a"]), ["b", "a", None]),
        (pd.Categorical([3, 1, 3]), ["3", "1", "3"]),
        (pd.array(["a", pd.NA], dtype="string"), ["a", None]),
        ([], []),
    ],
)
def test_labels_of_any_type_become_text(values, expected):
    cleaned = clean_labels(pd.Series(values))
    assert [None if pd.isna(value) else value for value in cleaned] == expected
    assert list(cleaned.categories) == sorted({value for value in expected if value is not None})


TAXONOMY = "child,parent,level\nneuron,,class\nglia,,class\nSst,neuron,type\nPvalb,neuron,type\nAstro,glia,type\n"


def test_a_tree_is_read_from_a_taxonomy_table(tmp_path, obs):
    (tmp_path / "taxonomy.csv").write_text(TAXONOMY)
    tree = LabelTree.from_taxonomy(tmp_path / "taxonomy.csv")
    assert tree == LabelTree.from_frame(obs, LEVELS)
    table = pd.read_csv(tmp_path / "taxonomy.csv", dtype=str)
    assert LabelTree.from_taxonomy(table.drop(columns="level"), LEVELS) == tree
    assert LabelTree.from_taxonomy(table.iloc[::-1]) == tree
    table.to_csv(tmp_path / "taxonomy.tsv", sep="\t", index=False)
    assert LabelTree.from_taxonomy(str(tmp_path / "taxonomy.tsv")) == tree


def test_a_label_may_stand_on_two_levels_where_the_table_says_so():
    table = pd.DataFrame({"child": ["Oligo", "Oligo"], "parent": ["", "Oligo"], "level": ["class", "type"]})
    assert LabelTree.from_taxonomy(table).names == (("Oligo",), ("Oligo",))


@pytest.mark.parametrize(
    ("rows", "levels", "message"),
    [
        ([("a", ""), ("b", ""), ("x", "a"), ("x", "b")], LEVELS, "one parent only, but 'x' under 'a', 'b'"),
        ([("a", ""), ("", "a")], LEVELS, "1 rows have no name"),
        ([("a", ""), ("x", "z")], LEVELS, "'x' under 'z'"),
        ([("a", "b"), ("b", "a")], LEVELS, "in a circle: 'a', 'b'"),
        ([("a", ""), ("x", "a")], None, "2 levels, but 0 level names"),
    ],
)
def test_a_table_that_is_no_tree_is_refused_with_the_pairs(rows, levels, message):
    with pytest.raises(InputError, match=message):
        LabelTree.from_taxonomy(pd.DataFrame(rows, columns=["child", "parent"]), levels)


def test_levels_in_the_wrong_order_are_refused():
    rows = [line.split(",") for line in TAXONOMY.splitlines()[1:]]
    table = pd.DataFrame(rows, columns=["child", "parent", "level"])
    with pytest.raises(InputError, match=r"one level below its parent.*'neuron' \(class\) under 'nothing'"):
        LabelTree.from_taxonomy(table, ["type", "class"])
    with pytest.raises(InputError, match="no 'parent' among"):
        LabelTree.from_taxonomy(table[["child"]])
    with pytest.raises(InputError, match="there is no such taxonomy table"):
        LabelTree.from_taxonomy("nowhere.csv")


def test_ancestors_are_filled_in_and_contradictions_named(obs):
    tree = LabelTree.from_frame(obs, LEVELS)
    assert tree.complete(np.array([[-1, 2], [0, -1]])).tolist() == [[1, 2], [0, -1]]
    with pytest.raises(InputError, match="'Sst' under 'glia' instead of 'neuron'"):
        tree.complete(np.array([[0, 2]]))


def test_a_level_can_be_left_out_between_others():
    obs = pd.DataFrame({"class": ["n", "n", "g"], "subclass": ["exc", "inh", "astro"], "type": ["e1", "i1", "a1"]})
    tree = LabelTree.from_frame(obs, ["class", "subclass", "type"])
    assert tree.keep(["type", "class"]) == LabelTree.from_frame(obs, ["class", "type"])
    assert tree.keep(["subclass", "type"]) == LabelTree.from_frame(obs, ["subclass", "type"])
    assert tree.keep(["class"]) == LabelTree.from_frame(obs, ["class"])
