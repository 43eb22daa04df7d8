from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from lexicell.data.query import Query, read_query
from lexicell.inference.cell_model import CellModel
from lexicell.inference.contextual import RunningMoments, token_moments
from lexicell.inference.gene_response import count_response


@pytest.fixture
def known(cells, cell_model: CellModel) -> Query:
    return read_query(cells, cell_model.lexicon, species="simulus_albus")


def test_moments_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    genes, vectors = rng.integers(0, 5, 200), 100 + rng.standard_normal((200, 3))
    moments, other = RunningMoments(6, 3), RunningMoments(6, 3)
    for start in range(0, 120, 17):
        part = slice(start, min(start + 17, 120))
        moments.add(genes[part], vectors[part])
    other.add(genes[120:], vectors[120:])
    other.add(genes[:0], vectors[:0])
    moments.merge(other)
    for gene in range(5):
        own = vectors[genes == gene]
        assert moments.n[gene] == len(own)
        np.testing.assert_allclose(moments.mean[gene], own.mean(axis=0))
        np.testing.assert_allclose(moments.variance[gene], own.var(axis=0, ddof=1), rtol=1e-9)
    assert moments.n[5] == 0
    assert np.isnan(moments.variance[5]).all()


def test_memory_does_not_grow_with_the_cells(cell_model: CellModel, known: Query) -> None:
    part = known.take(np.arange(10))
    token_moments(cell_model, [part])  # what is made once
    peaks = []
    for times in (2, 20):
        tracemalloc.start()
        token_moments(cell_model, (part for _ in range(times)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_every_expressed_gene_is_seen_once_a_cell(cell_model: CellModel, known: Query) -> None:
    moments = token_moments(cell_model, [known])
    expressed = np.diff(known.counts.tocsc().indptr)
    np.testing.assert_array_equal(moments.n[known.gene_index], expressed)
    assert moments.n.sum() == expressed.sum()


def test_the_order_of_cells_changes_nothing(cell_model: CellModel, known: Query) -> None:
    order = np.random.default_rng(1).permutation(known.n_cells)
    halves = [replace(known, counts=known.counts[rows]) for rows in np.array_split(order, 2)]
    once, twice = token_moments(cell_model, [known]), token_moments(cell_model, halves)
    np.testing.assert_array_equal(once.n, twice.n)
    np.testing.assert_allclose(once.mean, twice.mean, atol=1e-5)
    np.testing.assert_allclose(once.variance, twice.variance, atol=1e-4)


def test_a_state_is_that_of_the_network(cell_model: CellModel, known: Query) -> None:
    one = replace(known, counts=known.counts[:1])
    moments = token_moments(cell_model, [one])
    (first, *_) = list(cell_model.encoded_samples(one))
    place = int(np.flatnonzero(first.counts[0] > 0)[0])
    state = first.encoded.context[0, 1 + place].numpy()
    np.testing.assert_allclose(moments.mean[first.genes[0, place]], state, atol=1e-5)


def test_responses_are_expected_log_counts(cell_model: CellModel, known: Query) -> None:
    embedding = cell_model.embed(replace(known, counts=known.counts[:3]))
    genes = np.array([5, 0, 7])
    response = count_response(cell_model, embedding, genes)
    with torch.inference_mode():
        logits = cell_model.network.count_logits(
            torch.from_numpy(genes).expand(3, -1), torch.from_numpy(embedding[:, : cell_model.width]).unsqueeze(1)
        )
        expected = logits.softmax(-1) @ torch.log1p(cell_model.network.count_classes.centres())
    np.testing.assert_allclose(response, expected.T.numpy(), atol=1e-5)
