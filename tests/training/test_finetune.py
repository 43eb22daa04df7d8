import numpy as np
import pytest
import torch

from lexicell.data.query import read_query
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.labels import LabelTree
from lexicell.training.finetune import CHECKS, FinetuneConfig, build_groups, finetune

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
    config = FinetuneConfig(lr=0.02, max_epochs=6, patience=8, dropout=0.0)
    lines: list[str] = []
    tuned = finetune(cell_model, query.counts, query.gene_index, codes, tree, held_out, config, said=lines.append)
    for name, value in cell_model.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert tuned.model.label_tree == tree
    assert len(lines) == len(tuned.history) >= CHECKS
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


def test_it_stops_early_where_nothing_is_learned(cell_model, reference):
    query, tree, codes, held_out = reference
    nothing = np.random.default_rng(0).permutation(codes[:, 0])[:, None]
    flat = LabelTree(LEVELS[:1], (tree.names[0],), (tree.parents[0],))
    config = FinetuneConfig(lr=1e-6, max_epochs=40, patience=2)  # too slow to change any call
    tuned = finetune(cell_model, query.counts, query.gene_index, nothing, flat, held_out, config)
    best = int(np.argmax([score for _, score in tuned.history]))
    assert len(tuned.history) == best + 1 + config.patience < 20
    assert tuned.steps == tuned.history[best][0]


def test_a_large_reference_is_looked_at_often_and_seen_whole(cell_model, reference, monkeypatch):
    query, tree, codes, held_out = reference
    monkeypatch.setattr("lexicell.training.finetune._STEPS", 10)  # 90 cells are then too many for two epochs
    config = FinetuneConfig(batch_size=4, patience=20)
    tuned = finetune(cell_model, query.counts, query.gene_index, codes, tree, held_out, config)
    n_learned = int((~held_out & (codes[:, 0] >= 0)).sum())
    assert tuned.history[-1][0] == -(-n_learned // 4)
    assert len(tuned.history) >= 6


def test_covariates_that_were_told_are_told_on(cell_model, reference):
    query, tree, codes, held_out = reference
    name = next(iter(cell_model.spec.covariates))
    told = cell_model.given(**{name: cell_model.spec.covariates[name][0]})
    config = FinetuneConfig(max_steps=2)
    tuned = [finetune(m, query.counts, query.gene_index, codes, tree, held_out, config) for m in (cell_model, told)]
    tables = [result.model.network.state_dict()["covariates.tables.0.rows"] for result in tuned]
    assert torch.equal(tables[0][1:], cell_model.network.covariates.tables[0].rows[1:])  # only the unknown level moved
    assert not torch.equal(tables[1][1:], tables[0][1:])
    untold = CellModel(tuned[1].model.network, tuned[1].model.spec)
    assert not np.array_equal(tuned[1].model.embed(query), untold.embed(query))


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
