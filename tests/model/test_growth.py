from __future__ import annotations

import pandas as pd
import pytest
import torch

from lexicell.genes.lexicon import Lexicon
from lexicell.labels import LabelTree
from lexicell.model.checkpoint import ModelSpec, load_model, save_model
from lexicell.model.counts import CountClasses, CountConfig
from lexicell.model.embedding import CovariateEmbedding
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig

N_CLASSES = CountClasses(CountConfig()).n_classes


def made(n_genes: int = 9) -> tuple[CellNetwork, ModelSpec]:
    spec = ModelSpec(
        config=ModelConfig(encoder=EncoderConfig(width=16, layers=1, heads=2)),
        lexicon=Lexicon.from_genes("mouse", [f"g{i}" for i in range(n_genes)]),
        label_tree=LabelTree.from_frame(pd.DataFrame({"t": ["a", "b"]}), ["t"]),
        covariates={"tissue": ("brain", "pancreas")},
        tokens=4,
    )
    network, generator = spec.build(), torch.Generator().manual_seed(0)
    network.initialise(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        network.bag.usual.uniform_(generator=generator)
        network.marginal.uniform_(generator=generator)
    return network, spec


def cells(n_covariates: int) -> tuple[torch.Tensor, ...]:
    covariates = torch.zeros(2, n_covariates, dtype=torch.long)
    covariates[:, 0] = torch.tensor([0, 2])
    return (
        torch.tensor([[0, 3, 8], [1, 2, 5]]),
        torch.tensor([[1, 0, 4], [2, 7, 0]]),
        torch.tensor([50.0, 90]),
        covariates,
    )


def test_old_cells_are_encoded_as_before() -> None:
    network, _ = made()
    before = network.encode(*cells(1)).context.detach().clone()
    asked = network.count_logits(cells(1)[0], before).detach().clone()
    network.extend(
        torch.ones(4, 16), torch.ones(4), torch.ones(4, N_CLASSES), [3, 2]
    )  # a tissue more, and a covariate more
    assert len(network.genes) == 13
    assert len(network.bag.usual) == 13
    torch.testing.assert_close(network.encode(*cells(2)).context, before, rtol=0, atol=0)
    torch.testing.assert_close(network.count_logits(cells(2)[0], before), asked, rtol=0, atol=0)
    assert (network.marginal[9:] == 1).all()


def test_new_levels_begin_as_the_mean_of_old_ones_and_new_covariates_as_nothing() -> None:
    table = CovariateEmbedding([2], 4)
    with torch.no_grad():
        table.tables[0].rows.copy_(torch.arange(12.0).view(3, 4))
    table.extend([4, 2])
    torch.testing.assert_close(table.tables[0].weight[3:], table.tables[0].weight[1:3].mean(0).expand(2, 4))
    assert (table.tables[1].weight == 0).all()
    assert len(table.tables[1]) == 3


@pytest.mark.parametrize("unfreeze", [False, True])
def test_only_what_is_new_moves_until_all_does(unfreeze: bool) -> None:
    network, _ = made()
    network.extend(torch.ones(4, 16), torch.ones(4), torch.ones(4, N_CLASSES), [3, 2])
    network.freeze_old(9, [2, 1])
    if unfreeze:
        network.unfreeze()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    genes = network.genes.weight.detach().clone()
    levels = [table.weight.detach().clone() for table in network.covariates.tables]
    moving = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=0.1, weight_decay=0.5)
    shown = torch.tensor([[0, 9, 12], [10, 2, 11]])
    given = torch.tensor([[0, 0], [3, 2]])
    for _ in range(3):
        encoded = network.encode(shown, torch.ones(2, 3, dtype=torch.long), torch.tensor([50.0, 90]), given)
        network.count_logits(shown, encoded.context).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = not torch.equal(network.genes.weight[:9], genes[:9])
    assert moved == unfreeze
    assert not torch.equal(network.genes.weight[9:], genes[9:])
    for table, old, n_old in zip(network.covariates.tables, levels, (3, 2), strict=True):
        assert torch.equal(table.weight[:n_old], old[:n_old]) != unfreeze
        assert not torch.equal(table.weight[n_old:], old[n_old:])
    others = [n for n in before if n.split(".")[0] not in {"genes", "covariates", "label_head", "projection"}]
    changed = [name for name in others if not torch.equal(before[name], network.state_dict()[name])]
    assert bool(changed) == unfreeze


def test_a_grown_frozen_model_comes_back(tmp_path) -> None:
    network, spec = made()
    network.extend(torch.ones(2, 16), torch.ones(2), torch.ones(2, N_CLASSES), [3])
    network.freeze_old(9, [2])
    lexicon = spec.lexicon.extend(pd.DataFrame({"species": "bat", "gene_id": ["x", "y"], "symbol": ""}))
    grown = ModelSpec(spec.config, lexicon, spec.label_tree, {"tissue": ("brain", "pancreas", "eye")}, spec.tokens)
    save_model(tmp_path, network, grown)
    again, _ = load_model(tmp_path)
    assert len(again.genes.frozen) == 9
    assert len(again.covariates.tables[0].frozen) == 3
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
