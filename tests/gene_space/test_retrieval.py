from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lexicell.gene_space.retrieval import ortholog_retrieval


def test_the_share_is_the_area_under_the_curve_of_each_gene() -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((30, 5))
    second = first + rng.standard_normal((30, 5))
    found = ortholog_retrieval(first, second, top=3)
    cosine = (first / np.linalg.norm(first, axis=1)[:, None]) @ (second / np.linalg.norm(second, axis=1)[:, None]).T
    one = [roc_auc_score(np.eye(30)[i], row) for table in (cosine, cosine.T) for i, row in enumerate(table)]
    assert found.auc == pytest.approx(np.mean(one))
    ranks = [(row > row[i]).sum() for table in (cosine, cosine.T) for i, row in enumerate(table)]
    assert found.top10 == pytest.approx(np.mean(np.array(ranks) < 3))
    assert found.pairs == 30


def test_perfect_hopeless_and_tied_rows() -> None:
    rows = np.eye(6)
    assert ortholog_retrieval(rows, rows).auc == 1.0
    assert ortholog_retrieval(np.ones((6, 2)), np.ones((6, 2))).auc == pytest.approx(0.5)
    wrong = ortholog_retrieval(rows, np.roll(rows, 1, axis=0), top=1)
    assert wrong.auc < 0.5
    assert wrong.top10 < 1


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="two pairs or more"):
        ortholog_retrieval(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="two pairs or more"):
        ortholog_retrieval(np.ones((3, 2)), np.ones((4, 2)))
