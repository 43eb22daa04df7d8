import gzip
from itertools import pairwise

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lexicell.data.matrix_choice import choose_matrix, remedy
from lexicell.data.readers import open_source
from lexicell.data.readers.bands import BandedMatrix, turned
from lexicell.data.readers.matrices import CompressedMatrix, DenseMatrix, cut
from lexicell.errors import InputError

N, G = 23, 11


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(0.7, (N, G)).astype(np.float32)


@pytest.fixture
def adata(counts):
    obs = pd.DataFrame({"donor": pd.Categorical(["a", "b"] * 11 + ["a"]), "n": range(N)})
    obs.index = [f"Zelle-ä{i}" for i in range(N)]
    var = pd.DataFrame({"symbol": [f"S{i}" for i in range(G)]}, index=[f"g{i}" for i in range(G)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var, uns={"species": "mouse"})


def whole(matrix, limit):
    blocks = [matrix.read(start, stop) for start, stop in pairwise(matrix.edges(limit).tolist())]
    dense = np.zeros((matrix.n_cells, matrix.n_genes))
    first = 0
    for block in blocks:
        cells = np.repeat(np.arange(len(block.indptr) - 1), np.diff(block.indptr)) + first
        np.add.at(dense, (cells, block.genes), block.data)
        first += len(block.indptr) - 1
    assert first == matrix.n_cells
    return dense


def of_entries(matrix):
    dense = np.zeros((matrix.n_cells, matrix.n_genes))
    for piece in matrix.entries():
        np.add.at(dense, (piece.cells, piece.genes), piece.values)
    return dense


LAYOUTS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": lambda m: m.toarray()}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("place", ["memory", "file", "backed", "zarr"])
@pytest.mark.filterwarnings("ignore:.*[Zz]arr.*")
def test_every_layout_gives_the_same_cells(adata, counts, tmp_path, layout, place):
    adata.X = LAYOUTS[layout](adata.X)
    data = adata
    if place in ("file", "backed"):
        data = tmp_path / "a.h5ad"
        adata.write_h5ad(data, compression="gzip")
        if place == "backed":
            data = ad.read_h5ad(data, backed="r")
    if place == "zarr":
        data = tmp_path / "a.zarr"
        adata.write_zarr(data)
    with open_source(data) as source:
        assert (source.n_cells, source.species, source.matrices) == (N, "mouse", ("X",))
        assert source.obs_columns == ("donor", "n")
        obs = source.obs(["donor"])
        assert obs["donor"].tolist() == adata.obs["donor"].tolist()
        assert obs.index.tolist() == adata.obs_names.tolist()
        assert source.var("X")["symbol"].tolist() == adata.var["symbol"].tolist()
        matrix = source.matrix("X")
        assert (of_entries(matrix) == counts).all()
        sample = matrix.sample(10**6)
        assert (counts[sample.cells, sample.genes] == sample.values).all()
        assert len(matrix.sample(30).values) <= 60
        for limit in (1, 20, 10**6):
            assert (whole(turned(matrix, tmp_path / f"scratch{limit}", limit), limit) == counts).all()
    if place == "backed":
        data.file.close()


@pytest.mark.parametrize("n_genes", [300, 70_000])
def test_bands_hold_cells_and_genes_that_need_more_than_two_bytes(tmp_path, n_genes):
    counts = sp.random(200_000, n_genes, density=0.01 / n_genes, format="csc", rng=0, dtype=np.float32)
    counts.data = np.arange(1, counts.nnz + 1, dtype=np.float32)
    matrix = CompressedMatrix("X", counts.data, counts.indices, counts.indptr, counts.shape, by_cell=False)
    banded = BandedMatrix(matrix, tmp_path, limit=10**6)
    assert len(banded.edges()) > 3
    blocks = [banded.read(start, stop) for start, stop in pairwise(banded.edges().tolist())]
    rows = counts.tocsr()
    assert (np.concatenate([block.data for block in blocks]) == rows.data).all()
    assert (np.concatenate([block.genes for block in blocks]) == rows.indices).all()
    assert (np.concatenate([np.diff(block.indptr) for block in blocks]) == np.diff(rows.indptr)).all()
    assert (np.concatenate([piece.cells for piece in banded.entries()]).max()) == counts.tocoo().row.max()


def test_layers_and_raw_are_found(adata, counts, tmp_path):
    wide = adata.copy()
    small = adata[:, :4].copy()
    small.raw = wide
    small.layers["counts"] = small.X.copy()
    small.X = small.X.toarray() / 3
    path = tmp_path / "a.h5ad"
    small.write_h5ad(path)
    for data in (small, path):
        with open_source(data) as source:
            assert source.matrices == ("X", "layers/counts", "raw")
            assert len(source.var("raw")) == G
            assert len(source.var("X")) == 4
            assert (whole(source.matrix("raw"), 50) == counts).all()
            choice = choose_matrix(source, None)
            assert choice.matrix == "layers/counts"
            assert choice.said == "counts from layers/counts, X holds none"
            assert remedy(source, "X").startswith("layers/counts, raw hold raw counts")
            assert choose_matrix(source, "raw").matrix == "raw"
            with pytest.raises(InputError, match="layers/counts, raw hold raw counts"):
                choose_matrix(source, "X")


def test_an_empty_matrix_is_not_chosen(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = sp.csr_matrix(adata.shape)
    with open_source(adata) as source:
        assert choose_matrix(source, None).matrix == "layers/counts"


def test_the_rna_modality_of_h5mu(adata, tmp_path):
    path = tmp_path / "a.h5mu"
    with h5py.File(path, "w") as file:
        for name in ("rna", "atac"):
            ad.io.write_elem(file, f"mod/{name}", adata[:, :5] if name == "atac" else adata)
    with open_source(path) as source:
        assert source.matrix("X").n_genes == G
    with h5py.File(path, "a") as file:
        file.move("mod/rna", "mod/protein")
    with pytest.raises(InputError, match="no RNA modality"):
        open_source(path)


def test_files_that_old_anndata_wrote(counts, tmp_path):
    path = tmp_path / "old.h5ad"
    matrix = sp.csr_matrix(counts)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", matrix.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        obs = np.array([(f"c{i}".encode(), i % 2) for i in range(N)], dtype=[("index", "S5"), ("donor", "i4")])
        file["obs"] = obs
        file["var"] = np.array([(f"g{i}".encode(),) for i in range(G)], dtype=[("index", "S5")])
    with open_source(path) as source:
        assert source.obs(["donor"])["donor"].tolist() == [i % 2 for i in range(N)]
        assert source.obs().index[0] == "c0"
        assert source.var("X").index[-1] == "g10"
        assert (whole(source.matrix("X"), 30) == counts).all()


def test_a_plain_h5_that_is_anndata(adata, tmp_path):
    path = tmp_path / "a.h5"
    adata.write_h5ad(path)
    with open_source(path) as source:
        assert source.n_cells == N


def test_gene_by_cell_arrays_are_turned(counts, tmp_path):
    class Chunked(np.ndarray):
        chunks = (1, 10**9)

    matrix = DenseMatrix("x", counts.T.copy(), transposed=True)
    assert matrix.by_cell
    assert (whole(matrix, 40) == counts).all()
    matrix = DenseMatrix("x", counts.T.copy().view(Chunked), transposed=True)
    assert not matrix.by_cell
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "band0000.bin").write_bytes(b"left by a run that was killed")
    assert (whole(turned(matrix, tmp_path / "s", 40), 40) == counts).all()
    with pytest.raises(InputError, match="expected a matrix"):
        DenseMatrix("x", counts[0])


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12))
def test_blocks_are_whole_and_bounded(lengths, limit):
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    edges = cut(indptr, limit)
    assert edges[0] == 0
    assert edges[-1] == len(lengths)
    for start, stop in pairwise(edges.tolist()):
        assert start < stop
        assert stop == start + 1 or indptr[stop] - indptr[start] <= limit


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.int64, st.tuples(st.integers(0, 7), st.integers(0, 7)), elements=st.integers(0, 3)),
    st.integers(1, 9),
)
def test_turning_round_loses_nothing(tmp_path_factory, counts, limit):
    matrix = sp.csc_matrix(counts)
    source = CompressedMatrix("x", matrix.data, matrix.indices, matrix.indptr, matrix.shape, by_cell=False)
    turned_round = turned(source, tmp_path_factory.mktemp("t") / "s", limit)
    assert (whole(turned_round, limit) == counts).all()
    assert (of_entries(turned_round) == counts).all()
    sample = turned_round.sample(5)
    assert (counts[sample.cells, sample.genes] == sample.values).all()
    assert (whole(turned(source, None), limit) == counts).all()


def write_tenx_h5(path, counts, version):
    matrix = sp.csr_matrix(counts).astype(np.int32)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "mm10")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = matrix.shape[::-1]
        group["barcodes"] = [f"BC{i}".encode() for i in range(N)]
        if version == 3:
            group["features/id"] = [f"ENSMUSG{i:011d}".encode() for i in range(G)]
            group["features/name"] = [f"S{i}".encode() for i in range(G)]
            group["features/feature_type"] = [b"Gene Expression"] * G
        else:
            group["genes"] = [f"ENSMUSG{i:011d}".encode() for i in range(G)]
            group["gene_names"] = [f"S{i}".encode() for i in range(G)]


def write_mtx(folder, counts, ending="", order="cells"):
    opener = gzip.open if ending else open
    matrix = sp.coo_matrix(counts.T if order == "cells" else counts)
    entries = zip(matrix.row, matrix.col, matrix.data, strict=True)
    lines = [f"{r + 1} {c + 1} {int(v)}" for r, c, v in entries]
    size = f"{matrix.shape[0]} {matrix.shape[1]} {matrix.nnz}"
    texts = {
        "matrix.mtx": ["%%MatrixMarket matrix coordinate integer general", "%by hand", size, *lines],
        "barcodes.tsv": [f"BC{i}" for i in range(N)],
        "features.tsv": [f"ENSMUSG{i:011d}\tS{i}\tGene Expression" for i in range(G)],
    }
    folder.mkdir()
    for name, text in texts.items():
        with opener(folder / f"{name}{ending}", "wt") as handle:
            handle.write("\n".join(text) + "\n")


def write_loom(path, counts, chunks=True):
    with h5py.File(path, "w") as file:
        file.create_dataset("matrix", data=counts.T, chunks=chunks)
        file["layers/spliced"] = counts.T * 2
        file["col_attrs/CellID"] = [f"BC{i}".encode() for i in range(N)]
        file["col_attrs/donor"] = [f"d{i % 2}".encode() for i in range(N)]
        file["row_attrs/Gene"] = [f"S{i}".encode() for i in range(G)]


@pytest.mark.parametrize("kind", ["h5 v3", "h5 v2", "mtx", "mtx.gz", "mtx by cells", "loom"])
def test_other_formats_give_the_same_cells(counts, tmp_path, kind):
    path = tmp_path / "input"
    if kind.startswith("h5"):
        path = tmp_path / "input.h5"
        write_tenx_h5(path, counts, int(kind[-1]))
    elif kind == "loom":
        path = tmp_path / "input.loom"
        write_loom(path, counts)
    else:
        write_mtx(path, counts, ".gz" if kind == "mtx.gz" else "", "genes" if kind == "mtx by cells" else "cells")
    with open_source(path) as source:
        assert source.obs().index.tolist() == [f"BC{i}" for i in range(N)]
        var = source.var("X")
        symbols = var.index if kind == "loom" else var["gene_symbol"]
        assert list(symbols) == [f"S{i}" for i in range(G)]
        matrix = source.matrix("X")
        assert (of_entries(matrix) == counts).all()
        for limit in (20, 10**6):
            assert (whole(turned(matrix, tmp_path / f"s{limit}", limit), limit) == counts).all()
        sample = matrix.sample(10**6)
        assert (counts[sample.cells, sample.genes] == sample.values).all()
        assert choose_matrix(source, None).matrix == "X"
        with pytest.raises(InputError, match="has no matrix 'raw'"):
            source.matrix("raw")
        if kind == "loom":
            assert source.obs(["donor"])["donor"].tolist()[:2] == ["d0", "d1"]
            assert source.matrices == ("X", "layers/spliced")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("integer", "complex", None),
        ("coordinate", "array", "expected a Matrix Market file"),
        ("general", "symmetric", "expected a Matrix Market file"),
        ("%%MatrixMarket", "hello", "expected a Matrix Market file"),
        (f"{G} {N} ", f"{G} 99 ", "there are 11 genes and 23 cells"),
        (f"{G} {N} ", f"{G} x ", "cannot be read"),
        ("\n1 1 ", "\n99 1 ", "outside the 11 genes"),
        ("\n1 1 ", "\none 1 ", "cannot be read"),
        (None, None, "is cut short"),
    ],
)
def test_broken_mtx_files(tmp_path, old, new, message):
    write_mtx(tmp_path / "m", np.ones((N, G)))
    path = tmp_path / "m" / "matrix.mtx"
    text = path.read_text()
    path.write_text(text[: len(text) // 2].rsplit("\n", 1)[0] + "\n" if old is None else text.replace(old, new, 1))
    if message is None:
        of_entries(open_source(path).matrix("X"))
        return
    with pytest.raises(InputError, match=message):
        of_entries(open_source(path).matrix("X"))


def test_parts_that_are_missing(counts, tmp_path):
    write_mtx(tmp_path / "m", counts)
    (tmp_path / "m" / "features.tsv").unlink()
    with pytest.raises(InputError, match=r"no features or genes\.tsv"):
        open_source(tmp_path / "m")
    write_tenx_h5(tmp_path / "a.h5", counts, 3)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["matrix/indptr"]
    with pytest.raises(InputError, match="lacks indptr"):
        open_source(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(InputError, match="expected one matrix of Cell Ranger"):
        open_source(tmp_path / "b.h5")
    write_loom(tmp_path / "a.loom", counts)
    with h5py.File(tmp_path / "a.loom", "a") as file:
        del file["row_attrs/Gene"]
    with pytest.raises(InputError, match="row_attrs: no names"):
        open_source(tmp_path / "a.loom")
    with h5py.File(tmp_path / "a.loom", "a") as file:
        del file["row_attrs"]
    with pytest.raises(InputError, match="lacks row_attrs"):
        open_source(tmp_path / "a.loom")
