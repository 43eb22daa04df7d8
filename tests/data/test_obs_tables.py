import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from lexicell.data import obs_tables
from lexicell.errors import InputError
from lexicell.workflows.prepare import prepare

CELLS = ["c0", "c1", "c2", "c3", "c4", "c5"]
LABELS = ["class", "cluster"]


@pytest.fixture
def folder(tmp_path):
    """Six cells, a table that knows five of them and two of other files, and their clusters in a long table."""
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(2, (6, 5)).astype(np.float32))
    obs = pd.DataFrame({"donor": ["own"] * 6, "batch": list("xxyyyz")}, index=CELLS)
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=list("ABCDE"))).write_h5ad(tmp_path / "cells.h5ad")
    cells = {"cell": ["o1", "c4", "c1", "c0", "o2", "c2", "c3"], "donor": ["", "d2", "d1", "d1", "d3", "", "d2"]}
    pd.DataFrame({**cells, "alias": ["7", "1", "2", "1", "2", "3", "2"]}).to_csv(tmp_path / "cells.csv", index=False)
    terms = [(key, name, f"{name} {value}") for key, value in (("1", "a"), ("2", "b"), ("3", "c")) for name in LABELS]
    frame = pd.DataFrame(terms, columns=["alias", "set", "term"]).replace("class c", "class a")
    frame.to_csv(tmp_path / "terms.csv", index=False)
    pd.DataFrame({"batch": list("xyz"), "sex": list("fmf")}).to_csv(tmp_path / "batches.tsv.gz", sep="\t", index=False)
    return tmp_path


def entry(folder, **changes):
    joins = [{"path": str(folder / "terms.csv"), "key": "alias", "names": "set", "values": "term"}]
    obs = {"path": str(folder / "cells.csv"), "key": "cell", "joins": joins, **changes}
    dataset = {"path": folder / "cells.h5ad", "species": "mouse", "donor": "donor", "labels": LABELS, "obs": obs}
    return {"datasets": [{**dataset, "keep": ["batch"]}]}


def test_tables_are_joined_and_cells_without_a_row_are_left_out_and_counted(folder):
    result = prepare(entry(folder), folder / "store")
    obs = result.store.obs
    assert obs.index.tolist() == CELLS[:5]
    assert obs["donor"].astype(object).where(obs["donor"].notna(), None).tolist() == ["d1", "d1", None, "d2", "d2"]
    assert obs["cluster"].tolist() == [f"cluster {kind}" for kind in "abcba"]
    assert obs["class"].tolist() == [f"class {kind}" for kind in "ababa"]
    assert obs["batch"].tolist() == list("xxyyy")
    whole = ad.read_h5ad(folder / "cells.h5ad")
    assert (result.store.to_anndata().X.toarray() == whole.X.toarray()[:5]).all()
    assert result.sources[0]["notes"][-1] == (
        "cell annotation from cells.csv: 1 of 6 cells have no row in it and are left out"
    )
    assert prepare(entry(folder), folder / "few", balance="class:1").store.n_cells == 2


def test_cells_without_a_row_can_be_kept(folder):
    store = prepare(entry(folder, missing="keep"), folder / "store").store
    assert store.n_cells == 6
    assert store.obs[["donor", *LABELS]].iloc[5].isna().all()


def test_species_from_a_table(folder):
    table = pd.read_csv(folder / "cells.csv", dtype=str).assign(organism=["", *["mouse", "human"] * 3])
    table.to_csv(folder / "cells.csv", index=False)
    corpus = entry(folder)
    corpus["datasets"][0]["species"] = {"obs": "organism"}
    store = prepare(corpus, folder / "store").store
    assert {source.species: source.stop - source.start for source in store.sources} == {
        "homo_sapiens": 2, "mus_musculus": 3,
    }  # fmt: skip
    assert sorted(store.obs.index) == CELLS[:5]


def test_a_table_of_few_rows_for_many_cells(folder):
    dataset = {"path": folder / "cells.h5ad", "species": "mouse", "keep": ["sex"]}
    dataset["obs"] = {"path": str(folder / "batches.tsv.gz"), "on": "batch"}
    store = prepare({"datasets": [dataset]}, folder / "store").store
    assert store.obs["sex"].tolist() == list("ffmmmf")


def test_the_table_is_read_in_pieces(folder, monkeypatch):
    whole = prepare(entry(folder), folder / "one").store.fingerprint
    monkeypatch.setattr(obs_tables, "_BLOCK_BYTES", 40)
    assert prepare(entry(folder), folder / "two").store.fingerprint == whole


def test_a_changed_table_is_noticed_by_an_interrupted_run(folder, monkeypatch):
    def stop(self, details=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lexicell.data.store_writer.StoreWriter.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(entry(folder), folder / "store")
    text = (folder / "cells.csv").read_text()
    (folder / "cells.csv").write_text(text.replace("d1", "d9"))
    assert set(prepare(entry(folder), folder / "store").store.obs["donor"].dropna()) == {"d9", "d2"}


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


FAULTS = {
    "gone": (lambda folder: (folder / "cells.csv").unlink(), {}, r"cells\.csv: there is no such file"),
    "a folder": (None, {"path": "."}, "cannot be read as a table"),
    "empty": (write("cells.csv", ""), {}, r"cells\.csv: cannot be read as a table"),
    "ragged": (write("cells.csv", "cell,alias\nc0\n"), {}, r"cannot be read as a table .*[Ee]xpected 2 columns"),
    "binary": (lambda folder: (folder / "cells.csv").write_bytes(b"cell,alias\n\xff\xfe,1\n"), {}, "UTF8"),
    "columns twice": (write("cells.csv", "cell,cell\nc0,1\n"), {}, "columns 'cell' stand more than once"),
    "key twice": (
        write("cells.csv", "cell,donor,alias\nc0,d,1\nc1,d,1\nc0,d,2\n"),
        {},
        "1 rows repeat a 'cell' that .*c0",
    ),
    "no such key": (None, {"key": "name"}, "has no column 'name'; it has cell, donor, alias"),
    "no such on": (None, {"on": "name"}, "on: no column 'name' in the cell annotation of the file; it has 'donor'"),
    "no cell known": (None, {"key": "alias"}, "knows none of the 6 cells: they are called c0, .* holds '7' and"),
    "join gone": (None, {"joins": ["none.csv"]}, r"none\.csv: there is no such file"),
    "join twice": (
        write("terms.csv", "alias,set,term\n1,class,a\n1,class,b\n"),
        {},
        r"have a key that stood before \(class of 1\)",
    ),
    "join lacks a column": (write("terms.csv", "alias,set\n1,class\n"), {}, "has no column 'term'"),
    "join of nothing": (write("terms.csv", "alias,set,term\nx,class,a\n"), {}, r"none of the keys .* it has x"),
    "labels nowhere": (write("terms.csv", "alias,set,term\n1,class,a\n"), {}, "no column 'cluster' in the cell ann"),
    "unknown key": (None, {"pth": "x"}, "obs: unknown key 'pth'; did you mean 'path'"),
    "no path": (None, {"path": None}, "obs: path: is missing"),
    "joins of no kind": (None, {"joins": 3}, "joins: expected a list of tables, found 3"),
    "half a long table": (None, {"joins": [{"path": "x.csv", "names": "a"}]}, "names, values: give both"),
    "missing": (None, {"missing": "maybe"}, "missing: expected one of drop, keep, found 'maybe'"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_are_named(folder, kind):
    change, changes, message = FAULTS[kind]
    if change is not None:
        change(folder)
    with pytest.raises(InputError, match=message):
        prepare(entry(folder, **changes), folder / "store")
    assert not (folder / "store").exists()


def test_a_join_on_a_column_that_is_not_there(folder):
    joins = [{"path": str(folder / "terms.csv"), "key": "alias", "on": "nothing", "names": "set", "values": "term"}]
    with pytest.raises(InputError, match="is joined on 'nothing', but the table of cells has no such column"):
        prepare(entry(folder, joins=joins), folder / "store")
