from __future__ import annotations

import torch

from lexicell.model.embedding import CovariateEmbedding, DepthEmbedding, GeneBag, GeneEmbedding


def filled(n_genes: int, width: int = 4) -> GeneEmbedding:
    table = GeneEmbedding(n_genes, width)
    with torch.no_grad():
        table.rows.normal_(generator=torch.Generator().manual_seed(0))
    return table


def test_extending_moves_no_old_row() -> None:
    table = filled(5)
    old = table.weight.detach().clone()
    table.extend(torch.ones(3, 4))
    assert len(table) == 8
    torch.testing.assert_close(table(torch.arange(5)), old, rtol=0, atol=0)
    assert (table(torch.arange(5, 8)) == 1).all()


def test_frozen_rows_stand_still_under_momentum_and_weight_decay() -> None:
    table = filled(5)
    table.extend(torch.ones(3, 4))
    table.freeze(5)
    old = table.weight[:5].detach().clone()
    optimizer = torch.optim.AdamW([p for p in table.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    for _ in range(5):
        table(torch.tensor([0, 4, 5, 7])).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(table.weight[:5], old)
    assert not (table.weight[5] == 1).any()


def test_freezing_changes_no_lookup() -> None:
    table, genes = filled(6), torch.tensor([[0, 5, 2], [3, 3, 1]])
    before = table(genes).detach().clone()
    for n_frozen in (0, 4, 6, 2):
        table.freeze(n_frozen)
        assert torch.equal(table(genes), before)
        assert len(table.frozen) == n_frozen


def test_depth_and_covariates_have_one_vector_a_cell() -> None:
    assert DepthEmbedding(6)(torch.tensor([0.0, 1000.0, 5e4])).shape == (3, 6)
    assert CovariateEmbedding([2, 3], 6)(torch.tensor([[0, 3], [2, 0]])).shape == (2, 6)
    assert CovariateEmbedding([], 6)(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 6)


def test_the_bag_is_a_count_weighted_sum_of_genes() -> None:
    bag = GeneBag(5, 4)
    genes = torch.tensor([[0, 1, 2], [4, 1, 3]])
    rows = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    usual = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    counts, depth = torch.tensor([[1, 0, 5], [0, 0, 2]]), torch.tensor([1e4, 2e4])
    with torch.no_grad():
        bag.out.weight.copy_(torch.eye(4))
        bag.usual.copy_(usual)
    weights = torch.log1p(torch.tensor([[1.0, 0, 5], [0, 0, 1]])) - usual[genes]
    expected = bag.norm((weights.unsqueeze(-1) * rows).sum(1))
    torch.testing.assert_close(bag(genes, rows, counts, depth), expected)
    assert bag(genes, rows, counts * 0, depth * 0).isfinite().all()
