import numpy as np
import pandas as pd
import pytest

from lexicell.annotation.opinions import LAST_SHARES, OpinionPool, shares_beside
from lexicell.labels import LabelTree

TREE = LabelTree.from_frame(pd.DataFrame({"class": ["x", "x", "y"], "type": ["a", "b", "c"]}), ["class", "type"])
SHARES = (0.5, 0.25, 0.25)


def opinion(chances: list[list[float]]) -> list[np.ndarray]:
    """Return log P(class) and log P(type | class) of cells, given P(x) and P(a | x)."""
    with np.errstate(divide="ignore"):
        return [
            np.log(np.array([[x, 1 - x] for x, _ in chances], np.float32)),
            np.log(np.array([[a, 1 - a, 1.0] for _, a in chances], np.float32)),
        ]


def test_opinions_are_averaged_among_siblings() -> None:
    experts = [opinion([[0.9, 0.2]]), opinion([[0.5, 0.6]])]
    tables = OpinionPool.unfitted((0.75, 0.25), TREE).tables(TREE, experts)
    np.testing.assert_allclose(tables[0][0], [0.8, 0.2], rtol=1e-5)
    np.testing.assert_allclose(tables[1][0], [0.8 * 0.3, 0.8 * 0.7, 0.2], rtol=1e-5)


def test_one_sure_expert_vetoes_nothing() -> None:
    experts = [opinion([[1.0, 0.5]]), opinion([[0.2, 0.5]]), opinion([[0.2, 0.5]])]
    (classes, _) = OpinionPool.unfitted((0.2, 0.4, 0.4), TREE).tables(TREE, experts)
    np.testing.assert_allclose(classes[0], [0.36, 0.64], rtol=1e-5)


def test_a_label_that_no_expert_knows_stays_impossible() -> None:
    unknown = [np.array([[0.0, -np.inf]], np.float32), np.array([[np.log(0.5), np.log(0.5), -np.inf]], np.float32)]
    tables = OpinionPool.unfitted((0.5, 0.5), TREE).tables(TREE, [unknown, unknown])
    np.testing.assert_allclose(tables[0], [[1.0, 0.0]])
    np.testing.assert_allclose(tables[1], [[0.5, 0.5, 0.0]], atol=1e-6)


def test_an_overconfident_expert_is_cooled_before_it_speaks() -> None:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, 2, 400), np.zeros(400, int)], axis=1)
    codes[:, 1] = np.where(codes[:, 0] == 1, 2, rng.integers(0, 2, 400))
    right = rng.random(400) < 0.7  # so often it is right; it says so with 99.9%
    said = np.where(right, codes[:, 0], 1 - codes[:, 0])
    sure = opinion([[0.999 if s == 0 else 0.001, 0.5] for s in said])
    honest = opinion([[0.5, 0.5]] * 400)
    pool = OpinionPool.fit(TREE, [sure, honest], codes, (1.0,), 0.0)
    (classes, _) = pool.tables(TREE, [sure, honest])
    assert classes.max() == pytest.approx(0.7, abs=0.05)


def test_the_last_experts_share_is_chosen_on_held_out_cells() -> None:
    rng = np.random.default_rng(1)
    codes = np.stack([rng.integers(0, 2, 300), np.zeros(300, int)], axis=1)
    codes[:, 1] = np.where(codes[:, 0] == 1, 2, rng.integers(0, 2, 300))
    knows = opinion([[0.9 if c == 0 else 0.1, 0.9 if t == 0 else 0.1] for c, t in codes])
    guesses = opinion(rng.uniform(0.1, 0.9, (300, 2)).tolist())
    silent = OpinionPool.fit(TREE, [knows, knows, knows, guesses], codes, SHARES)
    heard = OpinionPool.fit(TREE, [guesses, guesses, guesses, knows], codes, SHARES)
    assert silent.shares == shares_beside(SHARES, 0.0) == (*SHARES, 0.0)
    assert heard.shares[3] == LAST_SHARES[-1]
    assert sum(heard.shares) == pytest.approx(1)
