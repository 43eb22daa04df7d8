from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from lexicell.data.gene_sampler import SamplingConfig
from lexicell.data.store import Store
from lexicell.data.weights import WeightConfig
from lexicell.errors import InputError
from lexicell.training.datamodule import CellDataModule, DataConfig
from lexicell.workflows.prepare import prepare

SAMPLING = SamplingConfig(tokens=40, queries=20)


def test_weights_reach_the_stream(stores: list[Store]) -> None:
    config = DataConfig(batch_size=16, weights=WeightConfig(by="species", weights={"simulus_niger": 0}))
    data = CellDataModule(stores, config, SAMPLING, seed=0)
    stream = data.train_dataloader().dataset
    niger = data.collection.coded("species").texts() == "simulus_niger"
    cells = data.training_cells[stream.order.take(0, 200).cells]
    assert not niger[cells].any()
    weights = data.cell_weights()
    assert weights.sum() == pytest.approx(len(data.training_cells))
    np.testing.assert_array_equal(weights == 0, niger[data.training_cells])


def test_an_unknown_column_to_weigh_by_is_refused(stores: list[Store]) -> None:
    with pytest.raises(InputError, match="no column 'typo'; they have store, source, species"):
        CellDataModule(stores, DataConfig(weights=WeightConfig(by="typo")), SAMPLING, seed=0)


def test_batches_are_made_ahead_in_workers(stores: list[Store]) -> None:
    loader = CellDataModule(stores, DataConfig(workers=2, prefetch=3), SAMPLING, seed=0).train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.pin_memory) == (2, 3, False)


def test_a_small_panel_is_told_of(cells: AnnData, tmp_path) -> None:
    datasets = [
        {"adata": cells, "species": "simulus_albus"},
        {"adata": cells[:50, :60].copy(), "species": "simulus_albus"},
    ]
    prepare({"datasets": datasets}, tmp_path / "store")
    data = CellDataModule([Store.open(tmp_path / "store")], DataConfig(), SAMPLING, seed=0)
    (note,) = data.notes
    assert (data.shape.tokens, data.shape.queries) == (24, 12)
    assert "24 genes a view and is asked for 12, instead of 40 and 20" in note
    assert "60 genes, 50 cells" in note
    assert "without it, 40 and 20" in note
    whole = {"adata": cells, "species": "simulus_albus"}
    prepare({"datasets": [whole]}, tmp_path / "whole")
    assert CellDataModule([Store.open(tmp_path / "whole")], DataConfig(), SAMPLING, seed=0).notes == ()
