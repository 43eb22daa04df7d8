import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lexicell import neighbors
from lexicell.neighbors import _build_index as build_index
from lexicell.neighbors import find_neighbors


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 12)).astype(np.float32), rng.normal(size=(70, 12)).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_exact_agrees_with_scikit_learn(points, metric):
    reference, query = points
    found = find_neighbors(reference, query, k=9, metric=metric)
    distances, indices = NearestNeighbors(n_neighbors=9, metric=metric).fit(reference).kneighbors(query)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_a_query_gets_the_same_answer_alone_and_in_any_order(points, metric, method):
    reference, query = points
    whole = find_neighbors(reference, query, k=7, metric=metric, method=method)
    order = np.random.default_rng(1).permutation(len(query))
    shuffled = find_neighbors(reference, query[order], k=7, metric=metric, method=method)
    np.testing.assert_array_equal(shuffled.indices, whole.indices[order])
    np.testing.assert_array_equal(shuffled.distances, whole.distances[order])
    alone = find_neighbors(reference, query[5:6], k=7, metric=metric, method=method)
    np.testing.assert_array_equal(alone.indices[0], whole.indices[5])
    np.testing.assert_array_equal(alone.distances[0], whole.distances[5])


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, exact, strict=True)]))


def test_inverted_lists_find_most_of_the_exact_neighbours(points):
    reference, query = points
    exact = find_neighbors(reference, query, k=10).indices
    assert recall(find_neighbors(reference, query, k=10, method="ivf").indices, exact) > 0.9


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_auto_goes_over_to_inverted_lists_above_a_size_and_misses_next_to_nothing(metric, monkeypatch):
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(30, 24)) * 4
    reference, query = (
        (centres[rng.integers(30, size=n)] + rng.normal(size=(n, 24))).astype(np.float32) for n in (6000, 300)
    )
    exact = find_neighbors(reference, query, k=10, metric=metric)
    monkeypatch.setattr(neighbors, "EXACT_UP_TO", len(reference))
    below = find_neighbors(reference, query, k=10, metric=metric, method="auto")
    np.testing.assert_array_equal(below.indices, exact.indices)
    monkeypatch.setattr(neighbors, "EXACT_UP_TO", len(reference) - 1)
    built = []
    monkeypatch.setattr(neighbors, "_build_index", lambda *given: built.append(given[1]) or build_index(*given))
    above = find_neighbors(reference, query, k=10, metric=metric, method="auto")
    assert built == ["ivf"]
    assert recall(above.indices, exact.indices) > 0.99
    same = above.indices == exact.indices
    np.testing.assert_allclose(above.distances[same], exact.distances[same], rtol=1e-6)


def test_auto_is_exact_on_a_small_reference(points):
    reference, query = points
    auto = find_neighbors(reference, query, k=5, method="auto")
    np.testing.assert_array_equal(auto.indices, find_neighbors(reference, query, k=5).indices)


def test_a_reference_searching_itself_leaves_each_row_out():
    points = np.array([[0.0], [1.0], [3.0], [3.0]], dtype=np.float32)
    found = find_neighbors(points, k=2, metric="euclidean")
    np.testing.assert_array_equal(found.indices, [[1, 2], [0, 2], [3, 1], [2, 1]])
    np.testing.assert_allclose(found.distances, [[1, 3], [1, 2], [0, 2], [0, 2]])


def test_ties_are_broken_by_place():
    reference = np.ones((40, 3), dtype=np.float32)
    found = find_neighbors(reference, reference[:2], k=3)
    np.testing.assert_array_equal(found.indices, [[0, 1, 2], [0, 1, 2]])


def test_a_row_of_zeros_is_at_cosine_distance_one():
    reference = np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    found = find_neighbors(reference, np.zeros((1, 2), dtype=np.float32), k=2)
    np.testing.assert_allclose(found.distances, 1.0)


def test_no_queries_give_an_empty_table(points):
    found = find_neighbors(points[0], np.empty((0, 12), dtype=np.float32), k=3)
    assert found.indices.shape == (0, 3)
    assert found.distances.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: 0 neighbours"),
        ({"k": 301}, "expected 1 to 300"),
        ({"query": np.ones((2, 5))}, "5 columns, but the reference has 12"),
        ({"query": np.ones(12)}, r"expected an array \(rows, columns\)"),
        ({"query": np.full((2, 12), np.nan)}, "row 0 holds a value that is not finite"),
        ({"metric": "manhattan"}, "metric: expected"),
        ({"method": "annoy"}, "method: expected"),
    ],
)
def test_bad_input_is_refused(points, change, message):
    given = {"query": points[1], "k": 3} | change
    with pytest.raises(ValueError, match=message):
        find_neighbors(points[0], **given)
