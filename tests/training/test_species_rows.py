from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lexicell.data.cells import CellCollection, merge_label_trees, merge_lexicons
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.gene_space.coupling import CouplingConfig
from lexicell.genes.lexicon import Lexicon
from lexicell.training.gene_rows import log_cpm
from lexicell.training.rows_by_mean import rows_by_mean
from lexicell.training.species_rows import SpeciesRowConfig, new_gene_rows

WIDTH = 8
QUICK = SpeciesRowConfig(coupling=CouplingConfig(groups=6, genes=60, held_out_genes=30, starts=4, groupings=2, steps=4))


def two_species(stores: list[Store]) -> tuple[CellCollection, np.ndarray, np.ndarray, np.ndarray]:
    collection = CellCollection(stores, merge_lexicons(stores))
    cells, first = np.arange(collection.n_cells), stores[0].n_cells
    old_rows = np.random.default_rng(0).standard_normal((stores[0].n_genes, WIDTH)).astype(np.float32)
    return collection, cells[:first], cells[first:], old_rows


def test_rows_are_means_of_old_rows(stores: list[Store]) -> None:
    collection, old, new, old_rows = two_species(stores)
    start = new_gene_rows(collection, old, new, old_rows, QUICK)
    assert start.rows.shape == (stores[1].n_genes, WIDTH)
    assert start.weights.shape == (stores[1].n_genes, stores[0].n_genes)
    np.testing.assert_allclose(start.weights.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(start.rows, start.weights @ old_rows, rtol=1e-4, atol=1e-5)
    assert start.confidence.min() > 0
    assert start.confidence.max() <= 1


def test_genes_of_one_symbol_begin_with_one_row(stores: list[Store]) -> None:
    collection, old, new, old_rows = two_species(stores)
    table = merge_lexicons(stores).table
    table.loc[table.index[stores[0].n_genes :][:30], "symbol"] = [s.upper() for s in table["symbol"][:30]]
    collection = CellCollection(stores, Lexicon(table))
    start = new_gene_rows(collection, old, new, old_rows, replace(QUICK, method="symbols"))
    np.testing.assert_allclose(start.rows[:30], old_rows[:30], rtol=1e-6)
    np.testing.assert_allclose(start.confidence[:30], 1)
    assert start.confidence[30:].max() <= 1


def test_labels_of_new_cells_take_part(stores: list[Store]) -> None:
    _, old, new, old_rows = two_species(stores)
    collection = CellCollection(stores, merge_lexicons(stores), label_tree=merge_label_trees(stores))
    with_labels = new_gene_rows(collection, old, new, old_rows, QUICK).rows
    collection.labels[new] = -1
    without = new_gene_rows(collection, old, new, old_rows, QUICK).rows
    assert np.abs(with_labels - without).max() > 0.01


def test_usual_is_the_mean_of_the_new_cells(stores: list[Store]) -> None:
    collection, old, new, old_rows = two_species(stores)
    counts = stores[1].to_anndata().X.toarray()
    expected = np.log1p(counts * 1e4 / counts.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(
        new_gene_rows(collection, old, new, old_rows, QUICK).usual, expected, rtol=1e-4, atol=1e-6
    )


def test_unmeasured_genes_begin_near_the_mean_row(stores: list[Store]) -> None:
    _, old, new, old_rows = two_species(stores)
    lexicon = merge_lexicons(stores)
    extra = stores[1].lexicon.table.assign(gene_id=lambda t: t["gene_id"] + "x")
    start = new_gene_rows(CellCollection(stores, lexicon.extend(extra)), old, new, old_rows, QUICK)
    unmeasured = start.rows[stores[1].n_genes :]
    assert np.abs(unmeasured - old_rows.mean(axis=0)).max() < 0.6
    assert not start.usual[stores[1].n_genes :].any()
    assert not start.confidence[stores[1].n_genes :].any()
    assert start.weights[stores[1].n_genes :].nnz == 0


def test_the_seed_names_the_rows(stores: list[Store]) -> None:
    collection, old, new, old_rows = two_species(stores)
    first, again = (new_gene_rows(collection, old, new, old_rows, QUICK, seed=3).rows for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_nothing_new_is_refused(stores: list[Store]) -> None:
    collection, old, new, _ = two_species(stores)
    with pytest.raises(InputError, match="no new genes"):
        new_gene_rows(collection, old, new, np.zeros((len(collection.lexicon), WIDTH), np.float32), QUICK)
    collection, old, new, old_rows = two_species(stores)
    with pytest.raises(InputError, match="simulus_niger: no cell that is not held out measured its new genes"):
        new_gene_rows(collection, old, old[:0], old_rows, QUICK)
    with pytest.raises(InputError, match="simulus_niger: it has 1 cell that is not held out, and 2 are needed"):
        new_gene_rows(collection, old, new[:1], old_rows, QUICK)


def test_too_few_cells_to_couple_are_told(stores: list[Store]) -> None:
    collection, old, new, old_rows = two_species(stores)
    few = new_gene_rows(collection, old, new[:12], old_rows, QUICK)
    assert not few.coupled
    assert "not coupled: that needs 20 cells" in few.notes[0]
    by_profile = new_gene_rows(collection, old, new[:12], old_rows, replace(QUICK, method="profile"))
    np.testing.assert_array_equal(few.rows, by_profile.rows)
    assert not by_profile.notes
    enough = new_gene_rows(collection, old, new, old_rows, QUICK)
    (coupled,) = enough.coupled
    np.testing.assert_array_equal(coupled.new, new)
    assert "fewer than 600 of either" in enough.notes[0]


def same_species(stores: list[Store], hidden: np.ndarray) -> tuple[CellCollection, np.ndarray, np.ndarray, np.ndarray]:
    """One species whose old cells lack some genes; rows are indices of the lexicon."""
    table = stores[0].lexicon.table
    order = np.concatenate([np.setdiff1d(np.arange(len(table)), hidden), hidden])
    lexicon = Lexicon(table.iloc[order].reset_index(drop=True))
    collection = CellCollection([stores[0]], lexicon)
    cells = np.arange(collection.n_cells)
    old_rows = np.random.default_rng(0).standard_normal((len(table) - len(hidden), WIDTH)).astype(np.float32)
    return collection, cells[::2], cells[1::2], old_rows


def test_new_genes_of_a_known_species_follow_old_genes_that_the_same_cells_measured(stores: list[Store]) -> None:
    hidden = np.arange(0, stores[0].n_genes, 4)
    collection, old, new, old_rows = same_species(stores, hidden)
    start = new_gene_rows(collection, old, new, old_rows, QUICK, seed=1)
    assert not start.coupled
    np.testing.assert_allclose(start.rows, start.weights @ old_rows, rtol=1e-4, atol=1e-5)
    logs = log_cpm(collection, new, np.arange(len(collection.lexicon))).toarray()
    n_old = len(old_rows)
    spread = logs.std(axis=0)
    centred = (logs - logs.mean(axis=0)) / np.maximum(spread, 1e-9)
    seen = n_old + np.argsort(-spread[n_old:])[:20]  # rarely seen genes follow nothing
    between = np.abs(centred[:, seen].T @ centred[:, :n_old]) / len(logs)
    own = (start.weights[seen - n_old].toarray() * between).sum(axis=1)
    assert (own > between.mean(axis=1)).mean() > 0.9


def test_that_needs_no_old_cells(stores: list[Store]) -> None:
    collection, old, new, old_rows = same_species(stores, np.arange(0, stores[0].n_genes, 4))
    usual = np.ones(len(old_rows), np.float32)
    start = rows_by_mean(collection, new, old_rows, usual, seed=1)
    beside = new_gene_rows(collection, old, new, old_rows, seed=1)
    np.testing.assert_allclose((start.weights > 0).sum(axis=1), (beside.weights > 0).sum(axis=1))
    assert start.confidence.min() > 0
