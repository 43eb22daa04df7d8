from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lexicell.batch import CellBatch
from lexicell.labels import LabelTree
from lexicell.model.flops import (
    AttentionCall,
    Product,
    StepShape,
    flops_by_part,
    forward_flops,
    step_operations,
    training_flops,
)
from lexicell.model.network import CellNetwork, ModelConfig
from lexicell.training.objectives import Forward, ObjectiveConfig, build_objectives, total_loss
from lexicell.training.recipe import load_recipe, shipped_recipes

N_GENES = 120
SHAPE = StepShape(cells=2, tokens=24, queries=7, n_labels=5)


def attention_flops(q_shape, k_shape, v_shape, *rest, **named):  # type: ignore[no-untyped-def]
    cells, heads, queries, width = q_shape
    return 2 * cells * heads * queries * k_shape[2] * (width + v_shape[3])


def attention_gradient_flops(grad_shape, q_shape, k_shape, v_shape, *rest, **named):  # type: ignore[no-untyped-def]
    return 2 * attention_flops(q_shape, k_shape, v_shape)  # as if nothing were computed again


CPU_ATTENTION = {  # PyTorch's counter knows attention on a GPU only
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_gradient_flops,
}


def counted(config: ModelConfig, shape: StepShape) -> tuple[int, int]:
    """Operations that PyTorch's counter sees in a forward pass, and in a whole step."""
    tree = LabelTree.from_frame(pd.DataFrame({"a": ["x", "x", "y"], "b": ["x1", "x2", "y1"]}), ["a", "b"])
    network = CellNetwork(config, N_GENES, [], tree if shape.n_labels else None)
    network.initialise(torch.Generator().manual_seed(0))
    genes = torch.stack([torch.randperm(N_GENES)[: shape.views * shape.tokens] for _ in range(shape.cells)])
    genes = genes.view(shape.cells, shape.views, shape.tokens).transpose(0, 1)
    query_genes = torch.zeros(shape.cells, shape.queries, dtype=torch.long)
    batch = CellBatch(
        genes=genes,
        counts=torch.ones_like(genes),
        query_genes=query_genes,
        query_counts=query_genes,
        depth=torch.full((shape.cells,), 100.0),
        covariates=torch.zeros(shape.cells, 0, dtype=torch.long),
        labels=torch.zeros(shape.cells, 2, dtype=torch.long),
        position=torch.arange(shape.cells),
    )
    weights = ObjectiveConfig(
        counts=float(shape.counts), cls_counts=float(shape.cls_counts), contrastive=float(shape.contrastive)
    )
    objectives = build_objectives(weights, network, shape.views)
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        forward = Forward(network, batch)
        loss = total_loss({o.name: o.loss(forward) for _, o in objectives}, objectives)
        forwards = counter.get_total_flops()
        loss.backward()
    return forwards, counter.get_total_flops()


@pytest.mark.parametrize("name", shipped_recipes())
def test_operations_are_those_that_pytorch_counts(name: str) -> None:
    recipe = load_recipe(name, {"model.encoder.layers": 2})
    operations = step_operations(recipe.model, SHAPE)
    forwards, whole = counted(recipe.model, SHAPE)
    assert forward_flops(operations) == forwards
    assert training_flops(operations) == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"views": 1, "contrastive": False},
        {"cls_counts": False},
        {"counts": False},
        {"contrastive": False},
        {"n_labels": 0},
    ],
)
def test_operations_follow_what_is_switched_off(changes: dict[str, object]) -> None:
    shape = replace(SHAPE, **changes)
    config = load_recipe("tiny", {"model.decoder_layers": 2}).model
    assert training_flops(step_operations(config, shape)) == counted(config, shape)[1]


def test_a_hand_worked_product_and_attention() -> None:
    assert Product("x", 3, 5, 7, n=2).forward == 2 * 2 * 3 * 5 * 7
    assert Product("x", 3, 5, 7).backward == 2 * Product("x", 3, 5, 7).forward
    assert AttentionCall("x", 1, 2, 3, 4, 5).forward == 2 * (2 * 3 * 4 * 5) * 2


def test_parts_add_up_and_the_encoder_is_most_of_it() -> None:
    recipe = load_recipe("base")
    operations = step_operations(recipe.model, StepShape(cells=4, tokens=1024, queries=256))
    parts = flops_by_part(operations)
    assert sum(parts.values()) == training_flops(operations)
    assert parts["encoder"] > 0.85 * sum(parts.values())
