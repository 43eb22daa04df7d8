from __future__ import annotations

import numpy as np
import pytest
import torch

from lexicell.data.query import Query, read_query
from lexicell.inference.cell_model import CellModel, DealtSamples
from lexicell.inference.count_effects import _encode, count_effects


@pytest.fixture
def known(cells, cell_model: CellModel) -> Query:
    return read_query(cells, cell_model.lexicon, species="simulus_albus").take(np.arange(8))


def classes_of(model: CellModel, part: DealtSamples) -> np.ndarray:
    return model.network.count_classes(torch.from_numpy(part.counts)).numpy()


def test_classes_as_they_are_give_the_cells_own_embedding(cell_model: CellModel, known: Query) -> None:
    with torch.inference_mode():
        for part in cell_model.dealt_samples(known):
            expected = cell_model.network.encode(*cell_model.tensors(part.genes, part.counts, part.depth)).cell
            np.testing.assert_allclose(_encode(cell_model, part, classes_of(cell_model, part)), expected, atol=1e-5)


def test_steps_and_removals_are_those_of_tokens_changed_by_hand(cell_model: CellModel, known: Query) -> None:
    found = count_effects(cell_model, known, caps=[1], tokens=10**6, rng=np.random.default_rng(0))
    moved: dict[int, list[tuple[float, float]]] = {}
    with torch.inference_mode():
        for part in cell_model.dealt_samples(known, batch_size=1):
            own = classes_of(cell_model, part)
            before = _encode(cell_model, part, own)[0]
            for place in np.flatnonzero(own[0] == 3):
                pair = []
                for now in (4, 0):
                    altered = own.copy()
                    altered[0, place] = now
                    pair.append(float(np.linalg.norm(_encode(cell_model, part, altered)[0] - before)))
                moved.setdefault(3, []).append((pair[0], pair[1]))
    assert found.tokens[3] == len(moved[3]) > 3
    step, removal = np.mean(moved[3], axis=0)
    assert found.step[3] == pytest.approx(step, rel=1e-3)
    assert found.removal[3] == pytest.approx(removal, rel=1e-3)
    assert np.isnan(found.step[0])  # zeros are not looked at
    expressed = known.counts.data
    assert found.occurs[3] == (expressed == 3).sum()
    assert found.occurs.sum() == len(expressed)
    assert found.clamped == 0


def test_a_cap_moves_cells_by_what_it_changes(cell_model: CellModel, known: Query) -> None:
    last = cell_model.network.count_classes.n_classes - 1
    found = count_effects(cell_model, known, caps=[1, 5, last], tokens=2, rng=np.random.default_rng(0))
    assert (found.tokens <= 2).all()
    assert found.capped[0] > found.capped[1] > 0
    assert found.capped[2] == pytest.approx(0, abs=1e-5)
    assert found.between > 0
    embedding, capped = cell_model.embed(known), np.zeros((known.n_cells, cell_model.cell_width))
    n = np.zeros((known.n_cells, 1))
    with torch.inference_mode():
        for part in cell_model.dealt_samples(known):
            np.add.at(capped, part.cell, _encode(cell_model, part, np.minimum(classes_of(cell_model, part), 1)))
            np.add.at(n, part.cell, 1)
    expected = np.linalg.norm(capped / n - embedding, axis=1).mean()
    assert found.capped[0] == pytest.approx(expected, rel=1e-3)
