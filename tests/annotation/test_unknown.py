import numpy as np

from lexicell.annotation.tree import SIBLINGS, Calls
from lexicell.annotation.unknown import Novelty, doubt


def _no_doubt(cells):
    return np.zeros(len(cells))


def _score(novelty, cells):
    return novelty.score(cells, _no_doubt(cells))


def _cells(rng, centre, n):
    return (np.array(centre) + 0.2 * rng.normal(size=(n, len(centre)))).astype(np.float32)


def test_cells_of_a_type_that_the_reference_lacks_score_highest():
    rng = np.random.default_rng(0)
    reference = np.concatenate([_cells(rng, [2, 0, 0], 100), _cells(rng, [0, 2, 0], 100)])
    folds = [np.arange(i, 200, 10) for i in range(10)]
    novelty = Novelty.fit(reference, folds, _no_doubt(reference))
    known, new = _score(novelty, _cells(rng, [2, 0, 0], 200)), _score(novelty, _cells(rng, [0, 0, 2], 50))
    assert new.min() > known.max()
    assert (known < 1).all()
    assert (new < 1).all()
    assert abs((known < 0.5).mean() - 0.5) < 0.15  # as usual as the reference's own held-out cells


def test_beyond_the_farthest_the_order_stays():
    rng = np.random.default_rng(0)
    reference = _cells(rng, [2, 0, 0], 60)
    novelty = Novelty.fit(reference, [np.arange(30), np.arange(30, 60)], _no_doubt(reference))
    far = _score(novelty, np.array([[0.5, 2, 0], [0, 2, 0], [-1, 1, 0]], dtype=np.float32))
    assert (np.diff(far) > 0).all()
    assert far.min() > 60 / 61 - 1e-6


def test_only_held_out_cells_say_what_is_usual():
    rng = np.random.default_rng(0)
    reference = np.concatenate([_cells(rng, [2, 0, 0], 60), _cells(rng, [0, 9, 9], 1)])
    doubts = _no_doubt(reference)
    doubts[60] = np.nan
    folds = [np.arange(0, 61, 2), np.arange(1, 61, 2)]
    assert (
        Novelty.fit(reference, folds, doubts).usual.max()
        < Novelty.fit(reference, folds, _no_doubt(reference)).usual.max()
    )


def test_a_type_is_found_beside_a_direction_in_which_all_cells_differ():
    rng = np.random.default_rng(1)

    def cells(kind: int, n: int) -> np.ndarray:
        points = 0.1 * rng.normal(size=(n, 12))
        points[:, 0] = 8 * rng.normal(size=n)
        points[:, 1 + kind] += 1
        return points.astype(np.float32)

    reference = np.concatenate([cells(kind, 60) for kind in range(4)])
    novelty = Novelty.fit(reference, [np.arange(i, 240, 5) for i in range(5)], _no_doubt(reference))
    known, new = _score(novelty, np.concatenate([cells(kind, 40) for kind in range(4)])), _score(novelty, cells(9, 40))
    assert np.median(new) > np.quantile(known, 0.9)


def test_a_cell_between_types_is_found_by_doubt():
    rng = np.random.default_rng(2)
    reference = np.concatenate([_cells(rng, [2, 0, 0], 100), _cells(rng, [0, 2, 0], 100)])
    doubts = rng.uniform(0, 0.1, 200)
    novelty = Novelty.fit(reference, [np.arange(i, 200, 10) for i in range(10)], doubts)
    cells = _cells(rng, [2, 0, 0], 50)
    sure, unsure = novelty.score(cells, np.full(50, 0.05)), novelty.score(cells, np.full(50, 0.5))
    assert (unsure > sure).all()
    assert unsure.min() > 0.99
    probs = np.array([[0.9, 0.5], [1.0, 1.0]], dtype=np.float32)
    others = np.zeros((2, 2, SIBLINGS), np.float32)
    calls = Calls(np.zeros((2, 2), int), probs, probs.astype(int), probs, others.astype(np.int32), others)
    np.testing.assert_allclose(doubt(calls), [0.3, 0], atol=1e-6)
