from __future__ import annotations

import numpy as np
import pytest
import torch

from lexicell.data.query import Query, read_query
from lexicell.inference.attention import AttentionSums, attention_sums, rollout_step
from lexicell.inference.cell_model import CellModel


@pytest.fixture
def known(cells, cell_model: CellModel) -> Query:
    return read_query(cells, cell_model.lexicon, species="simulus_albus").take(np.arange(12))


def test_rollout_by_hand() -> None:
    first = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]).unsqueeze(0)  # two heads
    torch.testing.assert_close(rollout_step(first), torch.tensor([[[0.75, 0.25], [0.25, 0.75]]]))
    twice = rollout_step(first) @ rollout_step(first)
    torch.testing.assert_close(twice, torch.tensor([[[0.625, 0.375], [0.375, 0.625]]]))


def test_sums_are_those_of_the_weights_one_by_one(cell_model: CellModel, known: Query) -> None:
    genes = np.sort(known.gene_index[np.argsort(-np.diff(known.counts.tocsc().indptr))[:30]])
    found = attention_sums(cell_model, [known], genes)
    network, heads = cell_model.network, cell_model.spec.config.encoder.heads
    pairs = np.zeros((30, 30))
    sums = np.zeros((heads + 1, 30, 30))
    cls = np.zeros((heads + 1, len(cell_model.lexicon)))
    for dealt in cell_model.dealt_samples(known):
        for row in range(len(dealt.cell)):
            ids, counts, depth, told = cell_model.tensors(
                *(a[row : row + 1] for a in (dealt.genes, dealt.counts, dealt.depth))
            )
            rows = network.genes(ids)
            counted = network.counts(network.count_classes(counts))
            x = network.inputs(rows, counted, network.bag(ids, rows, counts, depth), told)
            (weights,) = network.encoder.attention_weights(x)
            maps = [*weights[0], rollout_step(weights)[0]]
            for i, gene in enumerate(dealt.genes[row]):
                if dealt.counts[row, i] == 0:
                    continue
                cls[:, gene] += [float(m[0, 1 + i]) * x.shape[1] for m in maps]
                for j, other in enumerate(dealt.genes[row]):
                    if dealt.counts[row, j] and gene in genes and other in genes:
                        at = np.searchsorted(genes, [gene, other])
                        pairs[at[0], at[1]] += 1
                        sums[:, at[0], at[1]] += [float(m[1 + i, 1 + j]) * x.shape[1] for m in maps]
    np.testing.assert_array_equal(found.pairs, pairs)
    np.testing.assert_allclose(found.sums, sums, rtol=1e-4)
    np.testing.assert_allclose(found.cls, cls, rtol=1e-4, atol=1e-5)


def test_cells_add_up_and_rare_pairs_are_left_out(cell_model: CellModel, known: Query) -> None:
    genes = known.gene_index[:50]
    whole = attention_sums(cell_model, [known], genes)
    parts = AttentionSums.empty(cell_model, genes)
    for rows in (np.arange(5), np.arange(5, 12)):
        parts.add(attention_sums(cell_model, [known.take(rows)], genes))
    np.testing.assert_allclose(whole.sums, parts.sums, rtol=1e-4)
    np.testing.assert_array_equal(whole.shown, parts.shown)
    mean = whole.head_mean(4)
    assert (np.isnan(mean) == (whole.pairs < 4)).all()
    np.testing.assert_allclose(
        mean[whole.pairs >= 4], ((whole.mean(0) + whole.mean(1)) / 2)[whole.pairs >= 4], rtol=1e-4
    )
    assert whole.maps == ("layer 1, head 1", "layer 1, head 2", "rollout")
