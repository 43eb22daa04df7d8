from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from lexicell.data.cells import (
    CellCollection,
    covariate_levels,
    merge_label_trees,
    merge_lexicons,
    split_validation,
)
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.workflows.prepare import prepare


def dense(collection: CellCollection, cells: np.ndarray) -> np.ndarray:
    rows = collection.rows(cells)
    out = np.zeros((len(cells), len(collection.lexicon)), np.int64)
    for i, (b, e) in enumerate(zip(rows.begin, rows.end, strict=True)):
        out[i, rows.genes[b:e]] = rows.counts[b:e]
    return out


def test_rows_of_two_stores_are_read_in_any_order(stores: list[Store]) -> None:
    lexicon = merge_lexicons(stores)
    collection = CellCollection(stores, lexicon)
    first, second = stores
    cells = np.array([first.n_cells + 3, 0, first.n_cells - 1, first.n_cells, 0])
    got = dense(collection, cells)
    expected = np.zeros_like(got)
    expected[:, : first.n_genes][[1, 2, 4]] = first.to_anndata(np.array([0, first.n_cells - 1, 0])).X.toarray()
    expected[:, first.n_genes :][[0, 3]] = second.to_anndata(np.array([3, 0])).X.toarray()
    np.testing.assert_array_equal(got, expected)


def test_rows_in_place_are_those_that_a_copy_holds(stores: list[Store]) -> None:
    collection = CellCollection(stores, merge_lexicons(stores))
    for cells in (np.array([5, 0, 5, 119]), np.array([130, 121]), np.array([3, 200]), np.array([], np.int64)):
        copied, there = collection.rows(cells), collection.rows_in_place(cells)
        for i in range(len(cells)):
            for name in ("genes", "counts"):
                one, other = getattr(copied, name), getattr(there, name)
                mine = one[copied.begin[i] : copied.end[i]]
                np.testing.assert_array_equal(other[there.begin[i] : there.end[i]], mine)
    assert collection.rows_in_place(np.array([5])).genes is stores[0].genes


def test_counts_beyond_the_narrow_type_are_never_read_in_place(tmp_path) -> None:
    counts = sp.csr_matrix(np.array([[1, 0, 70_000], [2, 65_535, 0], [3, 4, 65_534]]))
    adata = AnnData(counts, var=pd.DataFrame(index=["a", "b", "c"]))
    prepare({"datasets": [{"adata": adata, "species": "simulus_albus"}]}, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    collection = CellCollection([store], store.lexicon)
    assert [store.in_place([cell]) is None for cell in range(3)] == [True, True, False]
    rows = collection.rows_in_place(np.array([2, 0]))
    assert rows.counts[rows.begin[1] : rows.end[1]].tolist() == [1, 70_000]


def test_genes_outside_the_lexicon_are_left_out(store: Store) -> None:
    some = Lexicon(store.lexicon.table.iloc[::3])
    whole = dense(CellCollection([store], store.lexicon), np.arange(5))
    np.testing.assert_array_equal(dense(CellCollection([store], some), np.arange(5)), whole[:, ::3])


def test_panels_labels_and_covariates(stores: list[Store]) -> None:
    lexicon, tree, covariates = merge_lexicons(stores), merge_label_trees(stores), covariate_levels(stores)
    collection = CellCollection(stores, lexicon, label_tree=tree, covariates=covariates)
    assert [len(panel) for panel in collection.panels] == [store.n_genes for store in stores]
    assert set(collection.panel[: stores[0].n_cells]) == {0}
    assert tree is not None
    np.testing.assert_array_equal(collection.labels[: stores[0].n_cells], tree.encode(stores[0].obs))
    assert covariates["species"] == ("simulus_albus", "simulus_niger")
    column = list(covariates).index("species")
    assert set(collection.covariates[stores[0].n_cells :, column]) == {2}
    np.testing.assert_array_equal(collection.depth[: stores[0].n_cells], stores[0].obs["depth"])


def test_columns_are_coded_over_all_stores(stores: list[Store]) -> None:
    collection = CellCollection(stores, merge_lexicons(stores))
    donor = pd.concat([store.obs["donor"].astype(str) for store in stores]).to_numpy()
    coded = collection.coded("donor")
    assert list(coded.names) == sorted(set(donor))
    np.testing.assert_array_equal(coded.texts(), donor)
    np.testing.assert_array_equal(collection.coded("store").texts(), np.repeat([s.name for s in stores], 120))
    assert set(collection.coded("tissue").codes) == {-1}
    assert {"store", "source", "species", "donor", "type"} <= set(collection.columns)


def test_the_whole_cell_annotation_is_never_read(stores: list[Store]) -> None:
    opened = [Store.open(store.path) for store in stores]
    tree, covariates = merge_label_trees(opened), covariate_levels(opened)
    CellCollection(opened, merge_lexicons(opened), label_tree=tree, covariates=covariates).column("donor")
    assert all("obs" not in vars(store) for store in opened)


def test_donors_are_held_out_whole() -> None:
    donor = np.array(["a", "b", "c", "d"] * 10, dtype=object)
    train, held_out, words = split_validation(
        donor, np.full(len(donor), "mouse", dtype=object), donors=[], fraction=0.25, rng=np.random.default_rng(0)
    )
    assert len(set(donor[held_out])) == 1
    assert not set(donor[train]) & set(donor[held_out])
    assert donor[held_out][0] in words
    assert len(train) + len(held_out) == 40


def test_donors_can_be_named_and_unknown_ones_are_refused() -> None:
    donor = np.array(["a", "b", None] * 4, dtype=object)
    _, held_out, _ = split_validation(
        donor, np.full(len(donor), "mouse", dtype=object), donors=["b"], fraction=0.5, rng=np.random.default_rng(0)
    )
    assert set(donor[held_out]) == {"b"}
    with pytest.raises(InputError, match=r"\['z'\] are not among the donors"):
        split_validation(
            donor, np.full(len(donor), "mouse", dtype=object), donors=["z"], fraction=0.5, rng=np.random.default_rng(0)
        )


def test_without_donors_a_share_of_cells_is_held_out() -> None:
    donor = np.full(50, None, dtype=object)
    train, held_out, words = split_validation(
        donor, np.full(len(donor), "mouse", dtype=object), donors=[], fraction=0.1, rng=np.random.default_rng(0)
    )
    assert len(held_out) == 5
    assert not set(train) & set(held_out)
    assert "at random" in words


def test_donors_are_held_out_of_every_species_and_never_all_of_them() -> None:
    donor = np.array(["a", "b", "c", "d", "e", "f", "g"] * 5, dtype=object)
    species = np.where(np.isin(donor.astype(str), ["a", "b", "c"]), "mouse", "human").astype(object)
    for fraction in (0.1, 0.99):
        train, held_out, _ = split_validation(
            donor, species, donors=[], fraction=fraction, rng=np.random.default_rng(0)
        )
        assert set(species[train]) == set(species[held_out]) == {"mouse", "human"}
        assert not set(donor[train]) & set(donor[held_out])


def test_naming_every_donor_is_refused() -> None:
    donor = np.array(["a", "b"] * 4, dtype=object)
    species = np.full(8, "mouse", dtype=object)
    with pytest.raises(InputError, match="leave one out"):
        split_validation(donor, species, donors=["a", "b"], fraction=0.5, rng=np.random.default_rng(0))
