import signal
import subprocess
import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from lexicell.data.store import Store
from lexicell.data.store_writer import staging_folder
from lexicell.errors import InputError
from lexicell.workflows.prepare import prepare


def cells(n, genes, seed=0, species=None):
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(rng.poisson(0.8, (n, len(genes))).astype(np.float32))
    kinds = np.array(["a1", "a2", "b1"])[rng.integers(0, 3, n)]
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"d{i % 3}" for i in range(n)]),
            "coarse": pd.Categorical([kind[0] for kind in kinds]),
            "fine": pd.Categorical(kinds),
        },
        index=[f"c{i}" for i in range(n)],
    )
    if species is not None:
        obs["organism"] = species
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=list(genes)))


GENES = [f"G{i}" for i in range(12)]
LABELS = {"class": "coarse", "type": "fine"}


@pytest.fixture
def corpus(tmp_path):
    """A corpus of a whole transcriptome, and a panel of 5 of its genes in another order with one of its own."""
    folder = tmp_path / "input"
    folder.mkdir()
    cells(30, GENES).write_h5ad(folder / "whole.h5ad", compression="gzip")
    panel = cells(20, ["G7", "G3", "New", "G0", "G11"], seed=1)
    panel.X = panel.X.toarray()
    panel.write_h5ad(folder / "panel.h5ad")
    path = folder / "corpus.yaml"
    path.write_text(
        "defaults: {species: mouse, donor: donor}\n"
        "datasets:\n"
        "  - {path: whole.h5ad, labels: {class: coarse, type: fine}, tissue: {value: cortex}}\n"
        "  - {path: panel.h5ad, labels: {class: coarse}}\n"
    )
    return path


def test_files_become_one_store(corpus, tmp_path):
    result = prepare(corpus, tmp_path / "store")
    store = result.store
    assert store.verify() == []
    assert (store.n_cells, store.n_genes) == (50, 13)
    assert store.lexicon.table["gene_id"].tolist() == [*GENES, "New"]
    assert store.label_levels == ("class", "type")
    assert store.label_tree().names == (("a", "b"), ("a1", "a2", "b1"))
    whole, panel = (ad.read_h5ad(corpus.parent / f"{name}.h5ad") for name in ("whole", "panel"))
    adata = store.to_anndata()
    assert (adata.X[:30, :12].toarray() == whole.X.toarray()).all()
    assert (adata[30:, panel.var_names].X.toarray() == panel.X).all()
    assert store.sources[0].panel.tolist() == list(range(12))
    assert store.sources[1].panel.tolist() == [0, 3, 7, 11, 12]
    assert adata.obs["tissue"].tolist() == ["cortex"] * 30 + [np.nan] * 20
    assert adata.obs["donor"].tolist() == [*whole.obs["donor"], *panel.obs["donor"]]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["input", "store"]
    figures = result.figures()
    assert figures["fingerprint"] == store.fingerprint
    assert figures["labels"] == {"class": 2, "type": 3}
    assert figures["sources"][1]["match"]["count_share"] == 1.0
    assert [table.title for table in result.tables()][1:] == ["labels", "how they were read"]


def test_the_same_store_whatever_the_number_of_workers(corpus, tmp_path):
    one = prepare(corpus, tmp_path / "one").store
    two = prepare(corpus, tmp_path / "two", workers=2).store
    assert one.fingerprint == two.fingerprint


def test_anndata_in_memory(tmp_path):
    adata = cells(25, GENES)
    before = adata.copy()
    result = prepare(
        {"datasets": [{"adata": adata, "species": "mouse", "donor": "donor", "labels": LABELS}]}, tmp_path / "s"
    )
    assert (result.store.to_anndata().X != before.X).nnz == 0
    assert (adata.X != before.X).nnz == 0
    assert list(adata.obs.columns) == list(before.obs.columns)


def test_a_dry_run_writes_nothing(corpus, tmp_path):
    result = prepare(corpus, tmp_path / "store", dry_run=True)
    assert result.store is None
    assert (result.n_cells, result.n_genes, result.labels) == (50, 13, {"class": 2, "type": 3})
    assert result.disk_bytes > 0
    assert result.figures()["seconds"] > 0
    assert result.tables()[-1].title == "to expect"
    assert [file.name for file in tmp_path.iterdir()] == ["input"]


def test_blocks_do_not_show(corpus, tmp_path, monkeypatch):
    whole = prepare(corpus, tmp_path / "one").store
    for name in ("matrices", "bands"):
        monkeypatch.setattr(f"lexicell.data.readers.{name}.BLOCK_ENTRIES", 7)
    monkeypatch.setattr("lexicell.data.readers.matrices.CompressedMatrix.edges.__defaults__", (7,))
    assert prepare(corpus, tmp_path / "two").store.fingerprint == whole.fingerprint


def test_a_file_of_two_species_becomes_two_sources(tmp_path):
    adata = cells(10, GENES, species=["Mus musculus", "human"] * 5)
    datasets = [{"adata": adata, "name": "mix", "species": {"obs": "organism"}, "labels": LABELS}]
    store = prepare({"datasets": datasets}, tmp_path / "s").store
    assert [(source.name, source.species) for source in store.sources] == [
        ("mix-mus_musculus", "mus_musculus"), ("mix-homo_sapiens", "homo_sapiens"),
    ]  # fmt: skip
    assert store.n_genes == 24
    assert store.obs.index.tolist() == [f"c{i}" for i in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)]
    assert (store.to_anndata().X[:5, :12].toarray() == adata.X[::2].toarray()).all()
    assert (store.to_anndata().X[5:, 12:].toarray() == adata.X[1::2].toarray()).all()
    assert store.verify() == []


def test_versions_aliases_and_duplicates_are_resolved_and_reported(tmp_path):
    (tmp_path / "genes.tsv").write_text(
        "gene_id\tsymbol\taliases\n"
        "ENSMUSG00000000001\tGnai3\tOld\nENSMUSG00000000002\tTwin\t\nENSMUSG00000000003\tTwin\t\n"
    )
    adata = cells(6, ["ENSMUSG00000000001.4", "Old", "Twin", "EGFP"])
    dataset = {"adata": adata, "species": "mouse", "genes": str(tmp_path / "genes.tsv")}
    result = prepare({"datasets": [dataset]}, tmp_path / "s")
    counts = adata.X.toarray()
    assert result.store.to_anndata().X.toarray().ravel().tolist() == counts[:, :2].sum(1).tolist()
    match = result.sources[0]["match"]
    assert (match["n_matched"], match["n_ambiguous"], match["n_unmatched"], match["n_duplicates"]) == (2, 1, 1, 1)
    shares = counts.sum(0) / counts.sum()
    assert match["count_share"] == pytest.approx(shares[:2].sum())
    assert match["ambiguous_count_share"] == pytest.approx(shares[2])
    kept = prepare({"datasets": [{**dataset, "unmatched": "keep"}]}, tmp_path / "kept")
    assert kept.store.lexicon.table["gene_id"].tolist() == ["ENSMUSG00000000001", "EGFP"]
    assert kept.sources[0]["match"]["count_share"] == pytest.approx(shares[:2].sum())
    assert kept.sources[0]["match"]["unmatched_count_share"] == pytest.approx(shares[3])


def test_unlabelled_cells_and_kept_columns(tmp_path):
    adata = cells(12, GENES)
    adata.obs["fine"] = adata.obs["fine"].astype(str).replace("a2", "(none)")
    adata.obs["sex"] = "f"
    dataset = {"adata": adata, "species": "mouse", "labels": LABELS, "unlabelled": ["(none)"], "keep": ["sex"]}
    store = prepare({"datasets": [dataset]}, tmp_path / "s").store
    assert store.label_tree().names[1] == ("a1", "b1")
    assert store.obs["type"].isna().sum() == (adata.obs["fine"] == "(none)").sum()
    assert store.obs["sex"].tolist() == ["f"] * 12


def test_cells_without_counts_are_kept_and_told(tmp_path):
    adata = cells(5, GENES)
    adata.X = sp.csr_matrix(adata.X.toarray() * np.array([[1], [0], [1], [1], [0]]))
    result = prepare({"datasets": [{"adata": adata, "species": "mouse"}]}, tmp_path / "s")
    assert result.store.n_cells == 5
    assert "2 cells hold no counts" in result.tables()[-1].rows[0][1]


def test_names_of_any_script(tmp_path):
    adata = cells(4, ["β-Actin", "基因", "Gène é", "🧬"])
    adata.obs_names = ["зелле", "細胞", "c ö", "🐭"]
    adata.write_h5ad(tmp_path / "ä ö.h5ad")
    store = prepare({"datasets": [{"path": tmp_path / "ä ö.h5ad", "species": "mouse"}]}, tmp_path / "s").store
    assert store.lexicon.table["gene_id"].tolist() == list(adata.var_names)
    assert store.obs.index.tolist() == list(adata.obs_names)
    assert store.sources[0].name == "ä ö"


def test_balance_keeps_at_most_n_cells_a_label(corpus, tmp_path):
    store = prepare(corpus, tmp_path / "s", balance="class:6").store
    assert store.obs["class"].value_counts().to_dict() == {"a": 6, "b": 6}
    again = prepare(corpus, tmp_path / "again", balance="class:6").store
    assert store.fingerprint == again.fingerprint
    other = prepare(corpus, tmp_path / "other", balance="class:6", seed=1).store
    assert other.fingerprint != store.fingerprint
    adata = store.to_anndata()
    whole = ad.read_h5ad(corpus.parent / "whole.h5ad")
    mine = adata[adata.obs["source"] == "whole"]
    names = [name.removeprefix("whole:") for name in mine.obs_names]
    assert (mine.X[:, :12].toarray() == whole[names].X.toarray()).all()
    for text in ("class", "class:0", "class:x", "species:3"):
        with pytest.raises(InputError, match="balance"):
            prepare(corpus, tmp_path / "s2", balance=text)


def test_labels_that_contradict_between_files(tmp_path):
    one, two = cells(10, GENES), cells(10, GENES)
    two.obs["coarse"] = "other"
    datasets = [{"adata": adata, "species": "mouse", "labels": LABELS} for adata in (one, two)]
    with pytest.raises(InputError, match="all data sets together") as caught:
        prepare({"datasets": datasets}, tmp_path / "s")
    assert "must bear one name" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_standing_stores_are_not_touched(corpus, tmp_path):
    out = tmp_path / "store"
    first = prepare(corpus, out).store
    with pytest.raises(InputError, match="stands there already"):
        prepare(corpus, out)
    with pytest.raises(InputError, match="workers"):
        prepare(corpus, out, workers=0, overwrite=True)
    assert Store.open(out).fingerprint == first.fingerprint
    assert prepare(corpus, out, overwrite=True).store.fingerprint == first.fingerprint


def test_a_fault_in_one_file_keeps_the_others_for_the_next_run(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("lexicell.data.matrix_choice.choose_matrix.__defaults__", (1,))
    broken = cells(20, GENES, seed=2)
    broken.X.data[50] = 0.5
    broken.write_h5ad(corpus.parent / "panel.h5ad")
    out = tmp_path / "store"
    with pytest.raises(InputError, match=r"fractional value 0\.5"):
        prepare(corpus, out)
    assert not out.exists()
    broken.X.data[50] = 1
    broken.write_h5ad(corpus.parent / "panel.h5ad")
    taken = []
    monkeypatch.setattr("lexicell.workflows.prepare.write_source", _noting(taken))
    prepare(corpus, out)
    assert taken == ["panel"]
    assert not staging_folder(out).exists()
    assert Store.open(out).verify() == []


def _noting(taken):
    from lexicell.data.conversion import write_source

    def write(job, progress):
        taken.append(job.name)
        return write_source(job, progress)

    return write


def test_a_changed_input_is_read_again(corpus, tmp_path, monkeypatch):
    out = tmp_path / "store"

    def stop(self, details=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lexicell.data.store_writer.StoreWriter.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(corpus, out)
    assert len(list((staging_folder(out) / "parts").glob("*/part.json"))) == 2
    changed = cells(30, GENES, seed=9)
    changed.write_h5ad(corpus.parent / "whole.h5ad")
    taken = []
    monkeypatch.setattr("lexicell.workflows.prepare.write_source", _noting(taken))
    store = prepare(corpus, out).store
    assert taken == ["whole"]
    assert (store.to_anndata().X[:30, :12].toarray() == changed.X.toarray()).all()


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    for name in "abcdef":
        cells(3000, [f"G{i}" for i in range(300)], seed=ord(name)).write_h5ad(tmp_path / f"{name}.h5ad")
    corpus = tmp_path / "corpus.yaml"
    corpus.write_text("defaults: {species: mouse}\ndatasets:\n" + "".join(f"  - path: {n}.h5ad\n" for n in "abcdef"))
    out = tmp_path / "store"
    code = "import sys; from lexicell.workflows.prepare import prepare; prepare(sys.argv[1], sys.argv[2])"
    process = subprocess.Popen([sys.executable, "-c", code, str(corpus), str(out)])
    parts = staging_folder(out) / "parts"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not any(parts.glob("0000[1-4]/part.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    store = prepare(corpus, out).store
    assert store.verify() == []
    assert store.fingerprint == prepare(corpus, tmp_path / "straight").store.fingerprint


def test_real_data(shared_data, tmp_path):
    path = shared_data / "pancreas" / "baron_mouse_raw.h5ad"
    dataset = {"path": path, "species": {"obs": "organism"}, "donor": "donor", "labels": ["cell_type1"]}
    result = prepare({"datasets": [dataset]}, tmp_path / "s")
    assert (result.n_cells, result.n_genes) == (1886, 14877)
    assert result.labels == {"cell_type1": 13}
    assert (result.store.to_anndata().X != ad.read_h5ad(path).X).nnz == 0
