import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon

names = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), unique=True, max_size=30)


def table(species, ids):
    return pd.DataFrame({"species": species, "gene_id": ids, "symbol": ids})


def test_index_is_the_row():
    lexicon = Lexicon.from_genes("mouse", ["a", "b", "c"], ["A", "", None])
    assert len(lexicon) == 3
    assert lexicon.species == ("mus_musculus",)
    assert lexicon.index_of("Mus musculus", ["c", "x", "a"]).tolist() == [2, -1, 0]
    assert lexicon.index_of("human", ["a"]).tolist() == [-1]
    assert lexicon.table["symbol"].tolist() == ["A", "b", "c"]


def test_equal_ids_of_two_species_are_two_genes():
    lexicon = Lexicon.from_genes("mouse", ["a", "b"]).extend(table("human", ["b", "a"]))
    assert len(lexicon) == 4
    assert lexicon.index_of("human", ["a", "b"]).tolist() == [3, 2]
    assert lexicon.rows_of("human").tolist() == [2, 3]
    assert lexicon.rows_of("bat").tolist() == []


def test_a_lexicon_cannot_be_changed_through_its_table():
    lexicon = Lexicon.from_genes("mouse", ["a"])
    table_of_it = lexicon.table
    table_of_it.loc[0, "gene_id"] = "changed"
    assert lexicon.table["gene_id"].tolist() == ["a"]


@given(names, names)
def test_extending_never_moves_an_index(old, new):
    before = Lexicon.from_genes("mouse", old)
    after = before.extend(table("mouse", new))
    assert after.table["gene_id"].tolist()[: len(old)] == old
    assert after.table["gene_id"].tolist() == list(dict.fromkeys([*old, *new]))
    assert after.index_of("mouse", old).tolist() == list(range(len(old)))
    assert after.map_from(before).tolist() == list(range(len(old)))
    assert Lexicon.merge([before, after]) == after


def test_map_from_another_lexicon():
    one = Lexicon.from_genes("mouse", ["a", "b"]).extend(table("human", ["c"]))
    two = Lexicon.from_genes("human", ["x", "c"]).extend(table("mouse", ["b"]))
    assert two.map_from(one).tolist() == [-1, 2, 1]


def test_the_fingerprint_tells_order_and_species_and_not_symbols():
    base = Lexicon.from_genes("mouse", ["a", "b"])
    assert base.fingerprint == Lexicon.from_genes("mouse", ["a", "b"], ["x", "y"]).fingerprint
    others = [Lexicon.from_genes("mouse", ["b", "a"]), Lexicon.from_genes("human", ["a", "b"])]
    others.append(Lexicon.from_genes("mouse", ["a"]))
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 4


@given(names)
def test_saving_and_loading(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.parquet"
    lexicon = Lexicon.from_genes("mouse", ids, [f"s{i}" for i in range(len(ids))])
    lexicon.save(path)
    loaded = Lexicon.load(path)
    assert loaded == lexicon
    pd.testing.assert_frame_equal(loaded.table, lexicon.table, check_dtype=len(ids) > 0)
    assert [file.name for file in path.parent.iterdir()] == ["lexicon.parquet"]


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "lexicon.parquet"
    Lexicon.from_genes("mouse", ["a", "b"]).save(path)
    stored = pq.read_table(path)
    changed = stored.set_column(1, "gene_id", pa.array(["a", "X"]))
    pq.write_table(changed.replace_schema_metadata(stored.schema.metadata), path)
    with pytest.raises(InputError, match="damaged"):
        Lexicon.load(path)


def test_files_that_are_no_lexicon_are_refused(tmp_path):
    path = tmp_path / "lexicon.parquet"
    with pytest.raises(InputError, match="no such file"):
        Lexicon.load(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="not a lexicon"):
        Lexicon.load(path)
    pq.write_table(pa.table({"gene_id": ["a"]}), path)
    with pytest.raises(InputError, match="not a lexicon"):
        Lexicon.load(path)
    stamp = {b"lexicell.lexicon": json.dumps({"format": 99, "fingerprint": "x"})}
    pq.write_table(pa.table({"gene_id": ["a"]}).replace_schema_metadata(stamp), path)
    with pytest.raises(InputError, match="format 99"):
        Lexicon.load(path)


@pytest.mark.parametrize("ids", [["a", "a"], [""], ["a\tb"], ["a\nb"], ["a\0"], [np.nan], [3]])
def test_bad_ids_are_refused(ids):
    with pytest.raises(InputError, match="lexicon"):
        Lexicon.from_genes("mouse", ids)


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="lacks gene_id"):
        Lexicon(pd.DataFrame({"species": ["mouse"], "symbol": ["a"]}))
    with pytest.raises(InputError, match="2 gene ids but 1 symbols"):
        Lexicon.from_genes("mouse", ["a", "b"], ["a"])
