from __future__ import annotations

import numpy as np
import pytest
import torch

from lexicell.data.cells import CellCollection
from lexicell.data.gene_sampler import SamplingConfig, fit_shape
from lexicell.data.store import Store
from lexicell.model.counts import CountConfig, lower_edges
from lexicell.training.skill import CountBaseline, SkillMeter, fit_baseline


def test_meter_by_hand() -> None:
    meter = SkillMeter()
    ce, baseline = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([2.0, 2.0, 4.0])
    meter.update(ce, baseline, torch.tensor([0, 3, 3]), torch.tensor([0.5, 0.001, 2.0]))
    meter.update(torch.tensor([8.0]), torch.tensor([4.0]), torch.tensor([25]), torch.tensor([2.0]))
    got = meter.compute()
    assert got["ce"] == 3
    assert got["baseline_ce"] == 3
    assert got["skill"] == 0
    assert got["skill/0"] == 0.5
    assert got["skill/2-4"] == 0.5
    assert got["skill/20+"] == -1
    assert got["skill/mean>=1"] == pytest.approx(1 - 10 / 8)
    assert "skill/1" not in got


def fitted(store: Store) -> tuple[CellCollection, CountBaseline, np.ndarray]:
    collection = CellCollection([store], store.lexicon)
    edges = lower_edges(CountConfig())
    shape = fit_shape(SamplingConfig(tokens=60, queries=40), store.n_genes)
    cells = np.arange(store.n_cells)
    return collection, fit_baseline(collection, cells, shape, edges, np.random.default_rng(0)), edges


def test_baseline_is_a_distribution_for_every_gene_and_depth(store: Store) -> None:
    _, baseline, edges = fitted(store)
    assert baseline.log_probabilities.shape == (8, store.n_genes, len(edges))
    torch.testing.assert_close(baseline.log_probabilities.exp().sum(-1), torch.ones(8, store.n_genes))
    assert baseline.log_probabilities.isfinite().all()
    mean = baseline.log_probabilities.exp().mean(0)
    torch.testing.assert_close(baseline.marginal(), mean.log().clamp(min=-6))
    assert (mean.log() < -6).any()


def test_baseline_knows_each_genes_mean_and_beats_the_average_gene(store: Store) -> None:
    collection, baseline, edges = fitted(store)
    dense = store.to_anndata().X.toarray()
    np.testing.assert_allclose(baseline.gene_mean.numpy(), dense.mean(0), rtol=1e-5)
    classes = torch.from_numpy(np.searchsorted(edges, dense, side="right") - 1)
    genes = torch.arange(store.n_genes).expand(store.n_cells, -1)
    ce = baseline(genes, classes, torch.from_numpy(collection.depth))
    shared = torch.bincount(classes.flatten(), minlength=len(edges)) / classes.numel()
    assert ce.mean() < -shared[classes].log().mean()


def test_baseline_rises_with_depth(store: Store) -> None:
    _, baseline, _ = fitted(store)
    silent = baseline.log_probabilities[:, :, 0].exp().mean(dim=1)
    assert silent[-1] < silent[0]
