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
from lexicell.data.weights import WeightConfig, group_shares
from lexicell.errors import InputError


@pytest.fixture
def make(stores: list[Store]):
    lexicon = merge_lexicons(stores)
    collection = CellCollection(
        stores, lexicon, label_tree=merge_label_trees(stores), covariates=covariate_levels(stores)
    )
    cells = np.arange(0, collection.n_cells, 2)
    shape = fit_shape(SamplingConfig(tokens=40, queries=20), 400)

    def stream(weights: WeightConfig | None = None, **options) -> CellStream:
        shares = None
        if weights is not None:
            column = collection.coded(weights.by)
            shares = group_shares(column.names, column.codes[cells].astype(np.int64), weights)
        order = CellOrder(collection.panel[cells], OrderConfig(4, 8), seed=5, shares=shares)
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


def test_ranks_take_whole_batches_of_a_finite_pass_and_keep_step(make) -> None:
    streams = [make(stop=66, batch_size=16, shard=Shard(rank, 4)) for rank in range(4)]
    ranks = [list(stream) for stream in streams]
    assert [len(batches) for batches in ranks] == [len(stream) for stream in streams] == [2] * 4
    positions = torch.cat([batch.position for rank in ranks for batch in rank])
    assert sorted(positions[positions >= 0].tolist()) == list(range(66))
    whole = list(make(stop=66, batch_size=16))
    dealt = [ranks[k % 4][k // 4] for k in range(len(whole))]
    assert all(same(a, b) for a, b in zip(dealt, whole, strict=True))
    assert all((ranks[rank][1].position < 0).all() for rank in (1, 2, 3))
    loader = DataLoader(streams[2], batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert all(same(a, b) for a, b in zip(loader, ranks[2], strict=True))


def test_ranks_partition_every_epoch(make) -> None:
    n_cells, size = len(make().cells), 16
    ranks = [take(make(shard=Shard(rank, 4), batch_size=size), 2 * n_cells // size + 1) for rank in range(4)]
    order = make().order
    positions = torch.cat([batch.position for rank in ranks for batch in rank]).numpy()
    for epoch in range(2):
        mine = np.sort(positions[positions // n_cells == epoch])
        cells = order.take(int(mine[0]), int(mine[-1]) + 1).cells
        np.testing.assert_array_equal(np.sort(cells), np.arange(n_cells))


def test_a_weighted_stream_depends_on_the_position_alone(make) -> None:
    def weighted(**options) -> CellStream:
        return make(weights=WeightConfig(by="type", temperature=5, weights={}), **options)

    whole = take(weighted(), 24)
    assert all(same(a, b) for a, b in zip(take(weighted(first_batch=19), 5), whole[19:], strict=True))
    ranks = [take(weighted(shard=Shard(rank, 4)), 24) for rank in range(4)]
    for k, batch in enumerate(whole):
        assert torch.equal(torch.cat([rank[k].genes for rank in ranks], dim=1), batch.genes)
    loader = DataLoader(weighted(), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert all(same(a, b) for a, b in zip(take(loader, 24), whole, strict=True))


def test_weights_shift_what_is_read(make) -> None:
    def share_of_niger(**options) -> float:
        return float(torch.cat([batch.covariates[:, 0] for batch in take(make(**options), 60)]).eq(2).float().mean())

    assert 0.4 < share_of_niger() < 0.6
    weights = WeightConfig(by="species", weights={"simulus_niger": 9})
    assert 0.85 < share_of_niger(weights=weights) < 0.95
