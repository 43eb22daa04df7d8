from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig
from lexicell.training.optim import OptimConfig, build_optimizer, lr_scale


def test_learning_rate_warms_up_and_decays() -> None:
    config = OptimConfig(warmup_steps=10, final_lr_scale=0.1)
    scales = [lr_scale(step, config, 110) for step in range(111)]
    assert scales[0] == pytest.approx(1 / 11)
    assert max(scales) == scales[10] == 1
    assert scales[60] == pytest.approx(0.55)
    assert scales[-1] == pytest.approx(0.1)
    assert all(b <= a for a, b in pairwise(scales[10:]))


def test_every_trained_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    network = CellNetwork(ModelConfig(encoder=EncoderConfig(width=16, layers=1, heads=2)), 20, [2])
    network.genes.freeze(5)
    optimizer = build_optimizer(network, OptimConfig(lr=0.1, embedding_lr_scale=3, weight_decay=0.2))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == sum(p.requires_grad for p in network.parameters())
    matrices, embeddings, rest = optimizer.param_groups
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0, 0]
    assert embeddings["lr"] == pytest.approx(0.3)
    assert all(p.ndim >= 2 for p in matrices["params"])
    assert any(p is network.genes.rows for p in embeddings["params"])
    assert all(p.ndim == 1 for p in rest["params"])
    assert not any(p is network.genes.frozen for p in held)
    assert isinstance(optimizer, torch.optim.AdamW)
