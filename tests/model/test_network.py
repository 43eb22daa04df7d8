from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from lexicell.errors import InputError
from lexicell.labels import LabelTree
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig

CONFIG = ModelConfig(encoder=EncoderConfig(width=32, layers=2, heads=4))
N_GENES = 50


def label_tree() -> LabelTree:
    return LabelTree.from_frame(pd.DataFrame({"a": ["x", "x", "y"], "b": ["x1", "x2", "y1"]}), ["a", "b"])


@pytest.fixture
def network() -> CellNetwork:
    made = CellNetwork(CONFIG, N_GENES, [2], label_tree())
    generator = torch.Generator().manual_seed(0)
    made.initialise(generator)
    with torch.no_grad():  # what starts at zero is moved off it, so that every path counts
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made.eval()


def cells(n: int = 3, length: int = 20) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(0)
    genes = np.stack([rng.permutation(N_GENES)[:length] for _ in range(n)])
    counts = rng.poisson(2, (n, length))
    return (
        torch.from_numpy(genes),
        torch.from_numpy(counts),
        torch.tensor(counts.sum(1), dtype=torch.float32),
        torch.ones(n, 1, dtype=torch.long),
    )


def test_permuting_genes_changes_nothing(network: CellNetwork) -> None:
    genes, counts, depth, covariates = cells()
    order = torch.randperm(genes.shape[1], generator=torch.Generator().manual_seed(1))
    straight = network.encode(genes, counts, depth, covariates)
    mixed = network.encode(genes[:, order], counts[:, order], depth, covariates)
    torch.testing.assert_close(mixed.cell, straight.cell, rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed.tokens, straight.tokens[:, order], rtol=0, atol=1e-5)
    query = torch.arange(7).expand(3, 7)
    torch.testing.assert_close(
        network.count_logits(query, mixed.context), network.count_logits(query, straight.context), rtol=0, atol=1e-5
    )


def test_a_cell_does_not_see_its_batch(network: CellNetwork) -> None:
    genes, counts, depth, covariates = cells(5)
    together = network.encode(genes, counts, depth, covariates).cell
    for i in range(5):
        alone = network.encode(*(x[i : i + 1] for x in (genes, counts, depth, covariates))).cell
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


def test_counts_depth_and_covariates_matter(network: CellNetwork) -> None:
    genes, counts, depth, covariates = cells()
    base = network.encode(genes, counts, depth, covariates).cls
    assert not torch.allclose(base, network.encode(genes, counts + 1, depth, covariates).cls, atol=1e-3)
    assert not torch.allclose(base, network.encode(genes, counts, depth * 10, covariates).cls, atol=1e-3)
    assert not torch.allclose(base, network.encode(genes, counts, depth, covariates * 0).cls, atol=1e-3)


def test_depth_is_told_to_the_queries_and_not_to_the_trunk(network: CellNetwork) -> None:
    genes, counts, depth, covariates = cells()
    rows, counted = network.genes(genes), network.counts(network.count_classes(counts))
    weights = network.bag.weights(genes, counts, depth)
    context = network.read(rows, counted, weights, covariates).context
    torch.testing.assert_close(network.encode(genes, counts, depth, covariates).context, context)
    query = torch.arange(5).expand(3, 5)
    asked = network.count_logits(query, context, depth)
    assert not torch.allclose(asked, network.count_logits(query, context, depth * 10), atol=1e-3)
    typical = torch.full((3,), float(network.typical_depth))
    assert torch.equal(network.count_logits(query, context), network.count_logits(query, context, typical))


def test_two_cells_are_as_alike_as_their_tokens_and_their_depths(network: CellNetwork) -> None:
    cell, depth = network.encode(*cells()).cell, torch.tensor([1e3, 1e3, 1e5])
    alike = (projected := network.projection(cell, depth)) @ projected.T
    by_cell = (first := projected[:, : projected.shape[1] // 2]) @ first.T
    torch.testing.assert_close(alike.diagonal(), torch.full((3,), 2.0))
    torch.testing.assert_close(alike[0, 1] - by_cell[0, 1], torch.tensor(1.0))  # equally deep
    assert alike[0, 2] - by_cell[0, 2] < 1


def test_a_cell_is_what_the_trunk_makes_of_it_and_the_bag_beside(network: CellNetwork) -> None:
    genes, counts, depth, covariates = cells()
    encoded = network.encode(genes, counts, depth, covariates)
    cls, bag = encoded.cell.split(CONFIG.encoder.width, dim=1)
    assert torch.equal(cls, encoded.context[:, 0])
    assert torch.equal(bag, network.bag(genes, network.genes(genes), counts, depth))
    assert encoded.cell.shape[1] == CONFIG.cell_width
    told = network.encode(genes, counts, depth, covariates * 0)
    assert torch.equal(told.bag, bag)  # covariates are told to the trunk alone


def test_a_query_does_not_depend_on_the_other_queries(network: CellNetwork) -> None:
    encoded = network.encode(*cells())
    query = torch.arange(12).expand(3, 12)
    whole = network.count_logits(query, encoded.context)
    torch.testing.assert_close(network.count_logits(query[:, 5:6], encoded.context), whole[:, 5:6])
    assert network.count_logits(query, encoded.cls.unsqueeze(1)).shape == whole.shape


def test_a_fresh_network_predicts_every_class_alike() -> None:
    network = CellNetwork(CONFIG, N_GENES, [2], label_tree())
    network.initialise(torch.Generator().manual_seed(0))
    logits = network.count_logits(torch.arange(12).expand(3, 12), network.encode(*cells()).context)
    assert (logits == 0).all()


def test_a_network_that_begins_from_marginals_predicts_them() -> None:
    network = CellNetwork(CONFIG, N_GENES, [2], label_tree())
    marginal = torch.randn(network.marginal.shape).log_softmax(dim=-1)
    network.initialise(torch.Generator().manual_seed(0), marginal=marginal)
    query = torch.tensor([[3, 7], [0, 1], [2, 5]])
    views = torch.cat([network.encode(*cells()).context] * 2)  # both views of three cells
    logits = network.count_logits(query, views)
    torch.testing.assert_close(logits, marginal[query].repeat(2, 1, 1), rtol=0, atol=0)
    assert torch.equal(network.count_logits(query, views, rows=network.genes(query)), logits)


def test_initialisation_is_named_by_its_generator() -> None:
    networks = [CellNetwork(CONFIG, N_GENES, [2], label_tree()) for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        network.initialise(torch.Generator().manual_seed(seed))
    first, same, other = (network.encoder.blocks[0].attention.query.weight for network in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_no_parameter_is_left_unset() -> None:
    network = CellNetwork(CONFIG, N_GENES, [2], label_tree())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    network.initialise(torch.Generator().manual_seed(0))
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_activation_checkpointing_changes_no_gradient(network: CellNetwork) -> None:
    gradients = []
    for switch in (False, True):
        network.train()
        network.encoder.activation_checkpointing = switch
        network.zero_grad()
        network.encode(*cells()).cell.square().sum().backward()
        gradients.append(network.genes.rows.grad.clone())
    torch.testing.assert_close(*gradients)


def test_label_probabilities_add_up_down_the_tree(network: CellNetwork) -> None:
    assert network.label_head is not None
    cell = network.encode(*cells()).cell
    upper, lower = (log.exp() for log in network.label_head.path_log_probabilities(cell))
    torch.testing.assert_close(upper.sum(1), torch.ones(3))
    torch.testing.assert_close(lower[:, :2].sum(1), upper[:, 0])
    torch.testing.assert_close(lower[:, 2], upper[:, 1])


def test_parameters_are_counted(network: CellNetwork) -> None:
    counted = network.n_parameters()
    assert counted["total"] == sum(n for part, n in counted.items() if part not in {"total"}) + network.cls.numel()
    assert counted["genes"] == N_GENES * 32


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="heads must divide width"):
        EncoderConfig(width=30, heads=4)


def test_an_adjusted_label_head_leaves_frequency_to_the_adjustment(network: CellNetwork) -> None:
    head = network.label_head
    assert head is not None
    cell = network.encode(*cells()).cell
    plain = head(cell)
    head.set_frequencies([torch.tensor([90, 10]), torch.tensor([60, 30, 10])])
    assert all(torch.equal(a, b) for a, b in zip(head(cell), plain, strict=True))
    adjusted = head(cell, adjustment=1.0)[0]
    expected = torch.log_softmax(plain[0] + torch.log(torch.tensor([90.5, 10.5])), dim=1)
    torch.testing.assert_close(adjusted, expected)
