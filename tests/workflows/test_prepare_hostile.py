"""Broken and hostile input: each kind gives one clear error, and leaves nothing behind."""

import os
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from lexicell.errors import InputError
from lexicell.workflows.prepare import prepare

CASES = {}


def case(message, **dataset):
    """Register a case: a function that spoils a folder, the keys of the data set, and the expected message."""

    def register(spoil):
        CASES[spoil.__name__] = (spoil, dataset, message)
        return spoil

    return register


def cells(n=6, genes=5):
    counts = np.arange(n * genes, dtype=np.float32).reshape(n, genes) % 4
    obs = pd.DataFrame(
        {"donor": ["d"] * n, "class": ["a", "b"] * (n // 2), "type": [f"t{i % 2}" for i in range(n)]},
        index=[f"cell{i}" for i in range(n)],
    )
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"Gene{i}" for i in range(genes)]))


def good(folder):
    path = folder / "a.h5ad"
    cells().write_h5ad(path)
    return path


def edited(folder, edit):
    with h5py.File(good(folder), "r+") as file:
        edit(file)


def with_values(folder, value, dtype="float64"):
    adata = cells()
    adata.X = adata.X.astype(dtype)
    adata.X.data[7] = value
    adata.write_h5ad(folder / "a.h5ad")


# The file itself


@case("there is no such file")
def missing_file(folder):
    pass


@case("is empty \\(0 bytes\\)")
def empty_file(folder):
    (folder / "a.h5ad").touch()


@case("is not an HDF5 file")
def wrong_magic(folder):
    (folder / "a.h5ad").write_bytes(b"PK\x03\x04" + bytes(200))


@case("cut short or damaged")
def truncated_in_the_middle(folder):
    path = good(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@case("cut short or damaged")
def only_the_magic(folder):
    (folder / "a.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n")


@case("is a folder that holds no data")
def a_folder(folder):
    (folder / "a.h5ad").mkdir()


@case("cannot be read")
def a_circle_of_links(folder):
    (folder / "a.h5ad").symlink_to(folder / "b.h5ad")
    (folder / "b.h5ad").symlink_to(folder / "a.h5ad")


@case("there is no such file")
def a_link_to_nowhere(folder):
    (folder / "a.h5ad").symlink_to(folder / "nowhere")


@case("this format is not known", path="a.rds")
def unknown_format(folder):
    (folder / "a.rds").write_bytes(b"x")


@case("it lacks obs, var")
def no_anndata_inside(folder):
    with h5py.File(folder / "a.h5ad", "w") as file:
        file["something"] = [1]


@case("holds no matrix")
def no_matrix(folder):
    edited(folder, lambda f: f.pop("X"))


@case("has no names: its index '_index' is missing")
def no_cell_names(folder):
    edited(folder, lambda f: f["obs"].pop("_index"))


@case("it has 6 x 5 values, but the file lists 5 cells")
def fewer_cells_than_rows(folder):
    def edit(file):
        names = file["obs/_index"][:5]
        attrs = dict(file["obs/_index"].attrs)
        del file["obs/_index"]
        file["obs/_index"] = names
        file["obs/_index"].attrs.update(attrs)

    edited(folder, edit)


@case("obs\\['donor'\\] has 4 values for 6 rows", donor="donor")
def a_column_is_short(folder):
    def edit(file):
        codes = file["obs/donor/codes"][:4]
        del file["obs/donor/codes"]
        file["obs/donor/codes"] = codes
        file["obs/donor/codes"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

    adata = cells()
    adata.obs["donor"] = pd.Categorical(adata.obs["donor"])
    adata.write_h5ad(folder / "a.h5ad")
    with h5py.File(folder / "a.h5ad", "r+") as file:
        edit(file)


# The matrix


def _replace(name, change):
    def edit(file):
        values = change(file[name][:])
        del file[name]
        file[name] = values

    return edit


@case("it lacks indptr")
def no_indptr(folder):
    edited(folder, lambda f: f["X"].pop("indptr"))


@case("it lacks data")
def no_data(folder):
    edited(folder, lambda f: f["X"].pop("data"))


@case("'indptr' does not rise")
def indptr_falls(folder):
    edited(folder, _replace("X/indptr", lambda v: v[[0, 2, 1, 3, 4, 5, 6]]))


@case("'indptr' does not rise from 0")
def indptr_starts_late(folder):
    edited(folder, _replace("X/indptr", lambda v: v + 1))


@case("'indptr' has 5 entries, expected 7")
def indptr_short(folder):
    edited(folder, _replace("X/indptr", lambda v: v[:5]))


@case("but 'indptr' ends at")
def data_short(folder):
    edited(folder, _replace("X/data", lambda v: v[:-2]))


@case("an index is 99, but there are 5 genes")
def index_too_large(folder):
    edited(folder, _replace("X/indices", lambda v: np.where(v == 2, 99, v)))


@case("an index is -1, but there are 5 genes")
def index_negative(folder):
    edited(folder, _replace("X/indices", lambda v: np.where(v == 2, -1, v)))


@case("'indices' holds float64, expected whole numbers")
def indices_are_fractions(folder):
    edited(folder, _replace("X/indices", lambda v: v + 0.5))


@case("'data' has the shape")
def data_is_a_table(folder):
    edited(folder, _replace("X/data", lambda v: v[:, None]))


@case("has 6 x 4 values, but the file lists 6 cells and 5 genes")
def shape_contradicts(folder):
    def edit(file):
        file["X"].attrs["shape"] = [6, 4]
        _replace("X/indices", lambda v: np.minimum(v, 3))(file)

    edited(folder, edit)


@case("expected a dense, CSR or CSC matrix, found 'coo'")
def unknown_encoding(folder):
    edited(folder, lambda f: f["X"].attrs.update({"encoding-type": "coo"}))


# Values


@case(r"X holds no raw counts: negative value -3.0 \(cell 'cell2', gene 'Gene0'\)")
def negative(folder):
    with_values(folder, -3)


@case("fractional value 0.5")
def fractional(folder):
    with_values(folder, 0.5)


@case("NaN value nan")
def not_a_number(folder):
    with_values(folder, np.nan)


@case("infinite value inf")
def infinite(folder):
    with_values(folder, np.inf, "float32")


@case("impossibly large value 4294967296.0")
def too_large(folder):
    with_values(folder, 2.0**32)


@case("impossibly large value 4294967296")
def too_large_integer(folder):
    with_values(folder, 2**32, "int64")


@case("not a number")
def complex_values(folder):
    edited(folder, _replace("X/data", lambda v: v + 1j))


@case("layers/counts holds raw counts: write 'counts: layers/counts'", counts="X")
def log_normalised_with_counts_in_a_layer(folder):
    adata = cells()
    adata.layers["counts"] = adata.X.copy()
    adata.X.data = np.log1p(adata.X.data)
    adata.write_h5ad(folder / "a.h5ad")


@case("layers/scaled holds none either")
def log_normalised_everywhere(folder):
    adata = cells()
    adata.X.data = np.log1p(adata.X.data)
    adata.layers["scaled"] = adata.X * 0.3
    adata.write_h5ad(folder / "a.h5ad")


@case("holds nothing but zeros")
def all_zero(folder):
    adata = cells()
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)
    adata.write_h5ad(folder / "a.h5ad")


@case("has no matrix 'layers/spliced'; it has X", counts="layers/spliced")
def wanted_layer_missing(folder):
    good(folder)


# Cells and genes


@case("holds no cells")
def no_cells(folder):
    cells()[:0].copy().write_h5ad(folder / "a.h5ad")


@case("holds no genes")
def no_genes(folder):
    cells()[:, :0].copy().write_h5ad(folder / "a.h5ad")


@case("1 cell names stand more than once \\(cell0\\)")
@pytest.mark.filterwarnings("ignore:Observation names")
def repeated_cells(folder):
    adata = cells()
    adata.obs_names = ["cell0", *adata.obs_names[:1], *adata.obs_names[2:]]
    adata.write_h5ad(folder / "a.h5ad")


@case("the gene names are row numbers")
def genes_without_names(folder):
    adata = cells()
    adata.var_names = [str(i) for i in range(5)]
    adata.write_h5ad(folder / "a.h5ad")


@case("hold tabs, line breaks")
def tabs_in_gene_names(folder):
    adata = cells()
    adata.var_names = ["a\tb", "c", "d", "e", "f"]
    adata.write_h5ad(folder / "a.h5ad")


@case("are those of homo_sapiens")
def genes_of_another_species(folder):
    adata = cells()
    adata.var_names = [f"ENSG{i:011d}" for i in range(5)]
    adata.write_h5ad(folder / "a.h5ad")


@case("60% of the gene names .* are gene ids such as ENSMUSG")
def ids_and_symbols_mixed(folder):
    adata = cells()
    adata.var_names = [*(f"ENSMUSG{i:011d}" for i in range(3)), "Gad1", "Sst"]
    adata.write_h5ad(folder / "a.h5ad")


@case("gene_ids: no column 'ensembl' in the gene annotation", gene_ids="ensembl")
def id_column_missing(folder):
    good(folder)


@case("knows only 20.0% of the genes .*Likely: .*min_matched", genes="table.tsv")
def gene_table_does_not_fit(folder):
    good(folder)
    (folder / "table.tsv").write_text("gene_id\tsymbol\nENSMUSG00000000001\tGene0\n")


@case("there is no such gene table", genes="table.tsv")
def gene_table_missing(folder):
    good(folder)


# Cell annotation


@case("donor: no column 'mouse' in the cell annotation; it has 'donor', 'class', 'type'", donor="mouse")
def donor_column_missing(folder):
    good(folder)


@case("labels: no column 'subclass'", labels=["class", "subclass"])
def label_column_missing(folder):
    good(folder)


@case("holds no label \\(all are missing\\)", labels=["class"])
def labels_all_missing(folder):
    adata = cells()
    adata.obs["class"] = pd.Categorical([None] * 6, categories=["a"])
    adata.write_h5ad(folder / "a.h5ad")


@case("'t' under 'a', 'b'", labels=["class", "type"])
def labels_are_no_tree(folder):
    adata = cells()
    adata.obs["type"] = "t"
    adata.write_h5ad(folder / "a.h5ad")


@case("species: 1 cells have none", species={"obs": "organism"})
def species_missing_for_a_cell(folder):
    adata = cells()
    adata.obs["organism"] = pd.Categorical(["mouse"] * 5 + [None])
    adata.write_h5ad(folder / "a.h5ad")


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_one_clear_error_and_nothing_left(name, tmp_path):
    spoil, dataset, message = CASES[name]
    folder = tmp_path / "input"
    folder.mkdir()
    spoil(folder)
    dataset = {"path": "a.h5ad", "species": "mouse", **dataset}
    for key in ("path", "genes"):
        if key in dataset:
            dataset[key] = str(folder / dataset[key])
    with pytest.raises(InputError, match=message) as caught:
        prepare({"datasets": [dataset]}, tmp_path / "store")
    assert str(folder) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["input"]


def test_there_are_many_kinds():
    assert len(CASES) >= 40


def test_all_faults_of_all_files_come_together(tmp_path):
    with_values(tmp_path, 0.5)
    (tmp_path / "b.h5ad").touch()
    cells().write_h5ad(tmp_path / "c.h5ad")
    datasets = [{"path": str(tmp_path / f"{name}.h5ad"), "species": "mouse"} for name in "abcd"]
    datasets[0] |= {"donor": "nobody", "labels": ["nothing"]}
    datasets[2] |= {"tissue": "nowhere"}
    with pytest.raises(InputError) as caught:
        prepare({"datasets": datasets}, tmp_path / "store")
    text = str(caught.value)
    for part in ("fractional value 0.5", "'nobody'", "'nothing'", "0 bytes", "'nowhere'", "no such file"):
        assert part in text, part


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_files_and_folders_without_permission(tmp_path):
    path = good(tmp_path)
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        prepare({"datasets": [{"path": str(path), "species": "mouse"}]}, tmp_path / "store")
    path.chmod(0o600)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(InputError, match="not permitted"):
        prepare({"datasets": [{"path": str(path), "species": "mouse"}]}, locked / "store")


@pytest.mark.parametrize("errno_name", ["ENOSPC", "EROFS", "EDQUOT"])
def test_a_full_disk_and_a_read_only_one(tmp_path, monkeypatch, errno_name):
    import errno

    path = good(tmp_path)
    real = Path.mkdir

    def full(self, *args, **options):
        if self.name.endswith(".part"):
            raise OSError(getattr(errno, errno_name), "no")
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(InputError, match="the store cannot be written: the"):
        prepare({"datasets": [{"path": str(path), "species": "mouse"}]}, tmp_path / "store")
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5ad"]


def test_a_bad_value_that_no_sample_saw_is_found_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("lexicell.data.matrix_choice.choose_matrix.__defaults__", (1,))
    with_values(tmp_path, 0.25)
    dataset = {"path": str(tmp_path / "a.h5ad"), "species": "mouse"}
    with pytest.raises(InputError, match=r"fractional value 0.25 \(cell 'cell2', gene 'Gene0'\)"):
        prepare({"datasets": [dataset]}, tmp_path / "store")
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5ad"]
