from __future__ import annotations

import numpy as np
import pytest
import torch

from lexicell.data.query import Query, read_query
from lexicell.inference.cell_model import CellModel
from lexicell.inference.gene_response import count_response
from lexicell.inference.knockout import KnockOuts


@pytest.fixture
def known(cells, cell_model: CellModel) -> Query:
    return read_query(cells, cell_model.lexicon, species="simulus_albus").take(np.arange(10))


@pytest.fixture
def often(known: Query) -> np.ndarray:
    """Genes by how many cells express them, most first."""
    return known.gene_index[np.argsort(-np.diff(known.counts.tocsc().indptr), kind="stable")]


@pytest.mark.parametrize("mode", ["zero", "remove"])
def test_a_knock_out_is_that_of_the_sample_altered_by_hand(
    cell_model: CellModel, known: Query, often: np.ndarray, mode: str
) -> None:
    gene = int(often[0])
    asked = often[5:9]
    found = KnockOuts(cell_model, known, asked, label=(1, 2)).run([gene], 99, np.random.default_rng(0), mode)
    embedding = cell_model.embed(known)
    (dealt,) = cell_model.dealt_samples(known, batch_size=10_000)
    after, shifts = [], []
    for row in np.flatnonzero((dealt.genes == gene).any(axis=1)):
        at = dealt.genes[row] != gene
        if dealt.counts[row, ~at][0] == 0:
            continue
        genes, counts = dealt.genes[row], np.where(at, dealt.counts[row], 0)
        if mode == "remove":
            genes, counts = genes[at], counts[at]
        cell = dealt.cell[row]
        with torch.no_grad():
            one = cell_model.tensors(dealt.genes[row][None], dealt.counts[row][None], dealt.depth[row : row + 1])
            other = cell_model.tensors(genes[None], counts[None], dealt.depth[row : row + 1])
            moved = (cell_model.network.encode(*other).cell - cell_model.network.encode(*one).cell)[0].numpy()
        moved = (moved / (dealt.cell == cell).sum()).astype(np.float32)
        shifts.append(np.linalg.norm(moved))
        after.append((cell, embedding[cell] + moved))
    assert found.n_cells[0] == len(shifts) > 3
    assert found.shift[0] == pytest.approx(np.mean(shifts), rel=1e-3)
    cells_of, changed = [cell for cell, _ in after], np.stack([vector for _, vector in after])
    together = np.linalg.norm((changed - embedding[cells_of]).mean(axis=0))
    assert found.aligned[0] == pytest.approx(together / np.mean(shifts), rel=1e-3)
    expected = count_response(cell_model, changed, asked) - count_response(cell_model, embedding[cells_of], asked)
    np.testing.assert_allclose(found.responses[0], expected.mean(axis=1), atol=1e-5)
    head = cell_model.network.label_head
    assert head is not None
    with torch.no_grad():
        logs = [head.path_log_probabilities(torch.from_numpy(x))[1] for x in (embedding[cells_of], changed)]
    assert found.own_label[0] == pytest.approx(float((logs[1] - logs[0])[:, 2].mean()), abs=1e-4)
    assert found.relabelled[0] == pytest.approx(float((logs[1].argmax(1) != logs[0].argmax(1)).float().mean()))


def test_genes_do_not_change_one_anothers_results(cell_model: CellModel, known: Query, often: np.ndarray) -> None:
    knock = KnockOuts(cell_model, known, often[:3])
    genes = [int(often[1]), int(often[20]), int(often[40])]
    together = knock.run(genes, 99, np.random.default_rng(0))
    for place, gene in enumerate(genes):
        alone = knock.run([gene], 99, np.random.default_rng(1))
        assert alone.shift[0] == pytest.approx(together.shift[place], rel=1e-3)
        np.testing.assert_allclose(alone.responses[0], together.responses[place], atol=1e-5)
    assert np.isnan(together.own_label).all()  # no label is followed
    assert knock.between > 0


def test_cells_are_capped_and_silent_genes_have_no_effect(
    cell_model: CellModel, known: Query, often: np.ndarray
) -> None:
    silent = int(often[-1])
    assert known.counts[:, np.flatnonzero(known.gene_index == silent)].nnz == 0
    found = KnockOuts(cell_model, known, often[:0]).run([int(often[0]), silent], 4, np.random.default_rng(0))
    np.testing.assert_array_equal(found.n_cells, [4, 0])
    assert np.isnan(found.shift[1])
    assert found.responses.shape == (2, 0)
    np.testing.assert_array_equal(found.response_size, [0, 0])
