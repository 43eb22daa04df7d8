import numpy as np
import pytest

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.workflows.benchmark_tasks import store_tasks, with_few_labels
from lexicell.workflows.prepare import prepare


@pytest.fixture
def store(stores) -> Store:
    return stores[0]


def test_donors_are_held_out_whole_and_every_level_is_a_task(store):
    tasks = store_tasks(store, split="donor")
    assert [task.level for task in tasks] == ["class", "type"]
    donors = store.obs["donor"].astype(str).to_numpy()
    for fold in tasks[1].folds:
        assert set(donors[fold.test]) == {fold.name}
        assert not set(donors[fold.train]) & {fold.name}
    assert list(tasks[0].paths.columns) == ["class"]
    assert list(tasks[1].paths.columns) == ["class", "type"]
    tested = np.concatenate([fold.test for fold in tasks[0].folds])
    assert sorted(tested) == list(range(store.n_cells))


def test_donors_are_dealt_whole_over_folds(store):
    donors = store.obs["donor"].astype(str).to_numpy()
    folds = store_tasks(store, split="donor:2")[0].folds
    assert len(folds) == 2
    for fold in folds:
        assert not set(donors[fold.train]) & set(donors[fold.test])


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("thirds", "expected donor, donor:K, folds:K"),
        ("folds", "expected donor, donor:K, folds:K"),
        ("donor:99", "K must be from 2"),
        ("donor=nobody", "'nobody' not found among"),
        ("source=nothing", "'nothing' not found among"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(store, split, said):
    with pytest.raises(InputError, match=said):
        store_tasks(store, split=split)


def test_an_unknown_level_is_refused(store):
    with pytest.raises(InputError, match="has no label level 'kind'"):
        store_tasks(store, split="donor", levels=["kind"])


def test_rare_labels_are_left_out(store):
    sizes = store.obs["type"].value_counts()
    tasks = store_tasks(store, split="folds:3", levels=["type"], min_cells=int(sizes.min()) + 1)
    kept = {task.labels[i] for task in tasks for fold in task.folds for i in [*fold.train, *fold.test]}
    assert str(sizes.idxmin()) not in kept
    assert len(kept) < store.obs["type"].nunique()


def test_two_files_are_compared_on_the_genes_of_both(cells, tmp_path):
    halves = [cells[:60, :300].copy(), cells[60:, 100:].copy()]
    datasets = [
        {"adata": half, "species": "simulus_albus", "labels": ["type"], "name": name}
        for half, name in zip(halves, ("first", "second"), strict=True)
    ]
    prepare({"datasets": datasets}, tmp_path / "store")
    (task,) = store_tasks(Store.open(tmp_path / "store"), split="source=second")
    assert task.counts.shape == (120, 200)
    assert len(task.folds) == 1
    assert list(task.folds[0].test) == list(range(60, 120))


def test_few_labels_are_nested_draws(store):
    (task,) = store_tasks(store, split="folds:2", levels=["type"])
    few, more = with_few_labels([task], [4, 2])
    assert (few.name, more.name) == (f"{store.name}, 2 a label", f"{store.name}, 4 a label")
    for small, large in zip(few.folds, more.folds, strict=True):
        assert set(small.train) < set(large.train)
        assert np.unique(task.labels[small.train], return_counts=True)[1].max() == 2
        np.testing.assert_array_equal(small.test, large.test)


def test_the_pool_is_all_that_lies_on_the_training_side(store):
    sizes = store.obs["type"].value_counts()
    (whole,) = store_tasks(store, split="folds:3", levels=["type"])
    (common,) = store_tasks(store, split="folds:3", levels=["type"], min_cells=int(sizes.min()) + 1)
    (few,) = with_few_labels([common], [2])
    for first, second, third in zip(whole.folds, common.folds, few.folds, strict=True):
        assert len(third.train) < len(second.train) < len(first.train)
        np.testing.assert_array_equal(second.unlabelled, first.train)
        np.testing.assert_array_equal(third.unlabelled, first.train)
        assert not np.intersect1d(third.unlabelled, third.test).size
