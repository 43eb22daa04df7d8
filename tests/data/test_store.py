import errno
import json
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lexicell.data import store_format as fmt
from lexicell.data.store import Store
from lexicell.data.store_writer import Part, StoreWriter, check_target, staging_folder
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon

MOUSE = "mus_musculus"


def obs_of(n, prefix="c", **columns):
    return pd.DataFrame(columns, index=[f"{prefix}{i}" for i in range(n)])


def write(path, matrices, n_genes, *, label_levels=(), obs=None, chunk=None, **options):
    lexicon = Lexicon.from_genes(MOUSE, [f"g{i}" for i in range(n_genes)])
    with StoreWriter(path, lexicon, label_levels, **options) as writer:
        for place, matrix in enumerate(matrices):
            step = chunk or max(matrix.shape[0], 1)
            chunks = [matrix[a : a + step] for a in range(0, matrix.shape[0], step)]
            table = obs[place] if obs else obs_of(matrix.shape[0])
            writer.add(Part(f"s{place}", MOUSE, np.arange(n_genes)), chunks, table)
        writer.finish()
    return Store.open(path)


def dense(rows, n_genes):
    shape = (len(rows.indptr) - 1, n_genes)
    return sp.csr_matrix((rows.counts, rows.genes.astype(np.int64), rows.indptr), shape=shape).toarray()


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    matrix = rng.poisson(0.5, (40, 30)).astype(np.float32)
    matrix[3, 4], matrix[20, 0], matrix[7], matrix[9, 29] = 70_000, 65_535, 0, 2**31 - 128
    return matrix


@pytest.fixture
def store(tmp_path, counts):
    obs = obs_of(40, donor=["d1", "d2"] * 20, kind=pd.Categorical(["a", "b", None, "a"] * 10))
    matrix = sp.csr_matrix(counts)
    second = obs_of(40, sex=["f"] * 40)
    return write(tmp_path / "store", [matrix, matrix], 30, label_levels=("kind",), obs=[obs, second], chunk=7)


def test_files_with_many_donors_each_become_one_store(tmp_path):
    counts = sp.csr_matrix(np.ones((100, 3), np.float32))
    obs = [obs_of(100, donor=[f"d{part}_{cell}" for cell in range(100)], kept=["x"] * 100) for part in range(4)]
    store = write(tmp_path / "store", [counts] * 4, 3, obs=obs)
    expected = [f"d{part}_{cell}" for part in range(4) for cell in range(100)]
    assert store.obs["donor"].astype(str).tolist() == expected
    assert store.obs["donor"].cat.categories.size == 400
    assert store.verify() == []


def test_what_was_written_is_read(store, counts):
    both = np.concatenate([counts, counts]).astype(np.int64)
    assert (store.n_cells, store.n_genes, store.nnz) == (80, 30, np.count_nonzero(both))
    assert dense(store.slice(0, 80), 30).tolist() == both.tolist()
    assert dense(store.slice(38, 43), 30).tolist() == both[38:43].tolist()
    assert len(store.slice(50, 40).indptr) == 1
    rows = store.rows([20, 3, 3, 79, 9])
    assert rows.counts.dtype == np.int32
    assert rows.genes.dtype == np.uint8
    assert dense(rows, 30).tolist() == both[[20, 3, 3, 79, 9]].tolist()
    assert store.rows([]).indptr.tolist() == [0]
    assert store.verify() == []


def test_obs(store, counts):
    obs = store.obs
    assert list(obs.columns) == ["source", "species", "donor", "kind", "sex", "depth", "n_genes"]
    assert list(store.columns) == list(obs.columns)
    assert obs["depth"].tolist() == np.concatenate([counts, counts]).astype(np.int64).sum(1).tolist()
    assert obs["n_genes"].tolist() == (np.concatenate([counts, counts]) > 0).sum(1).tolist()
    assert obs["source"].tolist() == ["s0"] * 40 + ["s1"] * 40
    assert obs["kind"].tolist()[:2] == ["a", "b"]
    assert obs["kind"].iloc[40:].isna().all()
    for column in ("source", "species", "donor", "kind", "sex"):
        assert isinstance(obs[column].dtype, pd.CategoricalDtype), column
    assert obs.index[:2].tolist() == ["c0", "c1"]
    some = Store.open(store.path).obs_columns(["donor", "depth"])
    assert some["donor"].tolist() == obs["donor"].tolist()
    assert isinstance(some["donor"].dtype, pd.CategoricalDtype)
    with pytest.raises(KeyError, match="no column"):
        store.obs_columns(["nothing"])
    assert store.label_tree().names == (("a", "b"),)


def test_anndata_round_trip(store, counts):
    adata = store.to_anndata()
    assert adata.X.toarray().tolist() == np.concatenate([counts, counts]).astype(np.int64).tolist()
    assert adata.obs_names.is_unique
    assert adata.obs_names[0] == "s0:c0"
    assert adata.uns["species"] == MOUSE
    assert adata.var["symbol"].tolist() == [f"g{i}" for i in range(30)]
    part = store.to_anndata([5, 2])
    assert part.X.toarray().tolist() == counts[[5, 2]].astype(np.int64).tolist()
    assert part.obs_names.tolist() == ["s0:c5", "s0:c2"]  # the same names whatever part of the store it is


def test_two_species_may_share_an_id(tmp_path):
    lexicon = Lexicon.from_genes("mouse", ["a"]).extend(Lexicon.from_genes("human", ["a"]).table)
    with StoreWriter(tmp_path / "s", lexicon) as writer:
        writer.add(Part("m", MOUSE, np.array([0])), [sp.csr_matrix([[3, 0]])], obs_of(1))
        writer.add(Part("h", "homo_sapiens", np.array([1])), [sp.csr_matrix([[0, 4]])], obs_of(1))
        writer.finish()
    store = Store.open(tmp_path / "s")
    assert [source.panel.tolist() for source in store.sources] == [[0], [1]]
    assert store.to_anndata().var_names.tolist() == ["mus_musculus:a", "homo_sapiens:a"]
    assert store.verify() == []
    assert store.label_tree() is None


@pytest.mark.parametrize("indices", [[-1], [80], [0, 1000]])
def test_cells_outside_are_refused(store, indices):
    with pytest.raises(IndexError, match="cells run from 0 to 79"):
        store.rows(indices)
    with pytest.raises(ValueError, match="one dimension"):
        store.rows([[0]])


def test_a_worker_process_gets_the_path_and_not_the_data(store):
    text = pickle.dumps(store)
    assert len(text) < 500
    assert pickle.loads(text).fingerprint == store.fingerprint  # noqa: S301 (our own bytes)


def test_the_fingerprint_is_of_the_content(tmp_path, counts):
    matrix = sp.csr_matrix(counts)
    one = write(tmp_path / "one", [matrix], 30)
    two = write(tmp_path / "two", [matrix], 30, chunk=3)
    other = counts.copy()
    other[0, 0] += 1
    three = write(tmp_path / "three", [sp.csr_matrix(other)], 30)
    assert one.fingerprint == two.fingerprint != three.fingerprint


def test_duplicates_are_summed_zeros_dropped_and_genes_sorted(tmp_path):
    matrix = sp.csr_matrix((np.array([1, 2, 0, 4, 65_000, 600]), [4, 1, 2, 4, 3, 3], [0, 4, 6]), shape=(2, 5))
    store = write(tmp_path / "s", [matrix], 5)
    rows = store.slice(0, 2)
    assert rows.genes.tolist() == [1, 4, 3]
    assert rows.counts.tolist() == [2, 5, 65_600]
    assert store.verify() == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    matrix=hnp.arrays(
        np.int64,
        st.tuples(st.integers(0, 8), st.integers(1, 300)),
        elements=st.sampled_from([0, 0, 0, 0, 1, 2, 300, 65_534, 65_535, 65_536, 2**31 - 1]),
    ),
    chunk=st.integers(1, 5),
    data=st.data(),
)
def test_any_counts_survive(tmp_path_factory, matrix, chunk, data):
    path = tmp_path_factory.mktemp("fuzz") / "s"
    store = write(path, [sp.csr_matrix(matrix)], matrix.shape[1], chunk=chunk)
    assert store.verify() == []
    assert (dense(store.slice(0, len(matrix)), matrix.shape[1]) == matrix).all()
    if len(matrix):
        index = data.draw(st.lists(st.integers(0, len(matrix) - 1), max_size=6))
        assert (dense(store.rows(index), matrix.shape[1]) == matrix[index].reshape(len(index), matrix.shape[1])).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_found(store, data):
    files = sorted(file for file in store.path.rglob("*") if file.is_file())
    file = data.draw(st.sampled_from(files), label="file")
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1), label="place")
    bit = data.draw(st.integers(0, 7), label="bit")
    file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
    try:
        assert Store.problems(store.path) != []
    finally:
        file.write_bytes(whole)


def test_verify_looks_behind_the_checksums(store):
    """A store that was changed and sealed again still has to make sense."""

    def reseal(name, array):
        np.save(store.path / name, array)
        meta = json.loads((store.path / fmt.META).read_bytes())
        meta["checksums"][name] = fmt.checksum_of(store.path / name)
        (store.path / fmt.META).write_bytes(fmt.canonical_json(fmt.seal(meta)))
        return " ".join(Store.problems(store.path))

    genes, counts, indptr = (np.load(store.path / name) for name in (fmt.GENES, fmt.COUNTS, fmt.INDPTR))
    assert "do not ascend" in reseal(fmt.GENES, genes[::-1].copy())
    changed = genes.copy()
    changed[0] = 200
    assert "outside the lexicon" in reseal(fmt.GENES, changed)
    reseal(fmt.GENES, genes)
    changed = counts.copy()
    changed[5] = 0
    assert "stores a zero" in reseal(fmt.COUNTS, changed)
    changed = counts.copy()
    changed[5] += 1
    assert "depth does not agree" in reseal(fmt.COUNTS, changed)
    reseal(fmt.COUNTS, counts)
    changed = indptr.copy()
    changed[1:3] = changed[2], changed[1]
    assert "does not rise" in reseal(fmt.INDPTR, changed)
    reseal(fmt.INDPTR, indptr)
    assert "not on its panel" in reseal("panels/000.npy", np.arange(5))
    assert reseal("panels/000.npy", np.arange(30)) == ""


@pytest.mark.parametrize("name", [fmt.GENES, fmt.COUNTS, fmt.INDPTR, fmt.OBS, fmt.LEXICON, "panels/000.npy", fmt.META])
def test_missing_and_foreign_files_are_found(store, name):
    (store.path / "stray.txt").write_text("x")
    assert Store.problems(store.path) == ["stray.txt: does not belong to the store."]
    (store.path / name).unlink()
    assert any(name in problem for problem in Store.problems(store.path))
    if name != fmt.OBS:
        with pytest.raises(InputError):
            Store.open(store.path)


class Malice:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize("name", [fmt.GENES, fmt.INDPTR, "panels/000.npy"])
def test_a_pickle_in_an_array_is_never_loaded(store, name, capsys):
    np.save(store.path / name, np.array([Malice()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a plain array"):
        Store.open(store.path)
    assert Store.problems(store.path) != []
    assert "must never run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "store format 99"),
        ({"format": "other"}, "not a lexicell store"),
        ({"n_cells": 3}, "does not bear out"),
        ({"name": "renamed"}, "does not bear out"),
    ],
)
def test_opening_checks_the_description(store, change, message):
    meta = json.loads((store.path / fmt.META).read_bytes())
    (store.path / fmt.META).write_bytes(fmt.canonical_json({**meta, **change}))
    with pytest.raises(InputError, match=message):
        Store.open(store.path)


def test_opening_what_is_no_store(tmp_path, store):
    with pytest.raises(InputError, match="not there"):
        Store.open(tmp_path / "none")
    with pytest.raises(InputError, match=r"no meta\.json"):
        Store.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a file"):
        Store.open(tmp_path / "file")
    np.save(store.path / fmt.COUNTS, np.load(store.path / fmt.COUNTS)[:-1])
    with pytest.raises(InputError, match=r"expected uint16"):
        Store.open(store.path)


def test_a_damaged_row_index_is_no_crash(store):
    store.indptr = store.indptr.copy()
    store.indptr[4] = 10**9
    with pytest.raises(InputError, match="damaged"):
        store.rows([3, 4])


def test_nothing_stands_at_the_target_before_the_end(tmp_path, counts):
    path = tmp_path / "s"
    lexicon = Lexicon.from_genes(MOUSE, [f"g{i}" for i in range(30)])
    writer = StoreWriter(path, lexicon).__enter__()
    writer.add(Part("a", MOUSE, np.arange(30)), [sp.csr_matrix(counts)], obs_of(40))
    assert not path.exists()
    writer.__exit__(None, None, None)
    assert not path.exists()
    assert staging_folder(path).is_dir()  # a whole part is worth keeping
    write(path, [sp.csr_matrix(counts)], 30)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s"]


def test_one_source_is_not_copied_where_files_can_have_two_names(tmp_path, counts, monkeypatch):
    matrix = sp.csr_matrix(counts)
    lexicon = Lexicon.from_genes(MOUSE, [f"g{i}" for i in range(30)])
    with StoreWriter(tmp_path / "linked", lexicon) as writer:
        writer.add(Part("s0", MOUSE, np.arange(30)), [matrix], obs_of(40))
        parts = {name: (writer.part_folder(0) / name).stat().st_ino for name in (fmt.GENES, fmt.COUNTS)}
        writer.finish()
    assert parts == {name: (tmp_path / "linked" / name).stat().st_ino for name in parts}

    def refuse(*_):
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    copied = write(tmp_path / "copied", [matrix], 30)
    assert copied.fingerprint == Store.open(tmp_path / "linked").fingerprint
    assert Store.open(tmp_path / "linked").verify() == []


def test_values_that_are_no_counts_leave_nothing_behind(tmp_path, counts):
    counts[4, 4] = 0.5
    with pytest.raises(InputError, match=r"s0: fractional value 0.5"):
        write(tmp_path / "s", [sp.csr_matrix(counts)], 30)
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_is_refused(tmp_path, counts):
    lexicon = Lexicon.from_genes(MOUSE, ["g"])
    with StoreWriter(tmp_path / "s", lexicon), pytest.raises(InputError, match="another process is writing"):
        StoreWriter(tmp_path / "s", lexicon).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_overwriting_on_purpose_only(tmp_path, counts):
    path = tmp_path / "s"
    old = write(path, [sp.csr_matrix(counts)], 30)
    with pytest.raises(InputError, match="stands there already"):
        write(path, [sp.csr_matrix(counts[:5])], 30)
    new = write(path, [sp.csr_matrix(counts[:5])], 30, overwrite=True)
    assert (new.n_cells, old.n_cells) == (5, 40)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("x")
    with pytest.raises(InputError, match="holds other things"):
        check_target(tmp_path / "other", overwrite=True)
    with pytest.raises(InputError, match="a file or a link"):
        check_target(tmp_path / "other" / "thesis.doc", overwrite=True)


def test_obs_of_another_length_is_our_bug(tmp_path, counts):
    with pytest.raises(ValueError, match="40 cells were written, but obs has 3 rows"):
        write(tmp_path / "s", [sp.csr_matrix(counts)], 30, obs=[obs_of(3)])


def test_headers_of_any_length_are_equally_long():
    assert len({len(fmt.npy_header(np.dtype(np.uint16), length)) for length in (0, 7, 10**6, 10**12)}) == 1


def test_gene_types_are_the_smallest():
    assert [fmt.gene_dtype(n).name for n in (0, 1, 256, 257, 65_536, 65_537)] == [
        "uint8", "uint8", "uint8", "uint16", "uint16", "uint32",
    ]  # fmt: skip
