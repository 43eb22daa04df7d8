import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from lexicell.data.query import open_query, read_query, store_queries
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon

GENES = ["a", "b", "c", "d"]


@pytest.fixture
def lexicon():
    mouse = Lexicon.from_genes("mouse", ["c", "b", "a"], ["Cc", "Bb", "Aa"])
    return mouse.extend(Lexicon.from_genes("human", GENES).table)


@pytest.fixture
def adata():
    counts = sp.csr_matrix(np.array([[1, 0, 2, 7], [0, 3, 0, 0]], dtype=np.float32))
    obs = pd.DataFrame({"type": ["x", "y"]}, index=["c0", "c1"])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))


def test_counts_meet_the_lexicon(adata, lexicon):
    query = read_query(adata, lexicon, species="mouse")
    assert query.species == "mus_musculus"
    assert query.counts.toarray().tolist() == [[1, 0, 2, 7], [0, 3, 0, 0]]
    assert query.counts.dtype == np.int32
    assert query.gene_index.tolist() == [2, 1, 0, -1]
    assert (query.report.n_matched, query.report.n_unmatched) == (3, 1)
    assert query.report.count_share == pytest.approx(6 / 13)
    assert query.obs["type"].tolist() == ["x", "y"]
    assert query.n_cells == 2
    assert query.notes == ("counts from X", "species mus_musculus (as asked)", "genes by the index of var")
    assert read_query(adata, lexicon, species="human").gene_index.tolist() == [3, 4, 5, 6]


def test_a_file_gives_the_same(adata, lexicon, tmp_path):
    adata.write_h5ad(tmp_path / "q.h5ad")
    query = read_query(tmp_path / "q.h5ad", lexicon, species="mouse")
    assert (query.counts != read_query(adata, lexicon, species="mouse").counts).nnz == 0
    assert query.obs.index.tolist() == ["c0", "c1"]


def test_the_species_is_found(adata, lexicon):
    with pytest.raises(InputError, match="says nothing of its species"):
        read_query(adata, lexicon)
    with pytest.raises(InputError, match="the model does not know; it knows mus_musculus, homo_sapiens"):
        read_query(adata, lexicon, species="zebrafish")
    adata.obs["organism"] = ["Homo sapiens", "human"]
    assert read_query(adata, lexicon).notes[1] == "species homo_sapiens (from obs)"
    adata.uns["species"] = "mouse"
    assert read_query(adata, lexicon).notes[1] == "species mus_musculus (from uns)"
    del adata.uns["species"]
    adata.obs["organism"] = ["human", "mouse"]
    with pytest.raises(InputError, match="one species at a time"):
        read_query(adata, lexicon)
    del adata.obs["organism"]
    alone = Lexicon.from_genes("mouse", GENES)
    assert "the only one of the model" in read_query(adata, alone).notes[1]


def test_a_guessed_species_must_fit_the_spelling(adata):
    adata.var_names = ["GAD1", "SST", "VIP", "MOG"]
    lexicon = Lexicon.from_genes("mouse", ["Gad1", "Sst", "Vip", "Mog"])
    with pytest.raises(InputError, match="without regard to case"):
        read_query(adata, lexicon)
    assert read_query(adata, lexicon, species="mouse").gene_index.tolist() == [0, 1, 2, 3]


def test_genes_are_found_by_the_names_that_fit_best(adata, lexicon):
    adata.var["gene_symbol"] = GENES
    adata.var_names = ["p", "q", "r", "s"]
    query = read_query(adata, lexicon, species="human")
    assert query.gene_index.tolist() == [3, 4, 5, 6]
    assert query.notes[2] == "genes by var['gene_symbol']"


def test_genes_of_one_word_are_summed(adata, lexicon):
    adata.var_names = ["a", "b", "Aa", "x"]
    query = read_query(adata, lexicon, species="mouse")
    assert query.gene_index.tolist() == [2, 1, -1]
    assert query.counts.toarray().tolist() == [[3, 0, 7], [0, 3, 0]]
    assert query.report.n_duplicates == 1


def test_the_matrix_with_counts_is_taken(adata, lexicon):
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    assert read_query(adata, lexicon, species="mouse").matrix == "layers/counts"
    with pytest.raises(InputError, match="write 'counts: layers/counts'"):
        read_query(adata, lexicon, species="mouse", counts="X")
    del adata.layers["counts"]
    with pytest.raises(InputError, match="X holds no raw counts: fractional"):
        read_query(adata, lexicon, species="mouse")


def test_a_query_of_other_genes_is_refused(adata, lexicon):
    adata.var_names = ["w", "x", "y", "z"]
    with pytest.raises(InputError, match="the model knows 0 of its 4 genes"):
        read_query(adata, lexicon, species="mouse")
    with pytest.raises(InputError, match="no cells"):
        read_query(adata[:0].copy(), lexicon, species="mouse")


@pytest.mark.parametrize("layout", [sp.csc_matrix, lambda m: m.toarray()])
def test_every_layout(adata, lexicon, layout):
    expected = read_query(adata, lexicon, species="mouse").counts
    adata.X = layout(adata.X)
    assert (read_query(adata, lexicon, species="mouse").counts != expected).nnz == 0


@pytest.fixture
def lexicon_of_cells(stores):
    return stores[0].lexicon


def test_a_store_is_read_as_queries(stores, cells, monkeypatch):
    monkeypatch.setattr("lexicell.data.query._CELLS_AT_ONCE", 50)
    lexicon = stores[1].lexicon.extend(stores[0].lexicon.table)
    chosen = np.arange(0, 120, 2)
    parts = list(store_queries(stores[0], chosen, lexicon))
    assert [part.n_cells for part in parts] == [50, 10]
    assert {part.species for part in parts} == {"simulus_albus"}
    for part in parts:
        assert (part.gene_index >= len(stores[1].lexicon)).all()
        assert part.report.n_matched == part.report.n_genes == 400
    read = read_query(cells[chosen].copy(), lexicon, species="simulus_albus")
    order = np.argsort(read.gene_index)
    got = sp.vstack([part.counts for part in parts])[:, np.argsort(parts[0].gene_index)]
    assert (got != read.counts[:, order]).nnz == 0
    with pytest.raises(InputError, match="the model knows none of its genes"):
        list(store_queries(stores[0], chosen, stores[1].lexicon))


def test_some_parts_alone(adata, lexicon):
    with open_query(adata, lexicon, "mouse") as cells:
        whole = list(cells.parts(2))
        some = list(cells.parts(2, every=2))
        assert [part.obs.index.tolist() for part in some] == [part.obs.index.tolist() for part in whole[::2]]
        assert (some[-1].counts != whole[::2][-1].counts).nnz == 0


def test_parts_of_a_matrix_that_lies_gene_by_gene(cells, lexicon_of_cells, tmp_path, monkeypatch):
    monkeypatch.setattr("lexicell.data.readers.bands.BLOCK_ENTRIES", 500)
    turned = cells.copy()
    turned.X = sp.csc_matrix(turned.X)
    turned.write_h5ad(tmp_path / "turned.h5ad")
    expected = read_query(cells.copy(), lexicon_of_cells)
    with open_query(tmp_path / "turned.h5ad", lexicon_of_cells) as opened:
        parts = list(opened.parts(17))
        assert [part.n_cells for part in parts] == [17] * 7 + [1]
        assert (sp.vstack([part.counts for part in parts]) != expected.counts).nnz == 0
        assert opened.counted() == expected.report
