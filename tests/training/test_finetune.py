import numpy as np
import pytest
import torch

from lexicell.data.query import read_query
from lexicell.errors import InputError
from lexicell.labels import LabelTree
from lexicell.training.finetune import FinetuneConfig, build_groups, finetune

LEVELS = ("class", "type")


@pytest.fixture
def reference(cell_model, cells):
    query = read_query(cells.copy(), cell_model.lexicon, "simulus_albus")
    tree = LabelTree.from_frame(cells.obs, LEVELS)
    held_out = np.zeros(len(cells), dtype=bool)
    held_out[::4] = True
    return query, tree, tree.encode(cells.obs), held_out


def test_a_copy_learns_the_labels(cell_model, reference):
    query, tree, codes, held_out = reference
    before = {name: value.clone() for name, value in cell_model.network.state_dict().items()}
    config = FinetuneConfig(lr=0.02, max_epochs=6, patience=6, dropout=0.0)
    lines: list[str] = []
    tuned = finetune(cell_model, query.counts, query.gene_index, codes, tree, held_out, config, said=lines.append)
    for name, value in cell_model.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert tuned.model.label_tree == tree
    assert len(lines) == len(tuned.history) == 6
    scores = [score for _, score in tuned.history]
    assert max(scores) > 0.6 > scores[0] - 0.3
    assert tuned.steps == tuned.history[int(np.argmax(scores))][0]
    called = tuned.model.predict_labels(query)[0].argmax(axis=1)
    assert (called == codes[:, 0]).mean() > 0.75


def test_the_same_seed_gives_the_same_model(cell_model, reference):
    query, tree, codes, held_out = reference
    config = FinetuneConfig(max_steps=3)
    tuned = [finetune(cell_model, query.counts, query.gene_index, codes, tree, held_out, config) for _ in range(2)]
    assert tuned[0].history == tuned[1].history
    first, second = (result.model.network.state_dict() for result in tuned)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_deeper_layers_learn_slower(cell_model):
    import copy

    network = copy.deepcopy(cell_model.network).requires_grad_(False)
    network.genes.freeze(10)
    optimizer = build_groups(network, FinetuneConfig(lr=1.0, trunk_lr_scale=0.5, layer_decay=0.5))
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(network.label_head.out.weight)] == 1.0
    assert rate[id(network.encoder.blocks[0].attention.query.weight)] == 0.5
    assert rate[id(network.genes.rows)] == 0.25
    assert id(network.genes.frozen) not in rate
    assert not network.genes.frozen.requires_grad
    assert not any(p.requires_grad for p in network.decoder.parameters())


def test_cells_to_learn_from_and_to_stop_by_are_needed(cell_model, reference):
    query, tree, codes, held_out = reference
    with pytest.raises(InputError, match="to learn from and to hold out"):
        finetune(cell_model, query.counts, query.gene_index, codes, tree, np.ones_like(held_out))
    with pytest.raises(InputError, match="must be positive"):
        FinetuneConfig(lr=0)
    with pytest.raises(InputError, match="dropout"):
        FinetuneConfig(dropout=1)
