from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lexicell.batch import CellBatch
from lexicell.data.cells import CellCollection, covariate_levels, merge_label_trees, merge_lexicons
from lexicell.data.gene_sampler import GeneSampler, SamplingConfig, fit_shape
from lexicell.data.loader import CellStream, Shard
from lexicell.data.order import CellOrder, OrderConfig
from lexicell.data.store import Store
from lexicell.errors import InputError


@pytest.fixture
def make(stores: list[Store]):
    lexicon = merge_lexicons(stores)
    collection = CellCollection(
        stores, lexicon, label_tree=merge_label_trees(stores), covariates=covariate_levels(stores)
    )
    cells = np.arange(0, collection.n_cells, 2)
    shape = fit_shape(SamplingConfig(tokens=40, queries=20), 400)

    def stream(**options) -> CellStream:
        order = CellOrder(collection.panel[cells], OrderConfig(4, 8), seed=5)
        sampler = GeneSampler(shape, collection.panels, len(lexicon), seed=5)
        options = {"batch_size": 8, "seed": 5} | options
        return CellStream(collection, cells, sampler, order, **options)

    return stream


def same(a: CellBatch, b: CellBatch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)


def take(stream, n: int) -> list[CellBatch]:
    batches = iter(stream)
    return [next(batches) for _ in range(n)]


def test_batches_have_one_shape(make) -> None:
    for batch in take(make(), 20):
        assert batch.genes.shape == batch.counts.shape == (2, 8, 40)
        assert batch.query_genes.shape == (8, 20)
        assert batch.labels.shape == (8, 2)


def test_a_stream_goes_on_from_any_batch(make) -> None:
    whole = take(make(), 20)
    assert all(same(a, b) for a, b in zip(take(make(first_batch=13), 7), whole[13:], strict=True))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_partition_each_global_batch(make, world_size: int) -> None:
    whole = take(make(), 6)
    ranks = [take(make(shard=Shard(rank, world_size)), 6) for rank in range(world_size)]
    for k, batch in enumerate(whole):
        parts = [rank[k] for rank in ranks]
        assert torch.equal(torch.cat([part.position for part in parts]), batch.position)
        assert torch.equal(torch.cat([part.genes for part in parts], dim=1), batch.genes)


def test_workers_do_not_change_what_is_read(make) -> None:
    whole = take(make(), 9)
    loader = DataLoader(make(), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert all(same(a, b) for a, b in zip(take(loader, 9), whole, strict=True))


def test_a_finite_pass_sees_every_cell_once(make) -> None:
    stream = make(stop=119)
    batches = list(stream)
    assert len(batches) == len(stream) == 15
    assert sum(batch.n_cells for batch in batches) == 119


def test_covariates_are_hidden_at_the_asked_rate(make) -> None:
    hidden = torch.cat([batch.covariates for batch in take(make(covariate_dropout=0.5), 60)]) == 0
    assert 0.4 < hidden.float().mean() < 0.6
    assert not torch.cat([batch.covariates for batch in take(make(), 20)]).eq(0).any()


def test_a_batch_that_cannot_be_shared_out_is_refused(make) -> None:
    with pytest.raises(InputError, match="multiple of 3"):
        make(shard=Shard(0, 3))


def test_a_stream_travels_to_a_worker(make) -> None:
    copy = pickle.loads(pickle.dumps(make()))  # noqa: S301
    assert same(copy.make_batch(3), make().make_batch(3))


def test_a_last_batch_that_does_not_reach_every_rank(make) -> None:
    ranks = [list(make(stop=66, batch_size=16, shard=Shard(rank, 4))) for rank in range(4)]
    positions = torch.cat([batch.position for rank in ranks for batch in rank])
    assert sorted(positions.tolist()) == list(range(66))
