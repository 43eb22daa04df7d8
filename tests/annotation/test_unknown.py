import numpy as np

from lexicell.annotation.unknown import Novelty


def _cells(rng, centre, n):
    return (np.array(centre) + 0.2 * rng.normal(size=(n, len(centre)))).astype(np.float32)


def test_cells_of_a_type_that_the_reference_lacks_score_highest():
    rng = np.random.default_rng(0)
    reference = np.concatenate([_cells(rng, [2, 0, 0], 100), _cells(rng, [0, 2, 0], 100)])
    folds = [np.arange(i, 200, 10) for i in range(10)]
    novelty = Novelty.fit(reference, folds)
    known, new = novelty.score(_cells(rng, [2, 0, 0], 200)), novelty.score(_cells(rng, [0, 0, 2], 50))
    assert new.min() > known.max()
    assert (known < 1).all()
    assert (new < 1).all()
    assert abs((known < 0.5).mean() - 0.5) < 0.15  # as usual as the reference's own held-out cells


def test_beyond_the_farthest_the_order_stays():
    rng = np.random.default_rng(0)
    reference = _cells(rng, [2, 0, 0], 60)
    novelty = Novelty.fit(reference, [np.arange(30), np.arange(30, 60)])
    far = novelty.score(np.array([[0.5, 2, 0], [0, 2, 0], [-1, 1, 0]], dtype=np.float32))
    assert (np.diff(far) > 0).all()
    assert far.min() > 60 / 61 - 1e-6


def test_only_judged_cells_say_what_is_usual():
    rng = np.random.default_rng(0)
    reference = np.concatenate([_cells(rng, [2, 0, 0], 60), _cells(rng, [0, 9, 9], 1)])
    judged = np.ones(61, dtype=bool)
    judged[60] = False
    folds = [np.arange(0, 61, 2), np.arange(1, 61, 2)]
    assert Novelty.fit(reference, folds, judged).usual.max() < Novelty.fit(reference, folds).usual.max()


def test_a_type_is_found_beside_a_direction_in_which_all_cells_differ():
    rng = np.random.default_rng(1)

    def cells(kind: int, n: int) -> np.ndarray:
        points = 0.1 * rng.normal(size=(n, 12))
        points[:, 0] = 8 * rng.normal(size=n)
        points[:, 1 + kind] += 1
        return points.astype(np.float32)

    reference = np.concatenate([cells(kind, 60) for kind in range(4)])
    novelty = Novelty.fit(reference, [np.arange(i, 240, 5) for i in range(5)])
    known, new = novelty.score(np.concatenate([cells(kind, 40) for kind in range(4)])), novelty.score(cells(9, 40))
    assert np.median(new) > np.quantile(known, 0.9)
