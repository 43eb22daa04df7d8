from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from lexicell.data.query import Query, read_query
from lexicell.inference.attribution import Baseline, attribute, average_baseline, head_direction, silent_baseline
from lexicell.inference.cell_model import CellModel


@pytest.fixture
def model(cell_model: CellModel) -> CellModel:
    """A model whose bag knows what is usual, as after training: else a cell without counts would have an empty bag."""
    own = copy.copy(cell_model)
    own.network = copy.deepcopy(cell_model.network)
    with torch.no_grad():
        own.network.bag.usual.copy_(torch.rand(len(own.lexicon), generator=torch.Generator().manual_seed(0)))
    return own


@pytest.fixture
def known(cells, cell_model: CellModel) -> Query:
    return read_query(cells, cell_model.lexicon, species="simulus_albus").take(np.arange(6))


@pytest.fixture
def direction(cell_model: CellModel) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(cell_model.cell_width).astype(np.float32)


def test_contributions_add_up_to_what_the_counts_changed(model: CellModel, known: Query, direction: np.ndarray) -> None:
    found = attribute(model, known, direction, silent_baseline(model), steps=24)
    assert found.gap < 0.01
    assert found.mean.sum() == pytest.approx(found.score - found.baseline, abs=0.01 * abs(found.score - found.baseline))
    assert found.score == pytest.approx(float((model.embed(known) @ direction).mean()), abs=1e-4)

    before, n = np.zeros(known.n_cells), np.zeros(known.n_cells)
    for dealt in model.dealt_samples(known):  # the same samples, silenced: what the path begins with
        tensors = model.tensors(dealt.genes, np.zeros_like(dealt.counts), dealt.depth)
        with torch.no_grad():
            cell = model.network.encode(*tensors).cell.numpy()
        np.add.at(before, dealt.cell, cell @ direction)
        np.add.at(n, dealt.cell, 1)
    assert found.baseline == pytest.approx(float((before / n).mean()), abs=1e-4)


def test_more_steps_miss_less_and_the_gradient_alone_misses_most(
    model: CellModel, known: Query, direction: np.ndarray
) -> None:
    begin = silent_baseline(model)
    gaps = [attribute(model, known, direction, begin, steps=steps).gap for steps in (2, 8)]
    alone = attribute(model, known, direction, begin, path=False).gap
    assert gaps[1] < gaps[0] < alone


def by_captum(model: CellModel, cell: Query, direction: np.ndarray, baseline: Baseline, steps: int) -> np.ndarray:
    """Attribute one cell's score by captum, with a straight path, sample by sample."""
    captum = pytest.importorskip("captum.attr")
    network, aim = model.network, torch.from_numpy(direction)
    total, n_samples = np.zeros(len(model.lexicon)), 0
    for dealt in model.dealt_samples(cell, batch_size=1):
        genes, counts, depth, told = model.tensors(dealt.genes, dealt.counts, dealt.depth)
        counted, weights = network.counts(network.count_classes(counts)), network.bag.weights(genes, counts, depth)

        def score(
            counted: torch.Tensor, weights: torch.Tensor, genes: torch.Tensor, told: torch.Tensor
        ) -> torch.Tensor:
            return network.read(network.genes(genes), counted, weights, told).cell @ aim

        by_count, by_weight = captum.IntegratedGradients(score, multiply_by_inputs=True).attribute(
            (counted, weights),
            baselines=(baseline.counted[genes], baseline.level[genes] - network.bag.usual[genes]),
            additional_forward_args=(genes, told),
            n_steps=steps,
            method="gausslegendre",
        )
        np.add.at(total, dealt.genes, (by_count.sum(dim=-1) + by_weight).detach().numpy())
        n_samples += 1
    return total / n_samples


@pytest.mark.parametrize("begin", ["silent", "average"])
def test_captum_agrees(model: CellModel, known: Query, direction: np.ndarray, begin: str) -> None:
    baseline = silent_baseline(model) if begin == "silent" else average_baseline(model, [known])
    one = known.take(np.arange(1))
    own = attribute(model, one, direction, baseline, steps=64)
    theirs = by_captum(model, one, direction, baseline, steps=256)
    assert own.gap < 1e-4
    np.testing.assert_allclose(own.mean, theirs, atol=1e-4 * float(np.abs(theirs).max()))


def test_silent_genes_contribute_nothing(model: CellModel, known: Query, direction: np.ndarray) -> None:
    found = attribute(model, known, direction, silent_baseline(model), steps=2)
    expressed = np.zeros(len(model.lexicon), bool)
    expressed[known.gene_index] = np.diff(known.counts.tocsc().indptr) > 0
    assert (found.mean[~expressed] == 0).all()
    np.testing.assert_array_equal(found.shown[known.gene_index], np.diff(known.counts.tocsc().indptr))


def test_the_average_cell_is_the_average(cell_model: CellModel, known: Query) -> None:
    begin = average_baseline(cell_model, [known.take(np.arange(2)), known.take(np.arange(2, 6))])
    classes = cell_model.network.count_classes
    dense = known.counts.toarray()
    depth = dense.sum(axis=1, keepdims=True)
    with torch.no_grad():
        counted = cell_model.network.counts(classes(torch.from_numpy(dense.astype(np.int64)))).mean(dim=0)
    np.testing.assert_allclose(begin.counted[known.gene_index], counted, atol=1e-5)
    np.testing.assert_allclose(begin.level[known.gene_index], np.log1p(dense * 1e4 / depth).mean(axis=0), rtol=1e-4)
    others = np.setdiff1d(np.arange(len(cell_model.lexicon)), known.gene_index)
    zero = cell_model.network.counts.weight[0].expand(len(others), -1)
    torch.testing.assert_close(begin.counted[others], zero)


def test_a_label_is_read_against_its_siblings(cell_model: CellModel) -> None:
    tree, head = cell_model.label_tree, cell_model.network.label_head
    assert tree is not None
    assert head is not None
    label = tree.names[1][2]
    parent = int(tree.parents[1][2])
    cell = torch.randn(3, cell_model.cell_width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        classes, types = (head.out(cell) - head.out.bias).split(head.sizes, dim=-1)
    sibling = [i for i in range(4) if tree.parents[1][i] == parent and i != 2]
    expected = types[:, 2] - types[:, sibling].mean(dim=1) + classes[:, parent] - classes[:, 1 - parent]
    np.testing.assert_allclose(cell.numpy() @ head_direction(cell_model, "type", label), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(KeyError):
        head_direction(cell_model, "type", "none such")
    with pytest.raises(KeyError):
        head_direction(cell_model, "donor", label)
