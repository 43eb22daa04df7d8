from __future__ import annotations

import numpy as np
import pytest
import torch

from lexicell.batch import CellBatch
from lexicell.data.cells import CellCollection, merge_label_trees
from lexicell.data.gene_sampler import GeneSampler, SamplingConfig, fit_shape
from lexicell.data.loader import CellStream
from lexicell.data.order import CellOrder, OrderConfig
from lexicell.data.store import Store
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig
from lexicell.training.objectives import Forward, ObjectiveConfig, build_objectives, total_loss


def batch_of(store: Store, views: int) -> CellBatch:
    collection = CellCollection([store], store.lexicon, label_tree=merge_label_trees([store]))
    shape = fit_shape(SamplingConfig(tokens=30, queries=12, views=views), store.n_genes)
    sampler = GeneSampler(shape, collection.panels, store.n_genes, 0)
    order = CellOrder(collection.panel, OrderConfig(), 0)
    return CellStream(collection, np.arange(store.n_cells), sampler, order, batch_size=6, seed=0).make_batch(0)


def network_of(store: Store, labels: bool = True) -> CellNetwork:
    config = ModelConfig(encoder=EncoderConfig(width=16, layers=1, heads=2))
    network = CellNetwork(config, store.n_genes, [], merge_label_trees([store]) if labels else None)
    network.initialise(torch.Generator().manual_seed(0))
    return network


def test_losses_start_where_they_should(store: Store) -> None:
    network, batch = network_of(store), batch_of(store, 2)
    objectives = build_objectives(ObjectiveConfig(), network, 2)
    forward = Forward(network, batch)
    terms = {objective.name: float(objective.loss(forward).detach()) for _, objective in objectives}
    n_classes = network.count_classes.n_classes
    assert terms["counts"] == pytest.approx(np.log(n_classes), rel=1e-4)
    assert terms["cls_counts"] == pytest.approx(np.log(n_classes), rel=1e-4)
    # Two classes at the root and two types below each: log 2 on each level.
    assert terms["labels"] == pytest.approx(np.log(2), rel=1e-4)
    assert 0 < terms["contrastive"] < 10


def test_total_is_the_weighted_sum(store: Store) -> None:
    network = network_of(store)
    objectives = build_objectives(ObjectiveConfig(counts=2.0, labels=0.5, contrastive=0, cls_counts=0), network, 2)
    terms = {"counts": torch.tensor(3.0), "labels": torch.tensor(4.0)}
    assert total_loss(terms, objectives) == 8.0


def test_an_objective_that_cannot_be_is_left_out(store: Store) -> None:
    def names(network: CellNetwork, views: int) -> set[str]:
        return {objective.name for _, objective in build_objectives(ObjectiveConfig(), network, views)}

    assert names(network_of(store), 1) == {"counts", "cls_counts", "labels"}
    assert names(network_of(store, labels=False), 2) == {"counts", "cls_counts", "contrastive"}


@pytest.mark.parametrize("views", [1, 2])
def test_every_part_of_the_network_is_trained(store: Store, views: int) -> None:
    network, batch = network_of(store), batch_of(store, views)
    with torch.no_grad():  # off the zeros, so that gradients reach everything
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    objectives = build_objectives(ObjectiveConfig(), network, views)
    forward = Forward(network, batch)
    total_loss({o.name: o.loss(forward) for _, o in objectives}, objectives).backward()
    untrained = {
        name
        for name, p in network.named_parameters()
        if p.numel() and p.requires_grad and (p.grad is None or not p.grad.any())
    }
    assert untrained == (set() if views == 2 else {n for n in untrained if n.startswith("projection")})


def test_unlabelled_cells_give_no_label_loss(store: Store) -> None:
    network, batch = network_of(store), batch_of(store, 2)
    unlabelled = CellBatch(**{**batch.__dict__, "labels": torch.full_like(batch.labels, -1)})
    ((_, labels),) = [o for o in build_objectives(ObjectiveConfig(), network, 2) if o[1].name == "labels"]
    assert labels.loss(Forward(network, unlabelled)) == 0
